"""One adapter, weight 1: does merging it give it back?

Small adapters made by PEFT, one of each kind, go alone through `loramerge merge --method linear` at
full rank and, beside it, through PEFT's own `add_weighted_adapter` (linear, svd, cat). Either tool
writes a folder and PEFT loads it; the change it makes to the outputs of each layer is compared with
the change that the adapter itself makes: relative Frobenius error over all layers, in float64. 0 is
right; 1 is what an adapter of zeros would score.

    python tests/benchmarks/identity.py
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch
from _harness import record
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils.warning import PeftWarning
from torch import Tensor, nn

from loramerge import api
from loramerge.errors import LoramergeError

KINDS: dict[str, dict[str, object]] = {
    "plain": {},
    "rsLoRA": {"use_rslora": True},
    "rank_pattern, alpha_pattern": {"rank_pattern": {"fc1": 4}, "alpha_pattern": {"fc2": 48}},
    "lora_bias": {"lora_bias": True},
    "DoRA": {"use_dora": True},
}


class Net(nn.Module):
    """Two layers of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.name_or_path = "identity-net"
        self.fc1 = nn.Linear(64, 48)
        self.fc2 = nn.Linear(48, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))


def trained(base: Net, kind: dict[str, object], folder: Path) -> None:
    """An adapter of some kind with random factors, saved by PEFT."""
    # Without PEFT's initialisation B is random too, so that there is an update to get wrong.
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["fc1", "fc2"], init_lora_weights=False, **kind)
    get_peft_model(deepcopy(base), config).save_pretrained(str(folder), save_embedding_layers=False)


def loaded(base: Net, folder: Path) -> PeftModel:
    """The base with a saved adapter, in float64 so that what is measured is the merge's rounding."""
    return PeftModel.from_pretrained(deepcopy(base), str(folder)).double().eval()


@torch.inference_mode()
def effect(model: PeftModel) -> Tensor:
    """What the active adapter adds to each layer's output, over a basis of inputs and the zero input."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    changes = []
    for layer in layers:
        size = layer.base_layer.in_features
        x = torch.cat([torch.eye(size, dtype=torch.float64), torch.zeros(1, size, dtype=torch.float64)])
        changes.append((layer(x) - layer.base_layer(x)).flatten())
    return torch.cat(changes)


def by_loramerge(base: Net, folder: Path) -> PeftModel:
    """The adapter after `loramerge merge --method linear --rank sum -w 1`."""
    session = api.Session(folder.parent)
    merged = api.merge(session, [str(folder)], method="linear", rank="sum", weights=[1.0], out=Path("merged"))
    return loaded(base, merged.path)


def by_peft(base: Net, folder: Path, combination: str) -> PeftModel:
    """The adapter after PEFT's `add_weighted_adapter` with weight 1, saved and loaded again."""
    model = PeftModel.from_pretrained(deepcopy(base), str(folder))
    model.add_weighted_adapter(["default"], [1.0], combination, combination_type=combination)
    model.save_pretrained(str(folder.parent), selected_adapters=[combination], save_embedding_layers=False)
    return loaded(base, folder.parent / combination)


def error(make: Callable[[], PeftModel], wanted: Tensor) -> float | str:
    """Relative error of what `make` gives; a refusal, or a result that cannot be loaded, by name."""
    try:
        return float((effect(make()) - wanted).norm() / wanted.norm())
    except LoramergeError as refusal:
        return f"refused: {type(refusal).__name__}"
    except RuntimeError as failure:
        return f"fails: {type(failure).__name__}"


def measure(kind: dict[str, object]) -> dict[str, float | str]:
    """Errors of every way to merge one adapter of this kind."""
    torch.manual_seed(0)
    base = Net()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "own"
        trained(base, kind, folder)
        wanted = effect(loaded(base, folder))
        found = {"loramerge": error(lambda: by_loramerge(base, folder), wanted)}
        for combination in ("linear", "svd", "cat"):
            found[f"PEFT {combination}"] = error(lambda c=combination: by_peft(base, folder, c), wanted)
    return found


def main() -> None:
    torch.set_num_threads(1)
    # PEFT takes LoRA's own bias for a shard of a matrix.
    warnings.filterwarnings("ignore", category=PeftWarning)
    rows = {name: measure(kind) for name, kind in KINDS.items()}
    columns = list(next(iter(rows.values())))
    print(f"| one adapter, weight 1 | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, found in rows.items():
        cells = [value if isinstance(value, str) else f"{value:.1e}" for value in found.values()]
        print(f"| {name} | {' | '.join(cells)} |")
        for way, value in found.items():
            record("identity", kind=name, way=way, relative_error=value)


if __name__ == "__main__":
    main()
