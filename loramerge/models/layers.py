"""A layer as a matrix sees it: the rows that W multiplies, and the rows that come out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

PLAIN, CONVOLUTION, EMBEDDING = "plain", "convolution", "embedding"


def base_of(module: nn.Module) -> Any:
    """The layer itself; PEFT puts an adapted one into another."""
    return getattr(module, "base_layer", module)


def kind_of(module: nn.Module) -> str | None:
    """PLAIN, CONVOLUTION or EMBEDDING; None for a layer whose inputs are not rows of one matrix.

    PLAIN is torch's Linear and GPT-2's Conv1D. Convolutions in groups, in three dimensions or with other
    padding than zeros are None.
    """
    from torch import nn

    layer = base_of(module)
    if isinstance(layer, nn.Linear) or type(layer).__name__ == "Conv1D":
        return PLAIN
    if isinstance(layer, nn.Embedding):
        return EMBEDDING
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return CONVOLUTION if plain else None
    return None


def shape_of(module: nn.Module) -> tuple[int, int]:
    """(out, in) of W as LoRA's factors have it: in counts the kernel, and an embedding's is the vocabulary."""
    layer = base_of(module)
    first, *rest = layer.weight.shape
    if kind_of(module) == EMBEDDING or type(layer).__name__ == "Conv1D":
        return int(rest[0]), int(first)
    return int(first), math.prod(rest)


def rows_in(module: nn.Module, x: Tensor) -> Tensor:
    """What W multiplies, (rows, in); of an embedding the tokens, (rows,)."""
    layer = base_of(module)
    kind = kind_of(layer)
    if kind == EMBEDDING:
        return x.flatten()
    return _patches(layer, x) if kind == CONVOLUTION else x.flatten(0, -2)


def rows_out(module: nn.Module, y: Tensor) -> Tensor:
    """What comes out, or a gradient of it, (rows, out)."""
    return (y.movedim(1, -1) if kind_of(module) == CONVOLUTION else y).flatten(0, -2)


def _patches(layer: Any, x: Tensor) -> Tensor:
    """(n, channels, *places) to (n · places, channels · kernel), in the order of a flattened weight."""
    import torch.nn.functional as F  # noqa: N812

    kernel, dilation, padding, stride = layer.kernel_size, layer.dilation, layer.padding, layer.stride
    if x.ndim == 3:  # as pictures of one line
        x = x.unsqueeze(2)
        kernel, dilation, padding, stride = (1, *kernel), (1, *dilation), (0, *padding), (1, *stride)
    found: Tensor = F.unfold(x, kernel, dilation=dilation, padding=padding, stride=stride)
    return found.transpose(1, 2).flatten(0, 1)
