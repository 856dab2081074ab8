"""Coefficient form: every candidate is a row of coefficients over the same rank-one units.

Every linear merge of some sources (weights, subsets, paths between them) is such a row, so a hundred candidates cost
no memory, and their product is one dense GEMM.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loramerge.errors import ShapeMismatch

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.kernels.pack import Pack


def reference(x: Tensor, pack: Pack, c: Tensor) -> Tensor:
    """The definition: row t of block n gives Bᵀ (c_n ∘ A x_t); c (N, R), x (T, in) in N equal blocks -> (T, out)."""
    return ((x @ pack.a.T) * c.repeat_interleave(x.shape[0] // c.shape[0], dim=0).to(x.dtype)) @ pack.b


def add_(y: Tensor, x: Tensor, pack: Pack, c: Tensor) -> Tensor:
    """y (T, out) += what `reference` gives, in place; returns y. Coefficients multiply in float32 or better.

    The products are the library's own on every device. Their bits for a row may depend on the number of rows in all
    (seen with MKL in float32 below 16 rows, in float64 below 8), as those of the base model's own products do.
    Raises ShapeMismatch.
    """
    if c.shape[1:] != pack.a.shape[:1] or not len(c) or x.shape[0] % len(c) or y.shape != (len(x), pack.b.shape[1]):
        raise ShapeMismatch(
            f"Coefficients {tuple(c.shape)} do not go with {pack.a.shape[0]} units,"
            f" rows {tuple(x.shape)} and {tuple(y.shape)}."
        )
    if not len(pack.a):
        return y
    h = x @ pack.a.T
    # A product that left the type belongs to the candidates that use it, and 0 · inf would be NaN.
    h.view(len(c), -1, c.shape[1]).mul_(c[:, None]).masked_fill_((c == 0)[:, None], 0.0)
    return y.addmm_(h, pack.b)
