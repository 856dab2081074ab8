"""What methods share that know the inputs of each adapter's own model, by Gram matrices (in, in): means of x xᵀ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loramerge.errors import BadOption

if TYPE_CHECKING:
    from torch import Tensor

_SINGULAR = 1e-10
"""Directions with less than this share of the largest are not seen: well above what rounding leaves."""


def check_share(name: str, value: float, usual: float) -> None:
    """Raises BadOption for a number outside [0, 1]."""
    if not 0 <= value <= 1:
        raise BadOption(f"{name} is {value}, outside [0, 1].", hint=f"{usual}")


def damped(gram: Tensor, alpha: float) -> Tensor:
    """α G + (1 − α) diag(G), a new matrix."""
    found = gram * alpha
    found.diagonal().copy_(gram.diagonal())
    return found


def solved(right: Tensor, gram: Tensor) -> Tensor:
    """X (rows, in) with X · gram = right as far as there is one, zero where the gram is; writes into both."""
    import torch

    # Inputs of very different size would look singular otherwise.
    root = gram.diagonal().abs().sqrt()
    back = (1 / root).where(root > 0, 0.0)
    right, even = right.mul_(back), gram.mul_(back).mul_(back[:, None])
    # An input that never came has nothing on the right either.
    even.diagonal().masked_fill_(root == 0, 1.0)
    factor, failed = torch.linalg.cholesky_ex(even)
    if not failed and float(factor.diagonal().min()) ** 2 > _SINGULAR:
        # `cholesky_solve` would copy the factor, which is the largest matrix here.
        half = torch.linalg.solve_triangular(factor, right.T, upper=False)
        found: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)
        return found.T * back
    inverse: Tensor = torch.linalg.pinv(even, rtol=_SINGULAR, hermitian=True)
    return right @ inverse * back
