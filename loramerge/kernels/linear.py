"""A linear layer and the updates of its rows: x Wᵀ + bias + scale · B A x."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loramerge.kernels import dispatch, grouped

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.kernels.dispatch import Backend
    from loramerge.kernels.pack import Pack, Segments


def reference(x: Tensor, weight: Tensor, bias: Tensor | None, pack: Pack, segments: Segments) -> Tensor:
    """The definition; x (T, in), weight (out, in), bias (out,) -> (T, out)."""
    y = x @ weight.T + grouped.reference(x, pack, segments)
    return y if bias is None else y + bias


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pack: Pack,
    segments: Segments,
    *,
    backend: Backend | None = None,
    fused: bool | None = None,
) -> Tensor:
    """What `reference` gives: the library's product and `grouped.add_`, or both in one kernel where that was faster.

    `fused` overrides `dispatch.FUSED`, the devices on which it was measured. Raises ShapeMismatch.
    """
    import torch
    from torch.nn.functional import linear as base

    device = torch.cuda.get_device_name(x.device) if x.is_cuda else "cpu"
    if dispatch.fuses(device, x.dtype, len(x), grouped.rank(pack.starts, segments), fused):
        from loramerge.kernels._triton import base_plus_lora

        grouped.check([(len(x), len(weight))], x, pack.alone, segments)
        return base_plus_lora.launch(x, weight, bias, pack.alone, segments)
    return grouped.add_(base(x, weight, bias), x, pack, segments, backend=backend)
