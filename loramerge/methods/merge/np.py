"""np: NP-LoRA. The first adapter whole, each later one kept out of the directions of those before it.

    ΔW = w₁ΔW₁ + Σ_{i>1} wᵢ ΔWᵢ (I − μ/(1+μ) VᵢVᵢᵀ),   wᵢ = 1 unless said

The columns of Vᵢ are an orthonormal basis of the leading right singular directions of ΔW₁ … ΔW_{i−1}
together: directions of the module's inputs on which the earlier adapters act. Put first what must not be
disturbed: in the publication the first is a style, the second a subject.

Options
    mu       μ ≥ 0, how far a later adapter is kept out; 0 is the sum, 0.5 the publication's value, which
             removes a third; hard: all of it, μ → ∞
    k        directions of each earlier adapter that are protected, at most; 0: all it has, as published
    energy   the fewest of them that hold this share of its Σ S²; 1: all

What differs from the publication: it is for two adapters; for more, the protected directions are those of
all before. Its formula (equation 12 of version 3) and μ = 0.5 were read in a digest and an independent
implementation, which agree, not in the paper itself. Directions whose singular value is rounding are
not counted.

An adapter that lacks a module is an update of zero there: it protects nothing. LoRA's own biases are
summed: Σ wᵢ sᵢ biasᵢ.

Gauge: depends on the updates alone. Cost: O((out + in) N²), N = Σ rᵢ, and that of the truncation; no
(out, in) matrix is formed.

Source: Chen et al. 2025, https://arxiv.org/abs/2511.11051
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from loramerge.errors import BadOption
from loramerge.linalg.ranks import RankRule
from loramerge.methods import _entries
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    mu: Literal["hard"] | float = 0.5
    k: int = 0
    energy: float = 1.0

    def __post_init__(self) -> None:
        if self.mu != "hard" and not 0 <= self.mu < float("inf"):
            raise BadOption(f"mu is {self.mu}, not a number from 0 on.", hint="0.5, or hard")
        if self.k < 0:
            raise BadOption(f"k is {self.k}, below 0.", hint="4, or 0 for all directions")
        _entries.check_share("energy", self.energy, "0.9, or 1 for all directions")

    @property
    def removed(self) -> float:
        """μ/(1 + μ): the share of a protected direction that is taken out."""
        return 1.0 if self.mu == "hard" else self.mu / (1 + self.mu)


def project(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """The weighted updates, the later ones projected, in float64."""
    import torch

    parts: list[LowRank] = []
    before: LowRank | None = None
    basis: Tensor | None = None
    for update, weight in zip(updates, context.weights, strict=True):
        flat = update.to(dtype=torch.float64).plain()
        a = flat.a
        if before is not None:
            basis = _joined(basis, _leading(before, options))
            a = a - options.removed * (a @ basis.T) @ basis
        parts.append(replace(flat, a=a, scale=flat.scale * weight))
        before = flat
    return Outcome(parts, {"protected": 0 if basis is None else len(basis)})


def _leading(update: LowRank, options: Options) -> Tensor:
    """(k, in) the leading right singular directions of an update, as rows."""
    import torch

    core = torch.linalg.qr(update.b).R @ update.a
    _, values, rows = torch.linalg.svd(core, full_matrices=False)
    spectrum = values[values > _rounding(values, update.shape)].tolist()
    kept = len(spectrum)
    if kept and options.energy < 1:
        kept = RankRule("energy", options.energy).choose(spectrum, ())
    leading: Tensor = rows[: min(kept, options.k or kept)]
    return leading


def _joined(basis: Tensor | None, rows: Tensor) -> Tensor:
    """(k, in) an orthonormal basis of both, as rows; each has orthonormal rows by itself."""
    import torch

    if basis is None:
        return rows
    rest = rows - (rows @ basis.T) @ basis
    _, values, new = torch.linalg.svd(rest, full_matrices=False)
    new = new[values > max(rest.shape) * torch.finfo(rest.dtype).eps]
    # What little there was to normalise brought the basis back in with its rounding.
    new = torch.linalg.qr((new - (new @ basis.T) @ basis).T).Q.T
    return torch.cat([basis, new])


def _rounding(values: Tensor, shape: tuple[int, int]) -> float:
    """What a singular value that should be zero can come out as; zero for a matrix of zeros."""
    import torch

    return float(values.max()) * max(shape) * torch.finfo(values.dtype).eps if values.numel() else 0.0


METHOD = Method(
    project,
    Options,
    source="https://arxiv.org/abs/2511.11051",
    copies=5,
    weights="sum",
    least=2,
    ordered=True,
    breaks={
        "identity": "a copy is kept out of the directions of the first",
        "idempotence": "as identity, and it sums",
        "permutation": "the first is kept whole",
    },
)
