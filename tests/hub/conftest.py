"""The real client against the embedded Hub, over real sockets, with faults in between."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from loramerge.hub.session import Hub


def _neighbour(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_adapter(folder: Path, *, rank: int = 4, fill: int = 1, base: str = "acme/base", **extra: str) -> Path:
    """A small adapter in PEFT's format, of two modules; `extra` are other files and their texts."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "base_model_name_or_path": base, "r": rank, "lora_alpha": 8, "target_modules": ["q"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    header: dict[str, Any] = {}
    end = 0
    for layer in (0, 1):
        for side, shape in (("A", [rank, 8]), ("B", [8, rank])):
            key = f"base_model.model.layers.{layer}.q.lora_{side}.weight"
            header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end := end + rank * 32]}
    text = json.dumps(header).encode()
    weights = struct.pack("<Q", len(text)) + text + struct.pack("<f", fill) * (end // 4)
    (folder / "adapter_model.safetensors").write_bytes(weights)
    for name, content in extra.items():
        (folder / name).write_text(content)
    return folder


@dataclass(frozen=True)
class Server:
    """A Hub on loopback: its address, the token of "me", a plain client of that user, and the faults in front of it."""

    url: str
    token: str
    api: Any
    faults: Any
    root: Path

    def publish(self, folder: Path, repo: str = "me/math", **options: Any) -> str:
        """Put a folder there as it is; the id of the commit."""
        self.api.create_repo(repo, exist_ok=True, private=options.pop("private", None))
        self.api.upload_folder(repo_id=repo, folder_path=folder, ignore_patterns=[], **options)
        return self.api.model_info(repo).sha

    def asked(self) -> list[str]:
        """What was requested since the last call of this."""
        lines = [request.line for request in self.faults.requests if "agent-harnesses" not in request.line]
        self.faults.requests.clear()
        return lines


@pytest.fixture(scope="module")
def _running(tmp_path_factory):
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from huggingface_hub import HfApi

    from loramerge.hub.server.serve import running

    faults = _neighbour("faults").Faults()
    root = tmp_path_factory.mktemp("hub-root")
    with running(root, wrap=faults.wrap) as started:
        api = HfApi(started.endpoint, started.token)
        yield Server(started.endpoint, started.token, api, faults, root)


@pytest.fixture
def server(_running):
    """The Hub without repos and without faults; starting it for each test would take most of the tests' time."""
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    disable_progress_bars()  # those of the tests' own uploads
    yield _running
    enable_progress_bars()
    _running.faults._rules.clear()
    for info in list(_running.api.list_models()):
        _running.api.delete_repo(info.id)
    _running.asked()


@pytest.fixture
def client(server, tmp_path):
    """Our side: the Hub as loramerge sees it, with a cache of its own."""
    return Hub(server.url, server.token, cache=tmp_path / "cache")


@pytest.fixture
def stranger(server, tmp_path):
    """The same Hub for somebody without a token."""
    return Hub(server.url, "", cache=tmp_path / "cache")


@pytest.fixture
def adapter_of_rank(tmp_path):
    """Makes a folder with a small adapter."""
    return lambda rank, **extra: write_adapter(tmp_path / f"adapter-{rank}", rank=rank, **extra)


@pytest.fixture
def adapter(adapter_of_rank):
    """A folder with a small adapter."""
    return adapter_of_rank(4)
