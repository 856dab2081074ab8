"""Updates as dense matrices, to compare them by their numbers."""

from __future__ import annotations

import torch

from loramerge.core.adapter import Adapter


def dense(adapter: Adapter, name: str) -> torch.Tensor:
    """An adapter's update of a module, (out, in), in float32."""
    return adapter.load(name).to(dtype=torch.float32).dense()


def distance(got: torch.Tensor, want: torch.Tensor) -> float:
    """‖got − want‖ / ‖want‖ in Frobenius norm."""
    got, want = torch.as_tensor(got), torch.as_tensor(want)
    return float((got - want).norm() / want.norm())
