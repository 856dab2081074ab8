"""DoRA made exact with the weights of its base.

    W' = m ∘ V / ‖V‖,  V = W + s B A        the norms are those of V's rows, one magnitude m for each
    ΔW = W' − W = g ∘ s B A + (g − 1) ∘ W,  g = m / ‖V‖

W is (out, in) as ΔW is: a convolution flattened, an embedding's weight transposed. ΔW is of full rank in
general, so it is held as it is, beside an identity: min(out, in) units, whatever the rank of B A.

Source: Liu et al. 2024, https://arxiv.org/abs/2402.09353; as PEFT's layers merge it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from loramerge.core.lowrank import LowRank
from loramerge.errors import BadTensor, UnsupportedAdapter

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.adapter import Adapter
    from loramerge.formats._base import Base, Weight


def has_dora(adapter: Adapter) -> bool:
    """Whether any of its updates has a DoRA magnitude."""
    return any(spec.dora for spec in adapter.modules.values())


def with_base(adapter: Adapter, base: Base) -> Adapter:
    """The adapter with its DoRA updates exact: plain updates that hold more units than their rank. Reads headers only.

    Raises what `Base.weights` raises, and UnsupportedAdapter where LoRA has biases under DoRA, which nobody
    defines (PEFT refuses the two together).
    """
    dora = [spec for spec in adapter.modules.values() if spec.dora]
    if any(spec.bias for spec in dora):
        raise UnsupportedAdapter(
            "LoRA's own biases have no meaning under DoRA.", where=adapter.name, hint="--dora factors"
        )
    weights = base.weights(dora, conv1d=bool(adapter.config.get("fan_in_fan_out"))) if dora else {}
    magnitudes = {spec.module: key for key, spec in adapter.extras.items() if spec.kind == "magnitude"}
    exact = {spec.name: replace(spec, dora=False, units=min(spec.shape)) for spec in dora}
    return replace(
        adapter,
        modules={name: exact.get(name, spec) for name, spec in adapter.modules.items()},
        loader=partial(_load, adapter, weights, magnitudes),
        arrays=None if dora else adapter.arrays,
        extras={key: spec for key, spec in adapter.extras.items() if spec.kind != "magnitude"},
    )


def _load(adapter: Adapter, weights: Mapping[str, Weight], magnitudes: Mapping[str, str], module: str) -> LowRank:
    update = adapter.load(module)
    if module not in weights:
        return update
    return exact(update, adapter.load_extra(magnitudes[module]), weights[module])


def exact(update: LowRank, magnitude: Tensor, weight: Weight) -> LowRank:
    """ΔW of DoRA in float64, scale 1, with min(out, in) units.

    Reads the weight twice, a tile at a time; holds out · in numbers in float64 for the result, and min(out, in)²
    of the identity beside it. Raises BadTensor where a row of V is zero and its magnitude is not.
    """
    import torch

    flat = update.to(dtype=torch.float64).plain()
    b, a, m = flat.b * flat.scale, flat.a, magnitude.flatten().to(torch.float64)
    squares = torch.zeros_like(m)
    for (rows, columns), tile in weight.tiles():
        squares[rows] += torch.addmm(tile, b[rows], a[:, columns]).square().sum(1)
    lost = int(((squares == 0) & (m != 0)).sum())
    if lost:
        raise BadTensor(
            f"{weight.key} and its update cancel to zero in {lost:,} rows, which have no direction then.",
            where=str(weight.file),
            hint="--base with the base model that the adapter was trained on",
        )
    gain = torch.where(squares > 0, m / squares.sqrt(), 0.0)[:, None]
    delta = torch.empty(update.shape, dtype=torch.float64)
    for (rows, columns), tile in weight.tiles():
        delta[rows, columns] = torch.addmm(tile * (gain[rows] - 1), b[rows] * gain[rows], a[:, columns])
    one = torch.eye(min(update.shape), dtype=torch.float64)
    return LowRank(b=one, a=delta) if delta.shape[0] < delta.shape[1] else LowRank(b=delta, a=one)
