from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, ModelCard, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RevisionNotFoundError


def push(api, repo, files, **options):
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit(repo, operations, commit_message="c", **options)


def test_a_snapshot_brings_the_same_bytes(hub, adapter, tmp_path):
    repo, files = adapter

    folder = Path(snapshot_download(repo, endpoint=hub.endpoint, token=hub.token, cache_dir=tmp_path / "cache"))

    assert {path: (folder / path).read_bytes() for path in files} == files


def test_every_revision_can_be_pulled(hub, api, adapter, tmp_path):
    repo, _ = adapter
    sha = api.model_info(repo).sha
    api.create_tag(repo, tag="v1")
    push(api, repo, {"later.txt": b"1"})

    found = [api.hf_hub_download(repo, "README.md", revision=rev, cache_dir=tmp_path) for rev in (sha, "v1", "main")]

    assert [Path(path).parent.name for path in found[:2]] == [sha, sha]
    assert Path(found[2]).parent.name == api.model_info(repo).sha


def test_checksums_of_a_download_agree_and_a_changed_byte_is_found(api, adapter, tmp_path):
    repo, _ = adapter
    folder = Path(snapshot_download(repo, endpoint=api.endpoint, token=api.token, local_dir=tmp_path / "copy"))

    clean = api.verify_repo_checksums(repo, local_dir=folder)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    changed = api.verify_repo_checksums(repo, local_dir=folder)

    assert clean.mismatches == []
    assert [mismatch["path"] for mismatch in changed.mismatches] == ["adapter_model.safetensors"]


def test_the_header_of_a_remote_file_is_read_by_range(api, adapter):
    header = api.parse_safetensors_file_metadata(adapter[0], "adapter_model.safetensors")

    assert header.tensors["base_model.model.q.lora_A.weight"].shape == [4, 4]


@pytest.mark.parametrize("path", ["README.md", "adapter_model.safetensors"])
@pytest.mark.parametrize(
    ("asked", "start", "stop"), [("0-0", 0, 1), ("3-10", 3, 11), ("5-", 5, None), ("-4", -4, None)]
)
def test_ranges_of_both_kinds_of_file_are_served(http, adapter, path, asked, start, stop):
    repo, files = adapter

    answer = http.get(f"/{repo}/resolve/main/{path}", headers={"Range": f"bytes={asked}"}, follow_redirects=True)

    assert answer.status_code == 206
    assert answer.content == files[path][start:stop]
    assert answer.headers["content-range"].endswith(f"/{len(files[path])}")


def test_a_range_behind_the_end_is_416(http, adapter):
    answer = http.get(f"/{adapter[0]}/resolve/main/README.md", headers={"Range": "bytes=9999-"})

    assert answer.status_code == 416


def test_the_headers_of_a_file_say_what_clients_rely_on(http, api, adapter):
    repo, files = adapter
    sha = api.model_info(repo).sha

    regular = http.head(f"/{repo}/resolve/main/README.md")
    large = http.head(f"/{repo}/resolve/main/adapter_model.safetensors")
    missing = http.head(f"/{repo}/resolve/main/nothing")

    assert regular.headers["etag"].strip('"') == api.get_paths_info(repo, "README.md")[0].blob_id
    assert regular.headers["content-length"] == str(len(files["README.md"]))
    assert large.status_code == 302
    assert large.headers["x-linked-etag"].strip('"') == hashlib.sha256(files["adapter_model.safetensors"]).hexdigest()
    assert large.headers["x-linked-size"] == str(len(files["adapter_model.safetensors"]))
    assert "x-xet-hash" not in large.headers
    assert (missing.status_code, missing.headers["x-error-code"]) == (404, "EntryNotFound")
    assert {answer.headers["x-repo-commit"] for answer in (regular, large, missing)} == {sha}
    assert all("x-request-id" in answer.headers for answer in (regular, large, missing))


def test_storage_is_another_origin_and_refuses_tokens_and_altered_links(http, adapter):
    repo, _ = adapter
    link = http.head(f"/{repo}/resolve/main/adapter_model.safetensors").headers["location"]
    token = http.headers.pop("authorization")

    assert http.get(link).status_code == 200
    assert http.get(link, headers={"Authorization": token}).status_code == 400
    assert http.get(link.replace("expires=1", "expires=2")).status_code == 403
    assert http.get(link.partition("&signature")[0]).status_code == 403
    assert http.put(link, content=b"x").status_code == 403


def test_what_is_not_there_is_told_apart(api, adapter, tmp_path):
    repo, _ = adapter

    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(repo, "nothing.txt", cache_dir=tmp_path)
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(repo, "README.md", revision="nothing", cache_dir=tmp_path)
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(repo, "nothing"))
    assert api.get_paths_info(repo, ["nothing"]) == []
    assert not api.file_exists(repo, "nothing.txt")


def test_the_tree_lists_folders_and_files(api, adapter):
    repo, _ = adapter
    push(api, repo, {"d/a.txt": b"1", "d/e/b.txt": b"22"})

    top = [entry.path for entry in api.list_repo_tree(repo)]
    below = [entry.path for entry in api.list_repo_tree(repo, "d", recursive=True)]

    assert top == [".gitattributes", "README.md", "adapter_config.json", "adapter_model.safetensors", "d"]
    assert below == ["d/a.txt", "d/e", "d/e/b.txt"]


def test_each_entry_knows_the_commit_that_last_touched_it(api, adapter):
    repo, _ = adapter
    first = api.model_info(repo).sha
    second = push(api, repo, {"d/a.txt": b"1"}).oid
    push(api, repo, {"b.txt": b"1"})

    entries = {entry.path: entry.last_commit.oid for entry in api.list_repo_tree(repo, expand=True)}

    assert (entries["README.md"], entries["d"]) == (first, second)
    assert api.get_paths_info(repo, "d/a.txt", expand=True)[0].last_commit.oid == second


def test_a_tree_of_1001_files_comes_in_pages(api, http):
    api.create_repo("me/many")
    push(api, "me/many", {f"f{n:04d}.txt": b"x" for n in range(1001)})

    first = http.get("/api/models/me/many/tree/main")
    everything = list(api.list_repo_tree("me/many"))

    assert len(first.json()) == 1000
    assert len(everything) == 1002
    assert len({entry.path for entry in everything}) == 1002


def test_names_of_files_may_need_quoting(api, adapter, tmp_path):
    repo, _ = adapter
    names = ["a b.txt", "100%.txt", "ä/ö#1?.txt", "a%2Fb.txt", "+&=.txt"]
    push(api, repo, {name: name.encode() for name in names})

    got = {name: Path(api.hf_hub_download(repo, name, cache_dir=tmp_path)).read_bytes() for name in names}

    assert got == {name: name.encode() for name in names}
    assert {entry.path for entry in api.get_paths_info(repo, names)} == set(names)


def test_commits_are_listed_newest_first_with_their_words(api, adapter):
    repo, _ = adapter
    api.create_commit(
        repo, [CommitOperationAdd("a.txt", b"1")], commit_message="<Title>", commit_description="And more."
    )

    newest = api.list_repo_commits(repo, formatted=True)[0]

    assert (newest.title, newest.message, newest.authors) == ("<Title>", "And more.", ["me"])
    assert newest.formatted_title == "&lt;Title&gt;"


def test_a_revision_may_be_called_head(http, api, adapter):
    answer = http.get(f"/api/models/{adapter[0]}/revision/HEAD")

    assert answer.json()["sha"] == api.model_info(adapter[0]).sha


def test_only_the_fields_asked_for_are_sent(api, adapter):
    info = api.model_info(adapter[0], expand=["sha", "tags"])

    assert "lora" in info.tags
    assert len(info.sha) == 40
    assert info.siblings is None


def test_the_card_is_read_back(hub, api, adapter, tmp_path):
    card = ModelCard.load(api.hf_hub_download(adapter[0], "README.md", cache_dir=tmp_path))

    assert card.data.base_model == "acme/base"
    assert api.model_info(adapter[0]).card_data.license == "mit"


def test_a_download_counts_once(api, adapter, tmp_path):
    repo, _ = adapter

    snapshot_download(repo, endpoint=api.endpoint, token=api.token, cache_dir=tmp_path)

    assert api.model_info(repo).downloads == 1


def test_ids_are_those_that_git_computes(api, tmp_path):
    api.create_repo("me/git")
    oid = push(api, "me/git", {"b.txt": b"1\n", "a/x.txt": b"2\n", "a.txt": b"3\n", "a/y/z.txt": b"4\n"}).oid
    snapshot_download("me/git", endpoint=api.endpoint, token=api.token, local_dir=tmp_path / "work")

    def git(*arguments):
        return subprocess.run(
            ["git", *arguments], cwd=tmp_path / "work", check=True, capture_output=True, text=True
        ).stdout

    git("init", "-q")
    git("add", "--force", ":!.cache", ".")
    listed = dict(
        reversed(line.split("\t")) for line in git("ls-tree", "-r", "-t", git("write-tree").strip()).splitlines()
    )
    ours = {
        entry.path: getattr(entry, "blob_id", None) or entry.tree_id
        for entry in api.list_repo_tree("me/git", recursive=True)
    }

    assert {path: line.split()[2] for path, line in listed.items()} == ours
    assert len(oid) == 40
