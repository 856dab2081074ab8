"""Fixtures that several test folders share."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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

import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real adapters, bases and tasks; the test is skipped where it is absent."""
    folder = Path(os.environ.get("LORAMERGE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real adapters at {folder}: set LORAMERGE_SHARED")
    return folder


@pytest.fixture
def hub(tmp_path):
    """A Hub of our own on loopback, empty and with the user "me"; skipped without the extra."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from loramerge.hub.server.serve import running

    with running(tmp_path / "hub-root") as server:
        yield server


SIZES = {f"layers.{layer}.{name}": (out, 8) for layer in (0, 1) for name, out in (("q", 8), ("v", 6))}


@pytest.fixture(scope="session")
def write_adapter():
    """write_adapter(folder, rank=4, ...) writes a small random adapter there, as PEFT saves it; returns the folder.

    Its numbers depend on `seed` (its folder's name) alone. `modules` maps names to (out, in); `extras`
    are further tensors, `config` further fields.
    """
    import json
    import zlib

    import torch
    from safetensors.torch import save_file

    def write(
        folder,
        *,
        rank=4,
        alpha=8,
        modules=SIZES,
        dtype=torch.float32,
        base="acme/base",
        extras=None,
        seed=None,
        **config,
    ):
        folder.mkdir(parents=True)
        draw = torch.Generator().manual_seed(zlib.crc32((seed or folder.name).encode()))
        tensors = dict(extras or {})
        for module, (out, in_) in modules.items():
            tensors[f"{module}.lora_A.weight"] = torch.randn(rank, in_, generator=draw).to(dtype)
            tensors[f"{module}.lora_B.weight"] = torch.randn(out, rank, generator=draw).to(dtype)
        save_file({f"base_model.model.{key}": value for key, value in tensors.items()}, folder / WEIGHTS)
        targets = sorted({module.rpartition(".")[2] for module in modules})
        known = {"peft_type": "LORA", "base_model_name_or_path": base, "r": rank, "lora_alpha": alpha}
        (folder / CONFIG).write_text(json.dumps({**known, "target_modules": targets, **config}))
        return folder

    return write


@pytest.fixture
def make_adapter(tmp_path, write_adapter):
    """make_adapter("math-lora", rank=4, ...) -> the folder of a small random adapter; as `write_adapter`."""
    return lambda name, **what: write_adapter(tmp_path / name, seed=name, **what)
