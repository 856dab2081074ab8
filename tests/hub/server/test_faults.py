"""That the faults of tests/hub/faults.py are what they say, and that nothing is lost to them."""

from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import httpx

from loramerge.hub.server.serve import running
from tests.hub.faults import Faults

FILE = r"GET /lfs/"


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture
def api(tmp_path, faults):
    with running(tmp_path / "root", wrap=faults.wrap, part_size=40_000) as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("me/a")
        yield api


CONTENT = bytes(range(256)) * 400


def push(api, content=CONTENT):
    return api.create_commit("me/a", [CommitOperationAdd("w.bin", content)], commit_message="c")


def link(api) -> str:
    head = httpx.head(f"{api.endpoint}/me/a/resolve/main/w.bin", headers={"Authorization": f"Bearer {api.token}"})
    return head.headers["location"]


def test_a_refusal_strikes_as_often_as_it_should(api, faults):
    faults.refuse("GET /api/models/me/a$", status=429, times=2, retry_after="7")

    answers = [httpx.get(f"{api.endpoint}/api/models/me/a") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert faults.count("GET /api/models/me/a$") == 3


def test_a_truncated_and_a_flipped_body_look_whole(api, faults):
    push(api)
    faults.truncate(FILE)
    faults.flip(FILE)

    cut, flipped, whole = (httpx.get(link(api)).content for _ in range(3))

    assert cut == CONTENT[: len(CONTENT) // 2]
    assert len(flipped) == len(CONTENT)
    assert flipped != CONTENT
    assert whole == CONTENT


def test_a_reset_connection_is_an_error_of_transport(api, faults):
    push(api)
    faults.reset(FILE)

    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(link(api))


def test_a_slow_answer_is_late(api, faults):
    faults.slow("agent-harnesses", seconds=0.3)
    start = time.monotonic()

    httpx.get(f"{api.endpoint}/api/agent-harnesses")

    assert time.monotonic() - start > 0.3


def test_a_download_is_tried_again_after_a_reset(api, faults, tmp_path):
    push(api)
    faults.reset(FILE)

    path = api.hf_hub_download("me/a", "w.bin", cache_dir=tmp_path / "cache")

    assert Path(path).read_bytes() == CONTENT
    assert faults.count(FILE) == 2


def test_parts_that_are_refused_or_lost_are_sent_again(api, faults):
    faults.refuse(r"PUT /lfs/.*/part/2", status=503, retry_after="0")
    faults.drop(r"POST /lfs/.*/complete")

    push(api)

    assert faults.count(r"PUT /lfs/.*/part/") == 4
    assert faults.count(r"POST /lfs/.*/complete") == 2
    assert api.get_paths_info("me/a", "w.bin")[0].lfs.sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_a_commit_whose_answer_was_lost_is_there_once(api, faults):
    faults.drop("POST /api/models/me/a/commit/main")

    with pytest.raises(httpx.TransportError):
        push(api)
    commit = push(api)

    assert commit.oid == api.model_info("me/a").sha
    assert [found.title for found in api.list_repo_commits("me/a")] == ["c", "initial commit"]


def test_an_upload_that_breaks_off_leaves_nothing(api, tmp_path):
    oid = "0" * 64
    batch = {"operation": "upload", "objects": [{"oid": oid, "size": 100}]}
    headers = {"Authorization": f"Bearer {api.token}"}
    answer = httpx.post(f"{api.endpoint}/me/a.git/info/lfs/objects/batch", json=batch, headers=headers)
    url = httpx.URL(answer.json()["objects"][0]["actions"]["upload"]["href"])
    with socket.create_connection((url.host, url.port)) as connection:
        head = f"PUT {url.raw_path.decode()} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc"
        connection.sendall(head.encode())
        time.sleep(0.1)

    deadline = time.monotonic() + 5
    while list((tmp_path / "root/incoming").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert list((tmp_path / "root/incoming").iterdir()) == []


def test_no_token_reaches_storage(api, faults, tmp_path):
    push(api)
    push(api, b"\0" * 100)
    api.hf_hub_download("me/a", "w.bin", cache_dir=tmp_path / "cache")

    at_storage = [request for request in faults.requests if "/lfs/" in request.line and ".git/" not in request.line]
    ports = {request.port for request in at_storage}

    assert len(at_storage) > 5
    assert not any("authorization" in request.headers for request in at_storage)
    assert ports.isdisjoint({request.port for request in faults.requests if request not in at_storage})
