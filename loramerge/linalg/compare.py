"""How alike some updates of one module are, pair by pair, from their factors. No (out, in) matrix is formed.

For X = ΔWᵢ and Y = ΔWⱼ, of one module or of several taken as one block-diagonal matrix:

    cosine             ⟨X, Y⟩ / (‖X‖ ‖Y‖), 0 where one is zero
    row overlap        ‖Vᵢᵀ Vⱼ‖² / min(kᵢ, kⱼ): the mean squared cosine of the principal angles between the row
                       spaces; k is the numerical rank, V (in, k) an orthonormal basis
    column overlap     the same of the column spaces
    chances            what these overlaps are, in the mean, of random subspaces: kᵢ kⱼ / in and kᵢ kⱼ / out for ‖·‖²
    sign conflict      the share of the entries in which the signs differ, of those where neither is 0
    weighted conflict  the same with each entry counted |x| |y| times: (1 − Σxy / Σ|xy|) / 2
    norm ratio         ‖X‖ / ‖Y‖

All but the conflicts are exact. Those are of SAMPLE entries a module, drawn evenly with replacement and a
seed of their own, so that a pair's do not depend on who else is compared; of all entries where there are no
more than SAMPLE. Standard errors are given with them (of a ratio of sums, to first order): at most
½ / √4096 = 0.008 for the plain share of one module, and less for more modules.

LoRA's own biases are not looked at.

Source of the overlap: Björck & Golub 1973, https://doi.org/10.1090/S0025-5718-1973-0348991-3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loramerge.core.lowrank import common_shape
from loramerge.linalg.measure import numerical_rank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from loramerge.core.lowrank import LowRank

    Floats = NDArray[np.float64]

Sums = dict[str, "Tensor"]
"""What all figures follow from and what adds up over modules: (n, n) matrices in float64, by name.

"inner" are inner products; "rows" and "columns" squared cosines of principal angles, "row_chance" and
"column_chance" what they would be at random, "angles" how many there are. "sign" and "weighted" begin the
names of tallies of entries: those whose signs "differ" and "agree", and the squares that sampling errors are
made of.
"""

SAMPLE = 4096
"""Entries of each module that the sign conflicts are taken from."""


def likeness(deltas: Sequence[LowRank]) -> Sums:
    """The sums of n updates of one shape; each is loaded once.

    Time O((out + in) N² + SAMPLE (N + n²)) with N = Σ rᵢ, memory O((out + in) N + SAMPLE n).
    """
    import torch

    directions, entries = [], []
    for delta in deltas:
        flat = delta.to(dtype=torch.float64).folded()
        directions.append(_directions(flat))
        entries.append(_entries(flat))
    out, in_ = common_shape(deltas)
    drawn = torch.stack(entries)
    return _angles(directions) | _tally("sign", drawn.sign(), out * in_) | _tally("weighted", drawn, out * in_)


def add(total: Sums, part: Sums, members: Sequence[int], n: int) -> None:
    """Take one more module into the sums of n adapters; only `members` have it, to the others it is zero."""
    import torch

    at = torch.tensor(members)
    for name, matrix in part.items():
        whole = total.setdefault(name, matrix.new_zeros(n, n))
        whole[at[:, None], at] += matrix


def norms(sums: Sums) -> Tensor:
    """(n,) the Frobenius norms."""
    return sums["inner"].diagonal().sqrt()


def figures(sums: Sums) -> Sums:
    """The figures by name, each (n, n); NaN (inf for a norm ratio) where there is nothing to compare."""
    sizes = norms(sums)
    cosine = (sums["inner"] / (sizes[:, None] * sizes)).nan_to_num(0.0).clamp(-1, 1)
    overlaps = {
        "row_overlap": sums["rows"] / sums["angles"],
        "column_overlap": sums["columns"] / sums["angles"],
        "row_chance": sums["row_chance"] / sums["angles"],
        "column_chance": sums["column_chance"] / sums["angles"],
    }
    conflicts = _conflict(sums, "sign") | _conflict(sums, "weighted")
    return {"cosine": cosine, **overlaps, **conflicts, "norm_ratio": sizes[:, None] / sizes}


def linkage(cosine: Tensor) -> Floats:
    """(n − 1, 4) the tree that average linkage makes of the distances 1 − cosine, as SciPy writes trees."""
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import squareform

    distances = (1 - cosine).clamp(min=0).fill_diagonal_(0.0).cpu().numpy()
    made: Floats = hierarchy.linkage(squareform(distances, checks=False), "average")
    return made


def _directions(flat: LowRank) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """ΔW = Σ_j s_j u_j v_jᵀ: u (r, out), s (r,), v (r, in), and which s stand above rounding."""
    import torch

    left, right = torch.linalg.qr(flat.b), torch.linalg.qr(flat.a.T)
    u, s, vt = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
    real = torch.arange(len(s)) < numerical_rank(s, flat.shape)
    return (left.Q @ u).T, s, vt @ right.Q.T, real


def _angles(directions: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Sums:
    import torch

    n = len(directions)
    u, s, v, real = (torch.cat(parts) for parts in zip(*directions, strict=True))
    owner = torch.repeat_interleave(torch.tensor([len(one[1]) for one in directions]))
    found = {name: torch.zeros(n, n, dtype=torch.float64) for name in ("inner", "rows", "columns")}
    start = 0
    for i, (mine, sizes, other, kept) in enumerate(directions):
        left, right = mine @ u[start:].T, other @ v[start:].T
        whose, both = owner[start:], kept[:, None] & real[start:]
        found["inner"][i].index_add_(0, whose, sizes @ (left * right) * s[start:])
        found["columns"][i].index_add_(0, whose, (left.square() * both).sum(0))
        found["rows"][i].index_add_(0, whose, (right.square() * both).sum(0))
        start += len(sizes)
    ranks = torch.zeros(n, dtype=torch.float64).index_add_(0, owner, real.double())
    product = ranks[:, None] * ranks
    return {name: matrix + matrix.triu(1).T for name, matrix in found.items()} | {
        "angles": torch.minimum(ranks[:, None], ranks),
        "row_chance": product / v.shape[1],
        "column_chance": product / u.shape[1],
    }


def _entries(flat: LowRank) -> Tensor:
    """Some entries of ΔW, or all: the same places for all updates of a shape."""
    import torch

    out, in_ = flat.shape
    if out * in_ <= SAMPLE:
        return (flat.b @ flat.a).flatten()
    seeded = torch.Generator().manual_seed(0)
    rows, columns = (torch.randint(side, (SAMPLE,), generator=seeded) for side in (out, in_))
    return (flat.b[rows] * flat.a.T[columns]).sum(1)


def _tally(name: str, entries: Tensor, size: int) -> Sums:
    """Σ |x||y| over the entries where signs differ and where they agree, as of all `size` entries there are."""
    share = size / entries.shape[1]
    sampled = entries.shape[1] < size
    found = {}
    for what, values in {"": entries, "_squares": entries * entries.abs()}.items():
        signed, whole = values @ values.T, values.abs() @ values.abs().T
        # Squares are the variance of what was sampled, and where all was taken there is none.
        scale = share if not what else share**2 * sampled
        found[f"{name}_differ{what}"] = (whole - signed).clamp(min=0) / 2 * scale
        found[f"{name}_agree{what}"] = (whole + signed).clamp(min=0) / 2 * scale
    return found


def _conflict(sums: Sums, name: str) -> Sums:
    differ, whole = sums[f"{name}_differ"], sums[f"{name}_differ"] + sums[f"{name}_agree"]
    share = differ / whole
    variance = sums[f"{name}_differ_squares"] * (1 - share) ** 2 + sums[f"{name}_agree_squares"] * share**2
    return {f"{name}_conflict": share, f"{name}_conflict_error": variance.sqrt() / whole}
