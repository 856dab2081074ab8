"""A second, independent client: @huggingface/hub for JavaScript."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from loramerge import api
from loramerge.formats._format import open_adapter
from loramerge.hub.server.serve import running

CLIENT = Path(__file__).parent / "npm"
PART = 100_000  # so that a file of three parts is sent in parallel parts
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ECONNRESET", "ENETUNREACH")

pytestmark = pytest.mark.slow


@pytest.fixture
def client(tmp_path) -> Path:
    """The client, installed in a folder of its own."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node and npm are not installed")
    folder = tmp_path / "npm"
    shutil.copytree(CLIENT, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
    install = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    if install.returncode and any(sign in install.stderr for sign in OFFLINE):
        pytest.skip("npm cannot reach its registry")
    assert install.returncode == 0, install.stderr
    return folder


def test_the_javascript_client_pushes_what_the_python_client_pulls(client, tmp_path):
    from huggingface_hub import HfApi, snapshot_download

    folder, out = tmp_path / "adapter", tmp_path / "out"
    folder.mkdir()
    (folder / "README.md").write_text("---\ntags: [lora]\nbase_model: acme/base\n---\n# An adapter\n")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(2 * PART + 1))
    (folder / "small.safetensors").write_bytes(os.urandom(1000))
    contents = {path.name: path.read_bytes() for path in folder.iterdir()}

    with running(tmp_path / "root", part_size=PART) as hub:
        places = {"HUB": hub.endpoint, "TOKEN": hub.token, "REPO": "me/js", "FOLDER": str(folder), "OUT": str(out)}
        command = ["node", "client.mjs"]
        run = subprocess.run(
            command, cwd=client, env={**os.environ, **places}, capture_output=True, text=True, timeout=100
        )
        assert run.returncode == 0, run.stderr
        seen = json.loads(run.stdout)
        pulled = Path(snapshot_download("me/js", endpoint=hub.endpoint, token=hub.token, cache_dir=tmp_path / "cache"))
        head = HfApi(endpoint=hub.endpoint, token=hub.token).model_info("me/js").sha

    assert {path.name: path.read_bytes() for path in out.iterdir()} == contents
    assert {name: (pulled / name).read_bytes() for name in contents} == contents
    large = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items() if "safetensors" in name}
    assert seen["listed"] == [
        [".gitattributes", None, "initial commit"],
        *([name, large.get(name), "From JavaScript"] for name in sorted(contents)),
    ]
    assert (seen["id"], seen["user"], seen["missing"]) == ("me/js", "me", None)
    assert seen["commit"] == seen["info"] == head
    assert seen["paths"] == sorted(contents)
    assert seen["onBranch"] == ["From JavaScript", "initial commit"]
    assert seen["found"] == ["me/js"]


def test_loramerge_pulls_what_the_javascript_client_pushed(client, tmp_path, make_adapter):
    folder, out = make_adapter("math-lora", rank=4), tmp_path / "out"

    with running(tmp_path / "root") as hub:
        places = {"HUB": hub.endpoint, "TOKEN": hub.token, "REPO": "me/js", "FOLDER": str(folder), "OUT": str(out)}
        subprocess.run(["node", "client.mjs"], cwd=client, env={**os.environ, **places}, check=True, timeout=100)
        session = api.Session(tmp_path / "work", hub.endpoint, hub.token, cache=tmp_path / "cache")
        session.folder.mkdir()
        rows = api.pull(session, ["me/js"], name="math")

    assert [(row["name"], row["rank"], row["modules"]) for row in rows] == [("math", 4, 4)]
    pulled, made = api.open_ref(session, "math").adapter, open_adapter(folder)
    assert all(pulled.load(name).b.equal(made.load(name).b) for name in made.modules)
