from __future__ import annotations

import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import httpx

from loramerge.hub.server.blobs import Blobs
from loramerge.hub.server.gitobjects import check_path
from loramerge.hub.server.links import Signer
from loramerge.hub.server.preupload import is_ignored, upload_mode
from loramerge.hub.server.refusal import Refusal
from loramerge.hub.server.serve import running

ROOT = Path(__file__).parents[3]
TOKEN = "hf_given_by_hand"
SERVE = (
    "import sys; from pathlib import Path; from loramerge.hub.server.serve import serve; "
    "serve(Path(sys.argv[1]), host='127.0.0.1', port=0, user='me', token='hf_given_by_hand',"
    " ready=lambda r: print(r.endpoint, flush=True))"
)


@contextmanager
def started(root: Path) -> Iterator[tuple[subprocess.Popen[str], HfApi]]:
    """A Hub in a process of its own, ended in the end if it has not."""
    command = [sys.executable, "-c", SERVE, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        try:
            yield process, HfApi(endpoint=process.stdout.readline().strip(), token=TOKEN)
        finally:
            process.kill()


def push(api, repo, files, **options):
    return api.create_commit(repo, [CommitOperationAdd(*item) for item in files.items()], commit_message="c", **options)


def test_a_restart_keeps_everything(tmp_path):
    root, weights = tmp_path / "root", os.urandom(5000)
    with running(root) as hub:
        token, api = hub.token, HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("me/a", private=True)
        commit = push(api, "me/a", {"README.md": b"---\nlicense: mit\n---\n", "w.safetensors": weights}, create_pr=True)
        api.create_tag("me/a", tag="v1", revision=commit.pr_revision)
        before = vars(api.model_info("me/a", revision="v1", files_metadata=True))

    with running(root) as hub:
        api = HfApi(endpoint=hub.endpoint, token=token)
        after = vars(api.model_info("me/a", revision="v1", files_metadata=True))
        path = api.hf_hub_download("me/a", "w.safetensors", revision="refs/pr/1", cache_dir=tmp_path / "cache")

    assert str(after) == str(before)
    assert Path(path).read_bytes() == weights
    assert (len(token), hub.token) == (37, "")  # told once: only its hash is kept


def client(api: HfApi) -> httpx.Client:
    return httpx.Client(
        base_url=api.endpoint, headers={"Authorization": f"Bearer {api.token}"}, timeout=60, verify=False
    )


def push_once(http, path: str, content: bytes) -> tuple[str, set[str]]:
    """One commit of a large and a small file, without the patience of the real client."""
    oid, size = hashlib.sha256(content).hexdigest(), len(content)
    batch = {"operation": "upload", "objects": [{"oid": oid, "size": size}]}
    objects = http.post("/me/a.git/info/lfs/objects/batch", json=batch).raise_for_status().json()["objects"]
    link = objects[0]["actions"]["upload"]["href"]
    httpx.put(link, content=content, timeout=60).raise_for_status()
    lines = [
        {"key": "header", "value": {"summary": path}},
        {"key": "lfsFile", "value": {"path": f"{path}.bin", "oid": oid, "size": size}},
        {"key": "file", "value": {"path": f"{path}.txt", "content": path}},
    ]
    body = "\n".join(map(json.dumps, lines))
    answer = http.post("/api/models/me/a/commit/main", content=body).raise_for_status()
    return answer.json()["commitOid"], {f"{path}.bin", f"{path}.txt"}


def test_a_killed_server_leaves_whole_commits_only(tmp_path):
    root, rng, told = tmp_path / "root", random.Random(0), []
    for n in range(3):
        with started(root) as (process, api), client(api) as http:
            api.create_repo("me/a", exist_ok=True)
            told.append(push_once(http, f"{n}", rng.randbytes(200_000)))
            threading.Timer(rng.uniform(0.0, 0.3), process.kill).start()
            with suppress(httpx.TransportError):
                while True:
                    told.append(push_once(http, f"{n}-{len(told)}", rng.randbytes(200_000)))

    with started(root) as (process, api):
        commits = {commit.commit_id for commit in api.list_repo_commits("me/a")}
        entries = {entry.path: entry for entry in api.list_repo_tree("me/a")}
        api.upload_file(path_or_fileobj=b"1", path_in_repo="after.txt", repo_id="me/a")
        process.terminate()
        code = process.wait(timeout=20)

    assert {oid for oid, _ in told} <= commits  # what was promised is there
    assert all(files <= entries.keys() for _, files in told)
    assert {path[:-4] for path in entries if path.endswith(".bin")} == {p[:-4] for p in entries if p.endswith(".txt")}
    for entry in entries.values():  # and what is there is whole
        if entry.lfs:
            blob = root / "blobs" / entry.lfs.sha256[:2] / entry.lfs.sha256
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == entry.lfs.sha256
    with closing(sqlite3.connect(root / "hub.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_large_upload_and_its_download_take_no_memory(tmp_path):
    content = os.urandom(1 << 20) * 64
    with started(tmp_path / "root") as (process, api), client(api) as http:
        api.create_repo("me/a")
        before = peak(process)
        push_once(http, "large", content)
        link = http.head("/me/a/resolve/main/large.bin").headers["location"]

        received = httpx.get(link, timeout=60).content

        assert received == content
        assert peak(process) - before < 32  # MB, of 64


def peak(process: subprocess.Popen[str]) -> int:
    """The most memory a process has held so far, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def test_a_sweep_takes_what_is_old_and_belongs_to_nobody(tmp_path):
    blobs = Blobs(tmp_path)
    kept, lost, young = (blobs.add(content) for content in (b"kept", b"lost", b"young"))
    left_off = blobs.incoming / "left-off"
    left_off.touch()
    for path in (blobs.path(kept), blobs.path(lost), left_off):
        os.utime(path, (1, 1))

    blobs.sweep({kept})

    assert [blobs.path(blob).exists() for blob in (kept, lost, young)] == [True, False, True]
    assert not left_off.exists()


def test_content_that_is_pushed_again_is_saved_from_the_sweep(tmp_path):
    blobs = Blobs(tmp_path)
    blob = blobs.add(b"again")
    os.utime(blobs.path(blob), (1, 1))

    blobs.add(b"again")
    blobs.sweep(set())

    assert blobs.path(blob).exists()


@pytest.mark.parametrize("oid", ["../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n", ""])
def test_only_hashes_name_blobs(tmp_path, oid):
    with pytest.raises(Refusal):
        Blobs(tmp_path).path(oid)


def test_a_link_is_for_one_thing_and_one_day(monkeypatch):
    signer = Signer(b"secret")
    path, _, query = signer.sign("PUT", "/lfs/a", size=3).partition("?")

    assert signer.check("PUT", path, query) == {"size": 3}
    for method, other_path, other_query in (
        ("GET", path, query),
        ("PUT", "/lfs/b", query),
        ("PUT", path, query.replace("size=3", "size=4")),
        ("PUT", path, query + "&size=4"),
        ("PUT", path, ""),
    ):
        with pytest.raises(Refusal):
            signer.check(method, other_path, other_query)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    with pytest.raises(Refusal, match="expired"):
        signer.check("PUT", path, query)


@pytest.mark.parametrize(
    ("path", "pattern", "ignored"),
    [
        ("a.log", "*.log", True),
        ("d/a.log", "*.log", True),
        ("d/a.log", "/*.log", False),
        ("d/a.log", "d/", True),
        ("d", "d/", False),
        ("x/d/a", "d/", True),
        ("x/d/a", "/d/", False),
        ("x/y/z", "x/**/z", True),
        ("x/z", "x/**/z", True),
        ("x/z", "x/**", True),
        ("x", "x/**", False),
        ("a/b/c", "**/c", True),
        ("a.log", "*.log\n!a.log", False),
        ("#a", "#a", False),
        ("#a", "\\#a", True),
        ("a" * 200, "*a" * 60 + "b", False),
        ("/".join("a" * 500), "**/a/" * 50 + "b", False),
        ("a", "\n  \n", False),
    ],
)
def test_gitignore_means_what_it_means_to_git(path, pattern, ignored):
    assert is_ignored(path, pattern) is ignored


@pytest.mark.parametrize(
    ("path", "size", "sample", "mode"),
    [
        ("a.safetensors", 3, b"abc", "lfs"),
        ("a.safetensors", 0, b"", "regular"),
        ("a.json", 3, b"abc", "regular"),
        ("a.json", 10_000_001, b"abc", "lfs"),
        ("a", 3, b"a\0b", "lfs"),
        ("a", 3, b"\xff\xfe", "lfs"),
        ("a", 3, "ä".encode()[:1], "regular"),
        ("x.tar.gz", 3, b"abc", "lfs"),
    ],
)
def test_the_way_to_send_a_file_follows_from_name_size_and_start(path, size, sample, mode):
    assert upload_mode(path, size, sample) == mode


@pytest.mark.parametrize("path", ["a", "a/b.txt", ".gitignore", "a b/ü.txt", "x" * 255, "a.git/b", "..a"])
def test_ordinary_paths_are_taken(path):
    assert check_path(path) == path
