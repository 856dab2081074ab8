from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from loramerge.core.provenance import pin
from loramerge.errors import (
    BadConfig,
    FormatError,
    Gated,
    IntegrityError,
    NetworkError,
    NotAllowed,
    NotFound,
    Offline,
    UnknownFormat,
    UnsafePickle,
)
from loramerge.formats._format import open_adapter
from loramerge.hub import cache
from loramerge.hub.download import download
from loramerge.hub.pull import plan_pull
from loramerge.hub.reference import HubRef, parse
from loramerge.hub.session import Hub

REF = HubRef("me/math")
PROMISED = ["adapter_config.json", "adapter_model.safetensors"]


def pull(hub: Hub, ref: str = "me/math", **options):
    return download(hub, plan_pull(hub, parse(ref), **options).pinned)


def listing(change):
    """A change of the repo's description on its way to the client."""

    def rewritten(body: bytes) -> bytes:
        info = json.loads(body)
        change(info)
        return json.dumps(info).encode()

    return rewritten


# What is asked for, and when


def test_the_commit_is_pinned_before_anything_else_is_asked(server, client, adapter):
    commit = server.publish(adapter)
    server.asked()

    remote = plan_pull(client, REF)
    download(client, remote.pinned)
    first, *rest = server.asked()

    assert remote.commit == commit
    assert first == "GET /api/models/me/math"
    assert all(commit in line for line in rest if "/lfs/" not in line)


def test_the_plan_reads_the_header_and_not_the_tensors(server, client, adapter_of_rank):
    server.publish(adapter_of_rank(2000))
    server.asked()

    remote = plan_pull(client, REF)
    weights = [request for request in server.faults.requests if "safetensors" in request.line]

    assert remote.adapter.rank == 2000
    assert remote.pinned.size > 200_000
    assert list(remote.adapter.modules) == ["layers.0.q", "layers.1.q"]
    assert remote.base == "acme/base"
    assert [request.headers["range"] for request in weights] == ["bytes=0-99999"]
    assert not client.cache_dir.exists()


def test_a_long_header_is_read_with_a_second_request(server, client, adapter):
    pad_header(adapter / "adapter_model.safetensors", 300_000)
    server.publish(adapter)
    server.asked()

    remote = plan_pull(client, REF)
    ranges = [r.headers["range"] for r in server.faults.requests if "resolve" in r.line and "safetensors" in r.line]

    assert len(remote.adapter.modules) == 2
    assert ranges[0] == "bytes=0-99999"
    assert ranges[1].startswith("bytes=100000-3")


def test_a_hub_that_knows_no_ranges_is_read_no_further_than_needed(server, tmp_path, adapter):
    from loramerge.hub.server.serve import running

    server.publish(adapter)

    def without_ranges(app):
        async def deaf(scope, receive, send):
            headers = [(name, value) for name, value in scope["headers"] if name != b"range"]
            await app({**scope, "headers": headers}, receive, send)

        return deaf

    with running(server.root, wrap=without_ranges) as started:
        remote = plan_pull(Hub(started.endpoint, server.token, cache=tmp_path / "cache"), REF)

    assert remote.adapter.rank == 4


def test_only_what_an_adapter_needs_is_downloaded(server, client, adapter):
    for name in ("optimizer.pt", "training_args.bin", "model.py", "adapter_model.bin", "notes.zip", "LICENSE"):
        (adapter / name).write_text("x")
    (adapter / "checkpoint-1").mkdir()
    (adapter / "checkpoint-1/adapter_config.json").write_text("{}")
    server.publish(adapter)

    folder, pins = pull(client)

    assert {path.name for path in folder.iterdir()} == {*PROMISED, "LICENSE"}
    assert pins == pin(adapter, [*PROMISED, "LICENSE"])


def test_what_was_pulled_is_read_as_an_adapter(server, client, adapter):
    server.publish(adapter)

    folder, _ = pull(client)

    assert open_adapter(folder).modules == open_adapter(adapter).modules


def test_an_adapter_in_a_folder_of_a_repo_is_pulled_alone(server, client, adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "repo/best/one")
    shutil.copytree(adapter, tmp_path / "repo/other")
    server.publish(tmp_path / "repo")

    folder, pins = pull(client, "me/math:best/one")

    assert folder.name == "one"
    assert pins == pin(adapter, PROMISED)
    assert not (folder.parents[1] / "other").exists()


def test_a_second_pull_of_the_same_commit_asks_nothing(server, client, adapter):
    server.publish(adapter)
    remote = plan_pull(client, REF)
    download(client, remote.pinned)
    server.asked()

    download(client, remote.pinned)

    assert server.asked() == []


def test_progress_counts_the_bytes_of_all_files(server, client, adapter):
    server.publish(adapter)
    remote = plan_pull(client, REF)
    told = []

    download(client, remote.pinned, lambda *news: told.append(news))

    assert told[-1] == ("me/math", remote.pinned.size, remote.pinned.size)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_nothing_is_printed(server, client, adapter, capfd):
    server.publish(adapter)
    server.faults.refuse("GET /api/models/me/math", 503, retry_after="0")
    capfd.readouterr()

    pull(client)

    assert capfd.readouterr() == ("", "")


def test_no_token_reaches_the_other_origin(server, client, adapter):
    server.publish(adapter, private=True)
    server.asked()
    pull(client)
    api = int(server.url.rpartition(":")[2])
    elsewhere = [request for request in server.faults.requests if request.port != api]

    assert elsewhere
    assert not any("authorization" in request.headers for request in elsewhere)


# What the Hub may answer


def test_a_tag_that_moved_gives_the_new_commit_and_the_old_one_can_still_be_had(server, client, adapter):
    old = server.publish(adapter)
    server.api.create_tag("me/math", tag="v1")
    before = plan_pull(client, HubRef("me/math", "v1"))
    (adapter / "LICENSE").write_text("new")
    new = server.publish(adapter)
    server.api.delete_tag("me/math", tag="v1")
    server.api.create_tag("me/math", tag="v1")

    after = plan_pull(client, HubRef("me/math", "v1"))

    assert (before.commit, after.commit) == (old, new)
    assert {path.name for path in download(client, before.pinned)[0].iterdir()} == set(PROMISED)


def test_a_branch_and_a_pull_request_are_revisions(server, client, adapter):
    main = server.publish(adapter)
    server.api.create_branch("me/math", branch="feature/x")

    assert plan_pull(client, HubRef("me/math", "feature/x")).commit == main


def test_a_renamed_repo_is_followed_and_named_anew(server, client, adapter):
    server.publish(adapter)
    server.api.move_repo("me/math", "me/maths")

    remote = plan_pull(client, REF)

    assert remote.repo == "me/maths"
    assert remote.notes == ("me/math is now called me/maths",)


def test_a_private_repo_needs_its_owner(server, client, stranger, adapter):
    server.publish(adapter, private=True)

    with pytest.raises(NotFound, match="or it is private") as caught:
        plan_pull(stranger, REF)

    assert "hf auth login" in caught.value.hint
    assert plan_pull(client, REF).private


def test_a_gated_repo_says_where_to_ask_before_any_download(server, stranger, adapter):
    server.publish(adapter)
    server.api.update_repo_settings("me/math", gated="manual")

    with pytest.raises(Gated, match="me/math is gated") as caught:
        plan_pull(stranger, REF)

    assert f"{server.url}/me/math" in caught.value.hint
    assert not stranger.cache_dir.exists()


def test_a_gated_repo_is_gated_to_other_users_too(server, client, adapter):
    from loramerge.hub.server.serve import add_user

    server.publish(adapter)
    server.api.update_repo_settings("me/math", gated="manual")

    with pytest.raises(Gated):
        plan_pull(replace(client, token=add_user(server.root, "you")), REF)

    assert plan_pull(client, REF).gated


def test_a_repo_that_is_not_there_is_not_found(client):
    with pytest.raises(NotFound, match="There is no me/nothing"):
        pull(client, "me/nothing")


def test_a_deleted_repo_is_not_found_and_its_cached_commit_still_is(server, client, adapter):
    server.publish(adapter)
    remote = plan_pull(client, REF)
    download(client, remote.pinned)
    server.api.delete_repo("me/math")

    with pytest.raises(NotFound):
        plan_pull(client, REF)

    assert download(client, remote.pinned)[0].is_dir()


@pytest.mark.parametrize("revision", ["nothing", "f" * 40])
def test_a_revision_that_is_not_there_is_not_found(server, client, adapter, revision):
    server.publish(adapter)

    with pytest.raises(NotFound, match="revision"):
        plan_pull(client, HubRef("me/math", revision))


def test_a_folder_that_is_not_there_offers_its_neighbours(server, client, adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "repo/best")
    server.publish(tmp_path / "repo")

    with pytest.raises(NotFound) as caught:
        pull(client, "me/math:bst")

    assert caught.value.hint == "best"


def test_a_wrong_token_is_said_to_be_wrong(server, client, adapter):
    server.publish(adapter)

    with pytest.raises(NotAllowed, match="does not accept the token"):
        plan_pull(replace(client, token="hf_wrong"), REF)


def test_a_repo_without_an_adapter_is_an_unknown_format(server, client, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    server.publish(tmp_path / "model")

    with pytest.raises(UnknownFormat, match="not a PEFT adapter"):
        pull(client)


def test_a_repo_with_adapters_in_folders_names_them(server, client, adapter, tmp_path):
    shutil.copytree(adapter, tmp_path / "repo/one")
    shutil.copytree(adapter, tmp_path / "repo/two")
    server.publish(tmp_path / "repo")

    with pytest.raises(UnknownFormat) as caught:
        pull(client)

    assert caught.value.hint == "me/math:one or me/math:two"


def test_a_pickle_is_refused_unless_allowed(server, client, adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    server.publish(adapter)

    with pytest.raises(UnsafePickle) as caught:
        pull(client)

    assert "--allow-pickle" in caught.value.hint
    assert [pin.path for pin in pull(client, allow_pickle=True)[1]] == ["adapter_config.json", "adapter_model.bin"]


def test_limits_are_checked_before_anything_is_downloaded(server, client, adapter):
    server.publish(adapter)

    with pytest.raises(FormatError, match="more than"):
        plan_pull(client, REF, max_size=1000)


# Hostile and damaged answers

HOSTILE_NAMES = ("../adapter_config.json", "/etc/passwd", "a/../../x", "..\\x", "a\x00b", "a\x1b[2J", "a//b", "./x")


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_listing_with_a_name_that_leaves_its_folder_is_refused(server, client, adapter, name):
    server.publish(adapter)
    sibling = {"rfilename": name, "size": 1, "blobId": "a" * 40}
    server.faults.rewrite("GET /api/models/me/math", listing(lambda info: info["siblings"].append(sibling)))

    with pytest.raises(FormatError, match="leave its folder") as caught:
        pull(client)

    assert caught.value.where.isprintable()


@pytest.mark.parametrize("name", ["LICENSE:x", "LICENSE.", "LICENSE" + "x" * 300, "heads/CON.safetensors"])
def test_a_name_that_some_system_cannot_store_is_refused(server, client, adapter, name):
    server.publish(adapter)
    sibling = {"rfilename": name, "size": 1, "blobId": "a" * 40}
    server.faults.rewrite("GET /api/models/me/math", listing(lambda info: info["siblings"].append(sibling)))

    with pytest.raises(FormatError, match="cannot be stored"):
        pull(client)


def test_names_that_differ_in_case_only_are_refused(server, client, adapter):
    (adapter / "LICENSE.txt").write_text("one")
    (adapter / "LICENSE.TXT").write_text("two")
    server.publish(adapter)

    with pytest.raises(FormatError, match="case only"):
        pull(client)


@pytest.mark.parametrize("sha", [None, "main", "../../x", "F" * 40])
def test_an_answer_without_a_commit_is_refused(server, client, adapter, sha):
    server.publish(adapter)
    server.faults.rewrite("GET /api/models/me/math", listing(lambda info: info.update(sha=sha)))

    with pytest.raises(IntegrityError, match="no commit"):
        pull(client)


def test_a_file_without_a_promised_hash_is_refused(server, client, adapter):
    server.publish(adapter)

    def change(info):
        for sibling in info["siblings"]:
            sibling.pop("lfs", None)
            sibling.pop("blobId", None)

    server.faults.rewrite("GET /api/models/me/math", listing(change))

    with pytest.raises(IntegrityError, match="neither size nor hash"):
        pull(client)


def test_a_config_with_other_bytes_is_not_even_parsed(server, client, adapter):
    server.publish(adapter)
    server.faults.flip("GET /me/math/resolve/.*/adapter_config.json")

    with pytest.raises(IntegrityError, match="config is not what the commit promises"):
        pull(client)


@pytest.mark.parametrize("text", ["", "[]", '{"r": 1, "r": 2}', "{" * 3000, '{"x": "' + "y" * (1 << 20) + '"}'])
def test_a_config_that_is_none_is_refused(server, client, adapter, text):
    (adapter / "adapter_config.json").write_text(text)
    server.publish(adapter)

    with pytest.raises(BadConfig):
        pull(client)


@pytest.mark.parametrize("weights", [b"", b"abc", b"\xff" * 100, (10**6).to_bytes(8, "little") + b"{}"])
def test_weights_whose_header_is_none_are_refused_from_the_first_bytes(server, client, adapter, weights):
    (adapter / "adapter_model.safetensors").write_bytes(weights)
    server.publish(adapter)

    with pytest.raises(FormatError):
        pull(client)

    assert not client.cache_dir.exists()


@pytest.mark.parametrize("fault", ["flip", "truncate"])
@pytest.mark.parametrize("what", ["/lfs/", "resolve/.*/LICENSE"])
def test_other_bytes_are_found_removed_and_healed_by_the_next_pull(server, client, adapter, fault, what):
    (adapter / "LICENSE").write_text("some words")
    server.publish(adapter)
    remote = plan_pull(client, REF)
    getattr(server.faults, fault)(f"GET .*{what}")

    with pytest.raises(IntegrityError):
        download(client, remote.pinned)
    (folder, pins) = download(client, remote.pinned)

    assert pins == pin(adapter, [*PROMISED, "LICENSE"])
    assert pins == pin(folder, [*PROMISED, "LICENSE"])


def test_the_bytes_behind_the_links_go_with_them(server, client, adapter):
    server.publish(adapter)
    remote = plan_pull(client, REF)
    folder, _ = download(client, remote.pinned)
    blob = (folder / "adapter_model.safetensors").resolve()
    blob.write_bytes(bytes(blob.stat().st_size))

    with pytest.raises(IntegrityError, match="were removed") as caught:
        download(client, remote.pinned)

    assert caught.value.where == "adapter_model.safetensors"
    assert not blob.exists()
    assert download(client, remote.pinned)[1] == pin(adapter, PROMISED)


def test_a_connection_that_breaks_once_is_taken_up_again(server, client, adapter):
    server.publish(adapter)
    server.faults.reset("GET .*/lfs/")
    remote = plan_pull(client, REF)
    server.faults.reset("GET .*/lfs/")

    assert download(client, remote.pinned)[1] == pin(adapter, PROMISED)


def test_a_hub_that_dies_half_way_leaves_nothing_that_looks_whole(server, client, adapter):
    server.publish(adapter)
    remote = plan_pull(client, REF)
    server.faults.reset("GET .*/lfs/")
    server.faults.refuse("GET .*/lfs/", 500, times=9)

    with pytest.raises(NetworkError):
        download(client, remote.pinned)

    assert cache.find(client, "me/math", remote.commit, "", PROMISED) is None
    assert not list(client.cache_dir.rglob("*.incomplete"))


# Offline


def test_what_was_pulled_is_there_without_a_network(server, client, adapter):
    server.publish(adapter)
    remote = plan_pull(client, REF)
    folder, pins = download(client, remote.pinned)
    server.asked()
    offline = replace(client, endpoint="http://127.0.0.1:9", offline=True)

    assert download(offline, remote.pinned) == (folder, pins)
    assert server.asked() == []


def test_offline_what_is_not_there_is_said_to_need_the_hub(server, client, adapter):
    server.publish(adapter)
    remote = plan_pull(client, REF)
    offline = replace(client, offline=True)
    server.asked()

    with pytest.raises(Offline):
        download(offline, remote.pinned)
    with pytest.raises(Offline):
        plan_pull(offline, REF)

    assert server.asked() == []


def test_purging_one_commit_leaves_the_others(server, client, adapter):
    server.publish(adapter)
    old = plan_pull(client, REF)
    (adapter / "LICENSE").write_text("new")
    server.publish(adapter)
    new = plan_pull(client, REF)
    for remote in (old, new):
        download(client, remote.pinned)

    cache.purge(client, "me/math", new.commit)

    assert cache.find(client, "me/math", new.commit, "", PROMISED) is None
    assert cache.find(client, "me/math", old.commit, "", PROMISED)
    assert cache.purge(client, "me/math", new.commit) == 0
    assert cache.purge(replace(client, cache=Path("/nowhere")), "me/math", new.commit) == 0


def pad_header(weights: Path, length: int) -> None:
    """Lengthen a header with spaces, as the format allows."""
    data = weights.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + size].ljust(length)
    weights.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
