"""What a workspace holds: added, listed, verified, forgotten."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from loramerge import api
from loramerge.errors import (
    AmbiguousName,
    BadOption,
    IntegrityError,
    LockMismatch,
    NotFound,
    UnknownName,
    UnsafePickle,
    UsageError,
)

WEIGHTS, CONFIG, PICKLE = "adapter_model.safetensors", "adapter_config.json", "adapter_model.bin"


def names(session):
    return [row["name"] for row in api.listing(session)]


def spoil(folder, file=CONFIG):
    (folder / file).write_bytes((folder / file).read_bytes() + b" ")


@pytest.fixture
def online(session, hub):
    """The workspace as "me" of a Hub."""
    return replace(session, endpoint=hub.endpoint, token=hub.token)


def publish(session, folder, repo):
    """Push a local folder; the commit's id."""
    return api.push(session, str(folder), repo).commit


# Local adapters


def test_a_local_adapter_is_listed_with_what_its_header_says(session, make_adapter):
    folder = make_adapter("mine", rank=3)

    api.pull(session, [str(folder)])

    size = sum((folder / name).stat().st_size for name in (WEIGHTS, CONFIG))
    row = {"role": "source", "base": "acme/base", "format": "peft", "rank": 3, "modules": 4, "size": size}
    assert api.listing(session) == [{"name": "mine", **row, "source": "../mine"}]


def test_a_local_adapter_that_was_changed_is_refused_until_it_is_pulled_again(session, make_adapter):
    folder = make_adapter("mine")
    api.pull(session, [str(folder)])
    spoil(folder)

    with pytest.raises(IntegrityError, match=f"{CONFIG} has"):
        api.pull(session)
    with pytest.raises(IntegrityError):
        api.verify(session)
    api.pull(session, [str(folder)])

    assert api.verify(session)[0]["files"] == 2


def test_a_name_that_is_taken_needs_another(session, make_adapter):
    one, two = make_adapter("one/mine"), make_adapter("two/mine")
    api.pull(session, [str(one)])

    with pytest.raises(AmbiguousName) as caught:
        api.pull(session, [str(two)])
    api.pull(session, [str(two)], name="other")

    assert "--as" in caught.value.hint
    assert names(session) == ["mine", "other"]


def test_one_name_is_for_one_adapter(session, make_adapter):
    folders = [str(make_adapter(name)) for name in "xy"]

    with pytest.raises(BadOption, match="--as names one adapter"):
        api.pull(session, folders, name="z")
    with pytest.raises(BadOption, match="--as names one adapter"):
        api.pull(session, [], name="z")


def test_an_adapter_that_is_here_is_not_renamed_by_pulling_it(session, make_adapter):
    api.pull(session, [str(make_adapter("mine"))])

    with pytest.raises(BadOption, match="is the name of this adapter"):
        api.pull(session, ["mine"], name="other")

    assert names(session) == ["mine"]


@pytest.mark.parametrize("name", ["a b", "a\nb", "\x1b[1m", "ü ü"])
def test_a_folder_that_cannot_be_a_name_needs_one_that_can(session, make_adapter, name):
    folder = make_adapter(name)

    with pytest.raises(BadOption) as caught:
        api.pull(session, [str(folder)])

    assert "--as" in caught.value.hint
    assert names(session) == []


def test_a_path_that_the_lock_could_not_hold_leaves_the_lock_as_it_was(session, make_adapter):
    api.pull(session, [str(make_adapter("mine"))])
    before = session.workspace.lock.read_bytes()

    with pytest.raises(BadOption, match="path cannot be"):
        api.pull(session, [str(make_adapter("a\nb"))], name="fine")

    assert session.workspace.lock.read_bytes() == before


@pytest.mark.parametrize("base", ["x\ny", "\x1b[31mred", "a" * 5000, "\u202eevil"])
def test_a_hostile_base_is_locked_as_printable_text(session, make_adapter, base):
    api.pull(session, [str(make_adapter("mine", base=base))])

    (row,) = api.listing(session)
    assert row["base"].isprintable()
    assert len(row["base"]) <= 300


def test_an_adapter_without_a_base_has_none(session, make_adapter):
    api.pull(session, [str(make_adapter("mine", base=None))])

    assert api.listing(session)[0]["base"] is None


@pytest.fixture
def pickled(make_adapter):
    """An adapter whose weights are a pickle."""
    folder = make_adapter("old")
    torch.save(load_file(folder / WEIGHTS), folder / PICKLE)
    (folder / WEIGHTS).unlink()
    return folder


def test_a_pickle_that_was_allowed_once_is_allowed_while_its_bytes_are_the_same(session, pickled):
    with pytest.raises(UnsafePickle):
        api.pull(session, [str(pickled)])
    api.pull(session, [str(pickled)], allow_pickle=True)

    assert session.workspace.get("old").pickle
    assert api.show(session, "old").facts["modules"] == 4
    spoil(pickled, PICKLE)
    with pytest.raises(IntegrityError):
        api.merge(session)


def test_allowing_pickles_allows_none_where_there_is_none(session, make_adapter):
    api.pull(session, [str(make_adapter("mine"))], allow_pickle=True)

    assert not session.workspace.get("mine").pickle


def test_copies_are_made_beside_what_is_locked(session, make_adapter):
    folder = make_adapter("mine")
    api.pull(session, [str(folder)], to=session.folder / "copies")

    shutil.rmtree(folder)

    assert load_file(session.folder / "copies" / "mine" / WEIGHTS)
    with pytest.raises(NotFound, match="'mine' are gone"):
        api.verify(session)


def test_a_lock_without_sources_has_nothing_to_restore(session):
    with pytest.raises(UsageError, match="nothing to restore"):
        api.pull(session)


# Forgetting and verifying


def test_forgetting_leaves_the_files(session, make_adapter):
    folder = make_adapter("mine")
    api.pull(session, [str(folder)])

    rows = api.remove(session, ["mine", "mine"], purge=True)

    assert rows == [{"name": "mine", "role": "source", "source": "../mine", "freed": 0}]
    assert names(session) == []
    assert (folder / WEIGHTS).is_file()


def test_an_unknown_name_forgets_nobody(session, make_adapter):
    api.pull(session, [str(make_adapter("mine"))])

    with pytest.raises(UnknownName):
        api.remove(session, ["mine", "yours"])

    assert names(session) == ["mine"]


def test_every_broken_entry_is_named(session, make_adapter):
    folders = [make_adapter(name) for name in "xyz"]
    api.pull(session, [str(folder) for folder in folders])
    spoil(folders[0])
    spoil(folders[2], WEIGHTS)

    with pytest.raises(IntegrityError) as caught:
        api.verify(session)

    assert "'x' is not what the lock pins" in caught.value.message
    assert "'z' is not what the lock pins" in caught.value.message
    assert "'y'" not in caught.value.message
    assert [row["name"] for row in api.verify(session, ["y"])] == ["y"]


# From a Hub


def test_a_purge_spares_what_another_adapter_needs(online, make_adapter, tmp_path):
    for name in ("one", "two"):
        make_adapter(f"repo/{name}")
    online.hub.api.create_repo("me/both")
    online.hub.api.upload_folder(repo_id="me/both", folder_path=tmp_path / "repo")
    api.pull(online, ["me/both:one", "me/both:two"])

    first = api.remove(online, ["one"], purge=True)
    there = api.verify(online)
    second = api.remove(online, ["two"], purge=True)

    assert (first[0]["freed"], [row["name"] for row in there]) == (0, ["two"])
    assert second[0]["freed"] > 0


def test_a_branch_that_moved_is_told_and_frozen_it_is_refused(online, make_adapter):
    folder = make_adapter("mine")
    before = publish(online, folder, "me/mine")
    api.pull(online, ["me/mine"])
    shutil.rmtree(folder)
    after = publish(online, make_adapter("mine", rank=2), "me/mine")
    said = []

    with pytest.raises(LockMismatch, match=f"{after[:12]} now, {before[:12]} then"):
        api.pull(online, frozen=True)
    api.pull(online)
    assert session_commit(online) == before
    api.pull(online, ["me/mine"], say=said.append)

    assert session_commit(online) == after
    assert any(before[:12] in text and after[:12] in text for text in said)


@pytest.mark.parametrize("refs", [["mine"], ["me/mine"], []])
def test_a_dry_run_of_what_is_locked_fetches_and_copies_nothing(online, make_adapter, tmp_path, refs):
    publish(online, make_adapter("mine"), "me/mine")
    api.pull(online, ["me/mine"])
    empty = replace(online, cache=tmp_path / "empty")

    rows = api.pull(empty, refs, dry_run=True, to=online.folder / "copies")

    assert rows[0]["name"] == "mine"
    assert not (tmp_path / "empty").exists() or not any((tmp_path / "empty").rglob("adapter_*"))
    assert not (online.folder / "copies").exists()


@pytest.mark.parametrize("refs", [["mine"], []])
def test_a_frozen_dry_run_refuses_a_branch_that_moved(online, make_adapter, refs):
    folder = make_adapter("mine")
    publish(online, folder, "me/mine")
    api.pull(online, ["me/mine"])
    api.pull(online, refs, dry_run=True, frozen=True)
    shutil.rmtree(folder)
    publish(online, make_adapter("mine", rank=2), "me/mine")

    with pytest.raises(LockMismatch):
        api.pull(online, refs, dry_run=True, frozen=True)


def session_commit(session):
    return session.workspace.get("mine").commit


def test_what_the_lock_pins_is_opened_without_a_network(online, make_adapter):
    commit = publish(online, make_adapter("mine"), "me/mine")
    api.pull(online, ["me/mine"])
    offline = replace(online, offline=True)

    for ref in ("mine", "me/mine", f"me/mine@{commit}"):
        assert api.inspect(offline, ref).modules
