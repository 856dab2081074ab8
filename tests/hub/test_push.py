from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from loramerge.core.provenance import FilePin, Lineage, Parent, pin
from loramerge.errors import (
    BadConfig,
    IntegrityError,
    LoramergeError,
    NetworkError,
    NotAllowed,
    UnknownFormat,
    UnsafePickle,
    UsageError,
)
from loramerge.hub.card import card
from loramerge.hub.download import download
from loramerge.hub.pull import plan_pull
from loramerge.hub.push import push
from loramerge.hub.reference import HubRef, parse
from loramerge.hub.search import search

FILES = ("adapter_config.json", "adapter_model.safetensors")


def commits(server, repo="me/merged"):
    return [commit.title for commit in server.api.list_repo_commits(repo)]


def test_what_is_pushed_is_pulled_back_with_the_same_hashes(server, client, adapter):
    pushed = push(client, adapter, "me/merged")

    remote = plan_pull(client, parse("me/merged"))
    _, pins = download(client, remote.pinned)

    assert pushed.commit == remote.commit
    assert pushed.url == f"{server.url}/me/merged"
    assert pushed.files == pins == pin(adapter, FILES)


def test_a_push_is_one_commit_of_all_files(server, client, adapter):
    (adapter / "heads").mkdir()
    (adapter / "heads/sst2.safetensors").write_bytes(b"x" * 100)
    (adapter / "loramerge.json").write_text("{}")

    push(client, adapter, "me/merged", message="The merge")

    assert commits(server)[0] == "The merge"
    assert len(commits(server)) == 2  # the first is the repo's own
    assert {*FILES, "heads/sst2.safetensors", "loramerge.json"} < set(server.api.list_repo_files("me/merged"))


def test_files_of_the_same_content_are_both_sent(server, client, adapter):
    (adapter / "heads").mkdir()
    for name in ("sst2", "subj"):
        (adapter / f"heads/{name}.safetensors").write_bytes(b"x" * 1000)

    pushed = push(client, adapter, "me/merged")

    assert {pin.path for pin in pushed.files} >= {"heads/sst2.safetensors", "heads/subj.safetensors"}
    assert pushed.commit == plan_pull(client, parse("me/merged")).commit


def test_pushing_the_same_again_changes_nothing(server, client, adapter):
    first = push(client, adapter, "me/merged")

    again = push(client, adapter, "me/merged")

    assert again.unchanged
    assert again.commit == first.commit
    assert len(commits(server)) == 2


def test_only_what_changed_is_sent(server, client, adapter):
    push(client, adapter, "me/merged")
    (adapter / "LICENSE").write_text("words")

    pushed = push(client, adapter, "me/merged")

    assert pushed.changed == ("LICENSE",)


@pytest.fixture
def with_heads(adapter_of_rank):
    """A result that has more files than `adapter`: two heads and a lineage."""
    folder = adapter_of_rank(2, **{"loramerge.json": "{}"})
    (folder / "heads").mkdir()
    for name in ("mnli", "sst2"):
        (folder / f"heads/{name}.safetensors").write_bytes(name.encode() * 100)
    return folder


STALE = ("heads/mnli.safetensors", "heads/sst2.safetensors", "loramerge.json")


def test_a_new_result_brings_nothing_of_the_one_that_it_replaces(server, client, adapter, with_heads):
    push(client, with_heads, "me/merged")
    server.api.upload_file(path_or_fileobj=b"pickle", path_in_repo="adapter_model.bin", repo_id="me/merged")

    pushed = push(client, adapter, "me/merged")
    again = push(client, adapter, "me/merged")

    pulled = plan_pull(client, parse("me/merged"))
    assert [file.path for file in pulled.pinned.files] == list(reversed(FILES))
    assert set(pushed.changed) == {*FILES, *STALE, "adapter_model.bin"}
    assert set(server.api.list_repo_files("me/merged")) == {*FILES, ".gitattributes"}
    assert (again.unchanged, again.commit, again.notes) == (True, pushed.commit, ())
    assert len(commits(server)) == 4  # the repo's own, a push, the pickle, a push


def test_what_only_an_older_result_has_is_a_change(server, client, with_heads):
    push(client, with_heads, "me/merged")
    (with_heads / "heads/mnli.safetensors").unlink()

    planned = push(client, with_heads, "me/merged", dry_run=True)
    there = server.api.list_repo_files("me/merged")
    pushed = push(client, with_heads, "me/merged")

    assert planned.changed == pushed.changed == ("heads/mnli.safetensors",)
    assert planned.notes == ("removes what an older result left: heads/mnli.safetensors",)
    assert planned.notes[0] in pushed.notes
    assert set(there) - set(server.api.list_repo_files("me/merged")) == {"heads/mnli.safetensors"}


def test_what_others_put_beside_a_result_stays(server, client, adapter, with_heads):
    server.api.create_repo("me/merged")
    theirs = {
        "README.md",
        "LICENSE",
        "tokenizer.json",
        "heads/note.txt",
        "old/loramerge.json",
        "old/heads/a.safetensors",
    }
    for path in theirs:
        server.api.upload_file(path_or_fileobj=b"---\nlicense: mit\n---\n", path_in_repo=path, repo_id="me/merged")
    push(client, with_heads, "me/merged")

    pushed = push(client, adapter, "me/merged")

    assert set(pushed.changed) == {*FILES, *STALE}
    assert theirs < set(server.api.list_repo_files("me/merged"))


def test_an_answer_lost_after_files_were_removed_does_not_commit_twice(server, client, with_heads):
    push(client, with_heads, "me/merged")
    (with_heads / "loramerge.json").unlink()
    server.faults.drop("POST /api/models/me/merged/commit/")

    pushed = push(client, with_heads, "me/merged")

    assert pushed.commit == server.api.model_info("me/merged").sha
    assert len(commits(server)) == 3


def test_only_the_files_of_an_adapter_are_sent(server, client, adapter):
    for name in (".env", "optimizer.pt", "training_args.bin", "run.py", "secrets.txt"):
        (adapter / name).write_text("token")

    push(client, adapter, "me/merged")

    assert set(server.api.list_repo_files("me/merged")) == {*FILES, ".gitattributes"}


def test_a_dry_run_says_what_would_be_sent_and_sends_nothing(server, client, adapter):
    server.asked()

    planned = push(client, adapter, "me/merged", dry_run=True)

    assert planned.commit is None
    assert planned.changed == FILES
    assert all(line.startswith("GET") for line in server.asked())
    assert not server.api.repo_exists("me/merged")


def test_a_new_repo_is_private_when_asked(server, client, adapter):
    push(client, adapter, "me/merged", private=True)

    assert server.api.model_info("me/merged").private


def test_what_shall_be_private_does_not_go_to_a_public_repo(server, client, adapter):
    server.api.create_repo("me/merged")

    with pytest.raises(NotAllowed, match="public"):
        push(client, adapter, "me/merged", private=True)

    assert len(commits(server)) == 1


def test_a_pull_request_leaves_main_as_it_is_and_can_be_pulled(server, client, adapter):
    server.api.create_repo("me/merged")
    main = server.api.model_info("me/merged").sha

    pushed = push(client, adapter, "me/merged", pr=True)

    assert pushed.pr_url == f"{server.url}/me/merged/discussions/1"
    assert server.api.model_info("me/merged").sha == main
    assert plan_pull(client, HubRef("me/merged", "refs/pr/1")).commit == pushed.commit


def test_progress_ends_with_all_bytes(server, client, adapter_of_rank):
    folder = adapter_of_rank(2000)
    told = []

    push(client, folder, "me/merged", progress=lambda *news: told.append(news))
    total = sum(file.size for file in pin(folder, FILES))

    assert len(told) > 2
    assert told[-1] == ("me/merged", total, total)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_nothing_is_printed(server, client, adapter, capfd):
    (adapter / "heads").mkdir()
    (adapter / "heads/sst2.safetensors").write_bytes(b"x" * 100)  # two LFS files: the client would draw a bar
    capfd.readouterr()

    push(client, adapter, "me/merged")
    push(client, adapter, "me/merged")

    assert capfd.readouterr() == ("", "")


def test_the_card_is_understood_and_the_adapter_found_by_its_base(server, client, adapter):
    parents = (Parent("a", 1.0, (FilePin("adapter_model.safetensors", 1, "a" * 64),), repo="me/a", commit="c" * 40),)
    lineage = Lineage("lego", {"k": 8}, parents, base="acme/base")
    (adapter / "README.md").write_text(card("merged", lineage))
    push(client, adapter, "me/merged")

    (found,) = search(client, "merg", base="acme/base")

    assert (found.repo, found.base) == ("me/merged", "acme/base")
    assert found.commit == server.api.model_info("me/merged").sha
    assert search(client, "merg", base="acme/other") == []
    assert search(client, "nothing like it") == []


# What can go wrong


def test_somebody_elses_push_in_between_is_not_overwritten(server, client, adapter):
    push(client, adapter, "me/merged")
    (adapter / "adapter_model.safetensors").rename(adapter / "old")
    (adapter / "adapter_model.safetensors").write_bytes((adapter / "old").read_bytes()[:-1] + b"x")

    def meanwhile(what, done, total):
        if len(commits(server)) == 2:
            server.api.upload_file(path_or_fileobj=b"theirs", path_in_repo="theirs.txt", repo_id="me/merged")

    with pytest.raises(LoramergeError, match="Somebody else pushed") as caught:
        push(client, adapter, "me/merged", progress=meanwhile)

    assert "--pr" in caught.value.hint
    assert len(commits(server)) == 3
    assert push(client, adapter, "me/merged").changed == ("adapter_model.safetensors",)


def test_an_answer_lost_after_the_commit_does_not_commit_twice(server, client, adapter):
    server.faults.drop("POST /api/models/me/merged/commit/")

    pushed = push(client, adapter, "me/merged")

    assert pushed.commit == server.api.model_info("me/merged").sha
    assert len(commits(server)) == 2
    assert "the connection broke" in pushed.notes[0]


def test_a_hub_that_is_busy_once_gets_the_commit_the_second_time(server, client, adapter):
    server.faults.refuse("POST /api/models/me/merged/commit/", 503)

    push(client, adapter, "me/merged")

    assert len(commits(server)) == 2


@pytest.mark.parametrize("where", ["PUT .*/lfs/", "POST /api/models/me/merged/commit/"])
def test_a_hub_that_dies_half_way_shows_nothing(server, client, adapter, where):
    server.api.create_repo("me/merged")
    server.faults.refuse(where, 503, times=99, retry_after="0")

    with pytest.raises(NetworkError):
        push(client, adapter, "me/merged")

    assert server.api.list_repo_files("me/merged") == [".gitattributes"]


def test_other_bytes_on_the_hub_are_found_after_the_push(server, client, adapter):
    server.api.create_repo("me/merged")
    server.faults.rewrite("POST .*/paths-info/", lambda body: body, times=1)  # what is there before the push
    server.faults.rewrite("POST .*/paths-info/", lambda body: body.replace(b'"oid":"', b'"oid":"0'), times=1)

    with pytest.raises(IntegrityError, match="does not hold what was sent"):
        push(client, adapter, "me/merged")


def test_a_repo_of_somebody_else_is_not_allowed(server, client, adapter):
    from loramerge.hub.server.serve import add_user

    add_user(server.root, "you")

    with pytest.raises(NotAllowed, match="may not do this"):
        push(client, adapter, "you/merged")


def test_nobody_pushes_nothing(server, stranger, adapter):
    with pytest.raises(NotAllowed) as caught:
        push(stranger, adapter, "me/merged")

    assert "hf auth login" in caught.value.hint


def test_a_wrong_token_pushes_nothing(server, client, adapter):
    with pytest.raises(NotAllowed, match="token"):
        push(replace(client, token="hf_wrong"), adapter, "me/merged")


@pytest.mark.parametrize(
    "repo", ["merged", "../merged", "me/merged@v1", "me/merged:folder", "./merged", "me/" + "x" * 200]
)
def test_what_is_no_repo_is_refused_before_anything_is_asked(server, client, adapter, repo):
    server.asked()

    with pytest.raises(UsageError):
        push(client, adapter, repo)

    assert server.asked() == []


def test_a_pickle_is_never_sent(server, client, adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")

    with pytest.raises(UnsafePickle):
        push(client, adapter, "me/merged")


def test_a_folder_that_is_no_adapter_is_not_sent(server, client, tmp_path):
    (tmp_path / "README.md").write_text("words")

    with pytest.raises(UnknownFormat, match="no adapter here"):
        push(client, tmp_path, "me/merged")


def test_a_card_that_the_hub_refuses_is_said_to_be_the_card(server, client, adapter):
    (adapter / "README.md").write_text("---\nbase_model: [\n---\n")

    with pytest.raises(BadConfig, match="refuses the model card"):
        push(client, adapter, "me/merged")


def test_a_hub_without_xet_gets_the_files_by_lfs(server, client, adapter):
    code = (
        "import sys; from pathlib import Path\n"
        "from loramerge.hub.push import push; from loramerge.hub.session import Hub\n"
        "pushed = push(Hub(sys.argv[1], sys.argv[2]), Path(sys.argv[3]), 'me/merged')\n"
        "print(pushed.commit, *pushed.notes)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_XET"}

    run = subprocess.run(
        [sys.executable, "-c", code, server.url, server.token, adapter],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )

    assert run.stdout.startswith(server.api.model_info("me/merged").sha)
    assert "no Xet" in run.stdout
    assert run.stderr == ""
    assert any("xet-write-token" in line for line in server.asked())
