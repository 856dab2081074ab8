"""Small adapters with random numbers, as PEFT saves them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
SIZES = {f"layers.{layer}.{name}": (out, 8) for layer in (0, 1) for name, out in (("q", 8), ("v", 6))}


def write_adapter(
    folder: Path,
    *,
    rank: int = 4,
    alpha: float = 8,
    modules: Mapping[str, tuple[int, int]] = SIZES,
    dtype: torch.dtype = torch.float32,
    base: str = "acme/base",
    extras: Mapping[str, torch.Tensor] | None = None,
    seed: str | int | None = None,
    **config: Any,
) -> Path:
    """Write an adapter into a folder, over one that is there; returns the folder.

    Its numbers depend on `seed` (its folder's name) alone. `modules` maps names to (out, in); `extras`
    are further tensors, `config` further fields.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw = torch.Generator().manual_seed(zlib.crc32(str(folder.name if seed is None else seed).encode()))
    tensors = dict(extras or {})
    for module, (out, in_) in modules.items():
        tensors[f"{module}.lora_A.weight"] = torch.randn(rank, in_, generator=draw).to(dtype)
        tensors[f"{module}.lora_B.weight"] = torch.randn(out, rank, generator=draw).to(dtype)
    save_file({f"base_model.model.{key}": value for key, value in tensors.items()}, folder / WEIGHTS)
    targets = sorted({module.rpartition(".")[2] for module in modules})
    known = {"peft_type": "LORA", "base_model_name_or_path": base, "r": rank, "lora_alpha": alpha}
    (folder / CONFIG).write_text(json.dumps({**known, "target_modules": targets, **config}))
    return folder
