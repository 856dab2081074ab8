"""Changes to an adapter that lies in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from adapters import CONFIG, WEIGHTS
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def change_config(folder: Path, **fields: object) -> None:
    """Set fields of the config."""
    config = folder / CONFIG
    config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))


def change_tensors(folder: Path, change: Callable[[Tensors], Tensors]) -> Tensors:
    """Store what `change` makes of the tensors; returns what it made."""
    changed = change(load_file(folder / WEIGHTS))
    save_file(changed, folder / WEIGHTS, {"format": "pt"})
    return changed


def rename_tensors(folder: Path, name: Callable[[str], str]) -> None:
    """Store every tensor under what `name` makes of its own."""
    change_tensors(folder, lambda tensors: {name(key): tensor for key, tensor in tensors.items()})
