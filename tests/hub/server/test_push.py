from __future__ import annotations

import base64
import hashlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from loramerge.hub.server.serve import running


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, content)


def paths(api: HfApi, repo: str, revision: str = "main") -> list[str]:
    return api.list_repo_files(repo, revision=revision)


def ndjson(http, repo, *items, rev="main", header=None):
    lines = [{"key": "header", "value": {"summary": "s", **(header or {})}}, *items]
    body = "\n".join(json.dumps(line) for line in lines)
    return http.post(f"/api/models/{repo}/commit/{rev}", content=body)


def file(path, content=b"x"):
    return {"key": "file", "value": {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}}


def test_a_new_repo_has_one_commit_with_gitattributes(api):
    url = api.create_repo("me/new")

    assert url.repo_id == "me/new"
    assert paths(api, "me/new") == [".gitattributes"]
    assert [commit.title for commit in api.list_repo_commits("me/new")] == ["initial commit"]


def test_creating_twice_is_a_conflict_unless_that_is_allowed(api):
    api.create_repo("me/new")

    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("me/New")
    assert api.create_repo("me/new", exist_ok=True).repo_id == "me/new"


def test_one_commit_carries_regular_and_large_files(api, adapter):
    repo, files = adapter
    info = api.model_info(repo, files_metadata=True)
    siblings = {sibling.rfilename: sibling for sibling in info.siblings}

    large = siblings["adapter_model.safetensors"]
    regular = siblings["README.md"]

    assert large.lfs.sha256 == hashlib.sha256(files["adapter_model.safetensors"]).hexdigest()
    assert large.size == len(files["adapter_model.safetensors"])
    assert regular.lfs is None
    assert regular.blob_id == hashlib.sha1(b"blob %d\0" % regular.size + files["README.md"]).hexdigest()
    assert len(api.list_repo_commits(repo)) == 2


def test_a_file_without_a_known_suffix_goes_through_lfs_if_it_is_not_text(api):
    api.create_repo("me/new")
    api.create_commit(
        "me/new", [add("blob", b"\xff\x00" * 300), add("text", "grüße ".encode() * 300)], commit_message="c"
    )

    kinds = {entry.path: entry.lfs is not None for entry in api.get_paths_info("me/new", ["blob", "text"])}

    assert kinds == {"blob": True, "text": False}


def test_a_large_file_is_sent_in_parts(tmp_path):
    content = bytes(range(256)) * 40 + b"end"
    with running(tmp_path / "root", part_size=1000) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("me/new")

        api.create_commit("me/new", [add("w.safetensors", content)], commit_message="c")

        assert api.get_paths_info("me/new", "w.safetensors")[0].lfs.sha256 == hashlib.sha256(content).hexdigest()
        path = api.hf_hub_download("me/new", "w.safetensors", cache_dir=tmp_path / "cache")
        assert Path(path).read_bytes() == content
        assert list((tmp_path / "root/incoming").iterdir()) == []


def test_pushing_the_same_again_makes_no_commit(api, adapter):
    repo, files = adapter
    before = api.model_info(repo).sha

    commit = api.create_commit(repo, [add(*item) for item in files.items()], commit_message="again")

    assert commit.oid == before
    assert api.model_info(repo).sha == before


def test_a_commit_that_changes_nothing_is_answered_with_the_head(api, adapter, http):
    repo, files = adapter
    before = api.model_info(repo).sha

    answer = ndjson(http, repo, file("README.md", files["README.md"]))

    assert answer.json()["commitOid"] == before
    assert len(api.list_repo_commits(repo)) == 2


def test_a_stale_parent_is_refused_and_changes_nothing(api, adapter):
    repo, _ = adapter
    stale = api.model_info(repo).sha
    head = api.create_commit(repo, [add("a.txt", b"1")], commit_message="first", parent_commit=stale).oid

    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(repo, [add("a.txt", b"2")], commit_message="second", parent_commit=stale)

    assert api.model_info(repo).sha == head


def test_files_and_folders_are_deleted(api):
    api.create_repo("me/new")
    api.create_commit("me/new", [add(p, b"x") for p in ("a.txt", "d/b.txt", "d/e/c.txt", "dd.txt")], commit_message="c")

    removals = [CommitOperationDelete("a.txt"), CommitOperationDelete("d/")]
    api.create_commit("me/new", removals, commit_message="less")

    assert paths(api, "me/new") == [".gitattributes", "dd.txt"]


def test_deleting_what_is_not_there_is_an_entry_not_found(api):
    api.create_repo("me/new")

    with pytest.raises(EntryNotFoundError):
        api.delete_file("nothing.txt", "me/new")


def test_a_large_file_is_copied_without_being_sent_again(api, adapter):
    repo, files = adapter
    copy = CommitOperationCopy("adapter_model.safetensors", "old/adapter_model.safetensors")

    api.create_commit(repo, [copy], commit_message="copy")

    found = api.get_paths_info(repo, "old/adapter_model.safetensors")[0]
    assert found.lfs.sha256 == hashlib.sha256(files["adapter_model.safetensors"]).hexdigest()


def test_a_pull_request_holds_its_commit_and_leaves_main_alone(api, adapter):
    repo, _ = adapter
    main = api.model_info(repo).sha

    commit = api.create_commit(repo, [add("new.txt", b"1")], commit_message="proposal", create_pr=True)

    assert commit.pr_revision == "refs/pr/1"
    assert api.model_info(repo).sha == main
    assert "new.txt" in paths(api, repo, "refs/pr/1")
    assert [ref.ref for ref in api.list_repo_refs(repo, include_pull_requests=True).pull_requests] == ["refs/pr/1"]
    details = api.get_discussion_details(repo, 1)
    assert (details.title, details.is_pull_request, details.status) == ("proposal", True, "open")


def test_anybody_known_may_open_a_pull_request_and_push_to_it_but_not_to_main(api, other, adapter):
    repo, _ = adapter

    commit = other.create_commit(repo, [add("new.txt", b"1")], commit_message="proposal", create_pr=True)
    other.create_commit(repo, [add("more.txt", b"2")], commit_message="more", revision=commit.pr_revision)

    assert {"new.txt", "more.txt"} <= set(paths(api, repo, "refs/pr/1"))
    with pytest.raises(HfHubHTTPError, match="403"):
        other.create_commit(repo, [add("new.txt", b"1")], commit_message="straight")


def test_discussions_are_opened_and_listed(api, adapter):
    repo, _ = adapter

    opened = api.create_discussion(repo, "A question", description="Why?")

    assert opened.events[0].content == "Why?"
    assert [d.title for d in api.get_repo_discussions(repo)] == ["A question"]


def test_branches_and_tags_come_and_go(api, adapter):
    repo, _ = adapter
    first = api.list_repo_commits(repo)[-1].commit_id

    api.create_branch(repo, branch="feature/x", revision=first)
    api.create_tag(repo, tag="v1", revision="main")
    api.create_commit(repo, [add("b.txt", b"1")], commit_message="on a branch", revision="feature/x")

    assert paths(api, repo, "feature/x") == [".gitattributes", "b.txt"]
    assert api.model_info(repo, revision="v1").sha == api.model_info(repo).sha
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(repo, tag="v1")
    api.create_tag(repo, tag="v1", exist_ok=True)
    api.delete_tag(repo, tag="v1")
    api.delete_branch(repo, branch="feature/x")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(repo, revision="v1")
    assert [branch.name for branch in api.list_repo_refs(repo).branches] == ["main"]


@pytest.mark.parametrize("name", ["refs/pr/1", "HEAD", "a..b", "-x", "a.lock", "f" * 40, "a b", ""])
def test_names_that_could_be_taken_for_something_else_are_no_tags(api, adapter, http, name):
    answer = http.post(f"/api/models/{adapter[0]}/tag/main", json={"tag": name})

    assert answer.status_code == 400


def test_the_main_branch_stays(api, adapter):
    with pytest.raises(HfHubHTTPError, match="403"):
        api.delete_branch(adapter[0], branch="main")


@pytest.mark.parametrize("revision", ["nothing", "f" * 40])
def test_pushing_to_a_revision_that_is_not_there_is_refused(api, adapter, revision):
    with pytest.raises(RevisionNotFoundError):
        api.create_commit(adapter[0], [add("a.txt", b"1")], commit_message="c", revision=revision)


HOSTILE = [
    "../a", "a/../b", "/a", "a\\b", "..\\a", ".git/config", "a/.GIT/x", "a/.git ./x", "git~1/x", "a\0b", "a\nb",
    "a//b", "./a", "", "x" * 256, "é" * 128, "a/" * 3000 + "b", "a\u202eb",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE, ids=lambda p: ascii(p[:12]))
def test_hostile_paths_are_refused_and_nothing_of_the_commit_is_kept(api, http, path):
    api.create_repo("me/new")

    answers = [
        ndjson(http, "me/new", file("good.txt"), file(path)),
        ndjson(http, "me/new", file("good.txt"), {"key": "deletedFile", "value": {"path": path}}),
    ]

    assert [answer.status_code for answer in answers] == [400, 400]
    assert paths(api, "me/new") == [".gitattributes"]


@pytest.mark.parametrize(
    "items",
    [
        [file("a"), file("a/b")],
        [file("a/b"), file("a")],
        [{"key": "file", "value": {"path": "a", "content": "?", "encoding": "base64"}}],
        [{"key": "file", "value": {"path": "a", "content": 3}}],
        [{"key": "file", "value": {"path": "a", "content": "\ud800"}}],
        [{"key": "lfsFile", "value": {"path": "a", "oid": "0" * 64, "size": 3}}],
        [{"key": "lfsFile", "value": {"path": "a", "oid": "../" * 20, "size": 3}}],
        [{"key": "unheard of", "value": {"path": "a"}}],
        [{"key": "file", "value": "not an object"}],
        [file("README.md", b"---\ntags: [\n---\n")],
        [file("README.md", b"---\nbase_model: {a: b}\n---\n")],
        ["not an object"],
    ],
    ids=lambda items: json.dumps(items)[:40],
)
def test_commits_that_make_no_sense_are_refused_whole(api, http, items):
    api.create_repo("me/new")

    answer = ndjson(http, "me/new", file("good.txt"), *items)

    assert answer.status_code == 400
    assert answer.json()["error"]
    assert paths(api, "me/new") == [".gitattributes"]


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'{"key": "file", "value": {}}'])
def test_a_commit_that_cannot_be_read_is_refused(api, http, body):
    api.create_repo("me/new")

    assert http.post("/api/models/me/new/commit/main", content=body).status_code == 400


def test_a_regular_file_that_is_too_large_is_refused(api, http):
    api.create_repo("me/new")

    answer = ndjson(http, "me/new", file("big.txt", b"x" * 10_000_001))

    assert answer.status_code == 400


def test_invalid_metadata_of_a_card_is_told_before_the_push(api):
    api.create_repo("me/new")

    with pytest.raises(ValueError, match="base_model"):
        api.create_commit("me/new", [add("README.md", b"---\nbase_model: [1]\n---\n")], commit_message="c")


def test_files_that_gitignore_names_are_left_out(api):
    api.create_repo("me/new")
    files = {
        ".gitignore": b"*.log\n/out/\n!keep.log\n",
        "a.log": b"1",
        "keep.log": b"2",
        "out/x": b"3",
        "in/out/x": b"4",
    }

    api.create_commit("me/new", [add(*item) for item in files.items()], commit_message="c")
    api.create_commit("me/new", [add("b.log", b"5"), add("c.txt", b"6")], commit_message="d")

    assert paths(api, "me/new") == [".gitattributes", ".gitignore", "c.txt", "in/out/x", "keep.log"]


def test_a_whole_folder_is_uploaded(api, tmp_path, weights):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "sub" / "note.txt").write_text("note")
    api.create_repo("me/new")

    api.upload_folder(repo_id="me/new", folder_path=folder)

    assert paths(api, "me/new") == [".gitattributes", "adapter_model.safetensors", "sub/note.txt"]


def test_bytes_that_are_not_what_was_promised_are_refused(api, http):
    api.create_repo("me/new")
    oid, content = hashlib.sha256(b"promised").hexdigest(), b"received"
    batch = {"operation": "upload", "objects": [{"oid": oid, "size": len(content)}]}
    link = http.post("/me/new.git/info/lfs/objects/batch", json=batch).json()["objects"][0]["actions"]["upload"]["href"]
    del http.headers["Authorization"]

    assert http.put(link, content=content).status_code == 400
    assert http.put(link, content=content + b"more").status_code == 413
    assert http.put(link, content=content[:3]).status_code == 400
    assert http.put(link, content=b"promised").status_code == 200


def test_knowing_a_hash_does_not_give_its_content(api, other, http, weights):
    api.create_repo("me/secret", private=True)
    api.create_commit("me/secret", [add("w.safetensors", weights)], commit_message="c")
    other.create_repo("you/thief")
    http.headers["Authorization"] = f"Bearer {other.token}"
    oid = hashlib.sha256(weights).hexdigest()

    batch = {"operation": "upload", "objects": [{"oid": oid, "size": len(weights)}]}
    offered = http.post("/you/thief.git/info/lfs/objects/batch", json=batch).json()["objects"][0]
    taken = ndjson(http, "you/thief", {"key": "lfsFile", "value": {"path": "w", "oid": oid, "size": len(weights)}})

    assert "upload" in offered["actions"]
    assert taken.status_code == 400


def test_a_file_object_is_pushed_too(api):
    api.create_repo("me/new")

    api.upload_file(path_or_fileobj=io.BytesIO(b"\0" * 5000), path_in_repo="w.bin", repo_id="me/new")

    assert api.get_paths_info("me/new", "w.bin")[0].size == 5000


def test_a_hub_without_xet_says_so_with_404(api, adapter, http):
    assert http.get(f"/api/models/{adapter[0]}/xet-write-token/main").status_code == 404


def test_an_unknown_revision_of_a_push_is_not_a_server_error(api, adapter):
    with pytest.raises((BadRequestError, RevisionNotFoundError)):
        api.create_commit(adapter[0], [add("a", b"1")], commit_message="c", revision="v\u00e9")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/models/me/new/preupload/main", {"files": [1]}),
        ("/api/models/me/new/preupload/main", {"files": [{"path": "a", "size": -1, "sample": ""}]}),
        ("/api/models/me/new/preupload/main", {"files": [{"path": "a", "size": 1, "sample": "?"}]}),
        ("/api/models/me/new/preupload/main", []),
        ("/me/new.git/info/lfs/objects/batch", {"operation": "upload", "objects": [[]]}),
        ("/me/new.git/info/lfs/objects/batch", {"operation": "upload", "objects": [{"oid": "../x", "size": 1}]}),
        ("/me/new.git/info/lfs/objects/batch", {"operation": "upload", "objects": [{"oid": "0" * 64, "size": 2**80}]}),
        ("/me/new.git/info/lfs/objects/batch", {"operation": "upload", "objects": [{"oid": "0" * 64, "size": -1}]}),
        ("/api/models/me/new/branch/x", {"startingPoint": 3}),
        ("/api/models/me/new/paths-info/main", "{"),
        ("/api/models/me/new/discussions", {"title": ["a"]}),
        ("/api/repos/create", {"name": "x", "files": ["a"]}),
        ("/api/repos/create", {"name": {}}),
        ("/api/repos/move", {"fromRepo": "me/new"}),
        ("/api/validate-yaml", {"content": None}),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_nonsense_is_a_bad_request_and_never_a_server_error(api, http, path, body):
    api.create_repo("me/new")

    assert http.post(path, json=body).status_code == 400


def test_git_lfs_clients_are_told_where_to_download(api, adapter, http):
    repo, files = adapter
    content = files["adapter_model.safetensors"]
    wanted = [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}, {"oid": "0" * 64, "size": 1}]

    batch = {"operation": "download", "objects": wanted}
    here, missing = http.post(f"/{repo}.git/info/lfs/objects/batch", json=batch).json()["objects"]

    assert httpx.get(here["actions"]["download"]["href"]).content == content
    assert missing["error"]["code"] == 404


def test_pushes_at_the_same_time_all_arrive(api):
    api.create_repo("me/new")
    names = [f"f{n}.txt" for n in range(8)]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: api.create_commit("me/new", [add(name, b"1")], commit_message=name), names))

    assert paths(api, "me/new") == [".gitattributes", *names]
    assert len(api.list_repo_commits("me/new")) == 9


def test_of_pushes_onto_one_parent_one_wins(api, http):
    api.create_repo("me/new")
    parent = {"parentCommit": api.model_info("me/new").sha}

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: ndjson(http, "me/new", file(f"f{n}.txt"), header=parent), range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    assert len(paths(api, "me/new")) == 2


def test_a_pull_request_to_a_gated_repo_needs_access(api, other, adapter):
    repo, _ = adapter
    api.update_repo_settings(repo, gated="auto")

    with pytest.raises(GatedRepoError):
        other.create_commit(repo, [add("a.txt", b"1")], commit_message="c", create_pr=True)
    api.grant_access(repo, "you")
    commit = other.create_commit(repo, [add("a.bin", b"\0" * 9)], commit_message="c", create_pr=True)

    assert commit.pr_num == 1
