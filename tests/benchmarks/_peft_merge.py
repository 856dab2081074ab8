"""PEFT merges adapters in a process of its own, and says how long each step took.

The base is a stand-in: modules of the right names and shapes whose weights are one number with stride 0,
so that a base's gigabytes cost nothing. `--lean` gives PEFT what helps it and few know of: adapters are
made on the meta device and keep their type. SVDs are thin in any case, which is kind too.

    python tests/benchmarks/_peft_merge.py --combination linear --rank 16 OUT ADAPTER…
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from _steps import Steps

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn


def stand_in(shapes: Mapping[str, tuple[int, int]], dtype: torch.dtype) -> nn.Module:
    """A model with linear layers of these names and (out, in), none of which holds a weight."""
    import torch
    from torch import nn

    root = nn.Module()
    root.name_or_path = "acme/stand-in"
    for name, shape in shapes.items():
        at = root
        *around, last = name.split(".")
        for part in around:
            if part not in at._modules:
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        with torch.device("meta"):
            layer = nn.Linear(shape[1], shape[0], bias=False, dtype=dtype)
        layer.weight = nn.Parameter(torch.zeros(1, dtype=dtype).expand(shape), requires_grad=False)
        at.add_module(last, layer)
    return root


def shapes_of(folder: Path) -> tuple[dict[str, tuple[int, int]], torch.dtype]:
    """Module → (out, in) of an adapter, and its type."""
    from safetensors import safe_open

    prefix, suffix = "base_model.model.", ".lora_{}.weight"
    found: dict[str, tuple[int, int]] = {}
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        keys = [key for key in file.keys() if "lora_A" in key]  # noqa: SIM118
        for key in keys:
            name = key.removeprefix(prefix).removesuffix(suffix.format("A"))
            out = file.get_slice(f"{prefix}{name}{suffix.format('B')}").get_shape()[0]
            found[name] = (out, file.get_slice(key).get_shape()[1])
        return found, file.get_tensor(keys[0]).dtype


def opened(folders: Sequence[Path], lean: bool) -> PeftModel:
    """The stand-in base of some adapters with all of them loaded, as a0, a1, …"""
    from peft import PeftModel

    how = {"low_cpu_mem_usage": True, "autocast_adapter_dtype": False} if lean else {}
    model = PeftModel.from_pretrained(stand_in(*shapes_of(folders[0])), str(folders[0]), adapter_name="a0", **how)
    for number, folder in enumerate(folders[1:], 1):
        model.load_adapter(str(folder), adapter_name=f"a{number}", **how)
    return model


def combine(model: PeftModel, combination: str, weight: float, rank: int) -> None:
    """All adapters together as the adapter "merged"."""
    how: dict[str, object] = {"density": 0.5} if "ties" in combination else {}
    if combination.endswith("svd"):
        how |= {"svd_rank": rank, "svd_full_matrices": False}
    names = list(model.peft_config)
    model.add_weighted_adapter(names, [weight] * len(names), "merged", combination_type=combination, **how)


def main() -> None:
    """Import, load, merge, save, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("adapters", type=Path, nargs="+")
    parser.add_argument("--combination", default="linear")
    parser.add_argument("--weight", type=float, default=0.25)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lean", action="store_true")
    chosen = parser.parse_args()
    steps = Steps()
    import peft  # noqa: F401 - what importing it takes is a step of its own
    import torch

    steps.done("import")
    torch.set_num_threads(chosen.threads)
    model = opened(chosen.adapters, chosen.lean)
    steps.done("load")
    combine(model, chosen.combination, chosen.weight, chosen.rank)
    steps.done("merge")
    model.save_pretrained(str(chosen.out), selected_adapters=["merged"], save_embedding_layers=False)
    steps.done("save")
    steps.tell()


if __name__ == "__main__":
    main()
