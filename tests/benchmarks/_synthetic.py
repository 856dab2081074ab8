"""Synthetic adapters of the size of real ones: decaying spectra, a quarter of the directions shared.

Of each module's 16 units the first four are the same in all adapters, the others are each adapter's own;
unit j is j^-0.7 as large as the first. Numbers depend on the seed and the names alone.
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from loramerge.core.lowrank import LowRank
from loramerge.formats._stream import write_stream
from loramerge.formats._tensors import dtype_name

RANK = 16
ALPHA = 32
SHARED = RANK // 4
FOLDER = Path(tempfile.gettempdir()) / "loramerge-benchmarks"
"""What is made once and used again lies here."""

Shapes = Mapping[str, tuple[int, int]]


def llama(layers: int = 32) -> dict[str, tuple[int, int]]:
    """Module → (out, in) of Llama-7B's linear layers."""
    attention = {f"self_attn.{name}_proj": (4096, 4096) for name in "qkvo"}
    block = {**attention, "mlp.gate_proj": (11008, 4096), "mlp.up_proj": (11008, 4096), "mlp.down_proj": (4096, 11008)}
    return {f"model.layers.{layer}.{name}": shape for layer in range(layers) for name, shape in block.items()}


def square(side: int, count: int) -> dict[str, tuple[int, int]]:
    """`count` modules of side × side."""
    return {f"model.layers.{layer}.self_attn.q_proj": (side, side) for layer in range(count)}


def adapters(name: str, count: int, shapes: Shapes, dtype: torch.dtype) -> list[Path]:
    """The folders of so many adapters, made unless they are there."""
    return [write(FOLDER / name / f"a{number}", number, shapes, dtype) for number in range(count)]


def update(module: str, adapter: int, shape: tuple[int, int]) -> LowRank:
    """One adapter's update of one module in float32."""
    together = torch.Generator().manual_seed(zlib.crc32(module.encode()))
    alone = torch.Generator().manual_seed(zlib.crc32(f"{module} of {adapter}".encode()))
    out, in_ = shape
    decay = torch.arange(1, RANK + 1).float() ** -0.7 * 0.02
    a = torch.cat([_normal(SHARED, in_, together), _normal(RANK - SHARED, in_, alone)])
    b = torch.cat([_normal(SHARED, out, together), _normal(RANK - SHARED, out, alone)]).T * decay
    return LowRank(b=b, a=a / in_**0.5, scale=ALPHA / RANK)


def _normal(rows: int, columns: int, draw: torch.Generator) -> Tensor:
    return torch.randn(rows, columns, generator=draw)


def write(folder: Path, number: int, shapes: Shapes, dtype: torch.dtype) -> Path:
    """One adapter as PEFT saves it, unless it is there already; returns its folder."""
    if (folder / "adapter_config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    kind = dtype_name(dtype)
    bounds = {}
    for module, (out, in_) in shapes.items():
        bounds[_key(module, "A")] = (kind, (RANK, in_))
        bounds[_key(module, "B")] = (kind, (out, RANK))
    write_stream(folder / "adapter_model.safetensors", bounds, _tensors(number, shapes, dtype))
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": "acme/stand-in",
        "r": RANK,
        "lora_alpha": ALPHA,
        "target_modules": sorted({module.rpartition(".")[2] for module in shapes}),
    }
    # Written last: a folder without it is one that was being made when somebody stopped.
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _tensors(number: int, shapes: Shapes, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for module, shape in shapes.items():
        delta = update(module, number, shape)
        yield _key(module, "A"), delta.a.to(dtype)
        yield _key(module, "B"), delta.b.contiguous().to(dtype)


def _key(module: str, half: str) -> str:
    return f"base_model.model.{module}.lora_{half}.weight"
