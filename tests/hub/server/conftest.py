"""Clients of the Hub under test: its user, another user, nobody."""

from __future__ import annotations

import json
import struct

import pytest

NAMES = ("base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A running Hub and its folder, shared by the tests of one file."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from loramerge.hub.server.serve import running

    root = tmp_path_factory.mktemp("hub") / "root"
    with running(root) as server:
        yield server, root


@pytest.fixture
def hub(served):
    """The running Hub; the repos that a test made are gone after it."""
    from huggingface_hub import HfApi

    server, _ = served
    yield server
    api = HfApi(endpoint=server.endpoint, token=server.token)
    for model in [model for model in api.list_models() if not model.id.startswith("you/")]:
        api.delete_repo(model.id)


@pytest.fixture
def root(served):
    """The folder of the running Hub."""
    return served[1]


@pytest.fixture
def api(hub):
    """The real client, as the user of the Hub."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.endpoint, token=hub.token)


@pytest.fixture
def other(hub, root):
    """The real client, as a second user."""
    from huggingface_hub import HfApi

    from loramerge.hub.server.serve import add_user

    return HfApi(endpoint=hub.endpoint, token=add_user(root, "you"))


@pytest.fixture
def nobody(hub):
    """The real client without a token."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.endpoint, token=False)


@pytest.fixture
def http(hub):
    """Plain HTTP with the user's token, for what the real client would not send."""
    from huggingface_hub.utils import httpx

    headers = {"Authorization": f"Bearer {hub.token}"}
    with httpx.Client(base_url=hub.endpoint, headers=headers, verify=False) as client:  # loads no certificates
        yield client


@pytest.fixture
def weights() -> bytes:
    """A small safetensors file."""
    header = {
        name: {"dtype": "F32", "shape": [4, 4], "data_offsets": [64 * n, 64 * n + 64]} for n, name in enumerate(NAMES)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(range(128))


CARD = b"---\nbase_model: acme/base\nlicense: mit\nlibrary_name: peft\ntags:\n- lora\n---\n# An adapter\n"


@pytest.fixture
def adapter(api, weights):
    """me/adapter, pushed: the id and the contents."""
    from huggingface_hub import CommitOperationAdd

    files = {"README.md": CARD, "adapter_config.json": b'{"r": 4}', "adapter_model.safetensors": weights}
    api.create_repo("me/adapter")
    api.create_commit("me/adapter", [CommitOperationAdd(*item) for item in files.items()], commit_message="An adapter")
    return "me/adapter", files
