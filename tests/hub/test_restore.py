from __future__ import annotations

from dataclasses import replace

import pytest

from loramerge.errors import IntegrityError, NotFound
from loramerge.hub import cache
from loramerge.hub.download import download
from loramerge.hub.pull import Pinned, RemoteFile, plan_pull
from loramerge.hub.reference import HubRef
from loramerge.workspace.lock import Entry
from loramerge.workspace.workspace import Workspace


@pytest.fixture
def pulled(server, client, adapter, tmp_path):
    """A workspace with one adapter from the Hub."""
    server.publish(adapter)
    remote = plan_pull(client, HubRef("me/math"))
    _, pins = download(client, remote.pinned)
    (tmp_path / "work").mkdir()
    workspace = Workspace(tmp_path / "work")
    workspace.add(Entry("math", "source", pins, repo="me/math", commit=remote.commit))
    return workspace


def restore(client, entry):
    files = tuple(RemoteFile(pin.path, pin.size, pin.sha256) for pin in entry.files)
    return download(client, Pinned(entry.repo, entry.commit, entry.subfolder, files))


def test_an_entry_of_the_lock_is_found_in_the_cache(client, pulled):
    entry = pulled.get("math")

    assert pulled.path_of(entry, replace(client, offline=True)).name == entry.commit
    pulled.verify(entry, replace(client, offline=True))


def test_an_entry_that_was_purged_says_how_to_get_it_back(client, pulled):
    entry = pulled.get("math")
    cache.purge(client, entry.repo, entry.commit)

    with pytest.raises(NotFound) as caught:
        pulled.path_of(entry, client)

    assert "loramerge pull math" in caught.value.hint


def test_a_purged_entry_is_restored_from_its_pin_though_main_has_moved(server, client, pulled, adapter):
    entry = pulled.get("math")
    (adapter / "adapter_config.json").write_text("{}")
    server.publish(adapter)
    cache.purge(client, entry.repo, entry.commit)

    _, pins = restore(client, entry)

    assert pins == entry.files
    pulled.verify(entry, client)


def test_bytes_that_are_not_those_of_the_lock_are_refused(client, pulled):
    entry = pulled.get("math")
    other = replace(entry, files=tuple(replace(pin, sha256="0" * 64) for pin in entry.files))

    with pytest.raises(IntegrityError):
        restore(client, other)


def test_verify_names_the_file_that_changed_in_the_cache(client, pulled):
    entry = pulled.get("math")
    weights = (pulled.path_of(entry, client) / "adapter_model.safetensors").resolve()
    weights.write_bytes(bytes(weights.stat().st_size))

    with pytest.raises(IntegrityError, match="safetensors has sha256") as caught:
        pulled.verify(entry, client)

    assert caught.value.exit_code == 7


def test_a_local_adapter_is_found_from_the_workspace_wherever_both_are(client, adapter, tmp_path):
    from loramerge.core.provenance import pin

    (tmp_path / "work").mkdir()
    workspace = Workspace(tmp_path / "work")
    entry = Entry("mine", "source", pin(adapter, ["adapter_config.json"]), path=workspace.relative(adapter))
    workspace.add(entry)
    (tmp_path / "elsewhere").mkdir()
    for name in ("work", adapter.name):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    moved = Workspace(tmp_path / "elsewhere/work")

    assert entry.path == f"../{adapter.name}"
    assert moved.path_of(moved.get("mine"), client).is_dir()
    moved.verify(moved.get("mine"), client)
