"""One algebra for numpy arrays and torch tensors.

torch takes longer to import than most merges take to run. So what needs no more than sums, products and
eigenvectors is written for both: with operators, and with functions of one name and meaning in both, called
with positional arguments. Nothing here imports torch for an array that is none of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""safetensors' floating types that factors may have, and their names in torch and numpy."""

_FOLD = 32
"""Rows that are laid side by side, where numpy looks for extremes."""

_ROWS = 256
"""Rows of a matrix that numpy adds a product to at once."""

EPS = 2.0**-52
"""The rounding of float64, relative."""


def is_tensor(array: Any) -> bool:
    """Whether it is torch's and not numpy's."""
    return type(array).__module__.partition(".")[0] == "torch"


def namespace(array: Any) -> Any:
    """The library whose array it is."""
    if is_tensor(array):
        import torch

        return torch
    import numpy

    return numpy


def exact(array: Tensor) -> Tensor:
    """The array in float64; itself where it is that already."""
    return array.double() if is_tensor(array) else array.astype("float64", copy=False)  # type: ignore[attr-defined]


def numbers(values: Sequence[float], like: Tensor) -> Tensor:
    """Some numbers as a float64 array of the same library, on the same device."""
    if is_tensor(like):
        return like.new_tensor(values, dtype=namespace(like).float64)
    import numpy as np

    return np.array(values, dtype=np.float64)  # type: ignore[return-value]


def lengths(array: Tensor, axis: int) -> Tensor:
    """The Euclidean lengths along an axis of a matrix."""
    xp = namespace(array)
    if is_tensor(array) and axis == 1:
        return xp.linalg.vector_norm(array, dim=1)  # type: ignore[no-any-return]
    # torch's norm along the first side takes several times as long.
    return xp.sqrt(xp.square(array).sum(axis))  # type: ignore[no-any-return]


def cast(array: Tensor, dtype: str) -> Tensor:
    """The array in one of FLOATS; what is too large for it becomes infinite."""
    if is_tensor(array):
        return array.to(getattr(namespace(array), FLOATS[dtype]))
    import numpy as np

    with np.errstate(over="ignore"):
        return array.astype(numpy_type(FLOATS[dtype]), copy=False)  # type: ignore[attr-defined,no-any-return]


def numpy_type(name: str) -> Any:
    """numpy's type of that name, or one of those that numpy lacks: bfloat16 and the narrow ones."""
    import ml_dtypes
    import numpy as np

    return np.dtype(getattr(ml_dtypes, name, name))


def is_finite(array: Tensor) -> bool:
    """Whether no element is NaN or infinite."""
    if is_tensor(array):
        # Their sum is not, or, where finite ones overflow it, each is not.
        return math.isfinite(array.sum()) or bool(array.isfinite().all())
    import numpy as np

    if array.dtype == numpy_type("bfloat16"):
        # All bits of the exponent are set; a sum of the bits' own type is many times slower.
        return not ((array.view(np.uint16) & 0x7F80) == 0x7F80).any()  # type: ignore[call-overload]
    return bool(np.isfinite(array).all())


def zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros of another array's library, type and device."""
    if is_tensor(like):
        return like.new_zeros(shape)
    import numpy as np

    return np.zeros(shape, like.dtype)  # type: ignore[call-overload,no-any-return]


def memory(array: Tensor) -> memoryview:
    """The bytes of an array on the CPU, in the order of its elements."""
    if is_tensor(array):
        array = array.detach().cpu().contiguous().reshape(-1).view(namespace(array).uint8).numpy()  # type: ignore[assignment]
        return array.data  # type: ignore[return-value]
    import numpy as np

    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def tensor(array: Tensor) -> Tensor:
    """The array as torch's, in the same memory."""
    if is_tensor(array):
        return array
    import numpy as np
    import torch

    if array.dtype == numpy_type("bfloat16"):
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)  # type: ignore[call-overload]
    return torch.from_numpy(array)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left · right, without a second matrix of its size."""
    if is_tensor(total):
        total.addmm_(left, right)
        return
    for start in range(0, len(total), _ROWS):
        total[start : start + _ROWS] += left[start : start + _ROWS] @ right


def extremes(columns: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest entry of each column."""
    xp = namespace(columns)
    rows, width = columns.shape
    if not is_tensor(columns) and (folded := rows // _FOLD):
        # numpy goes through a narrow matrix row by row; side by side, its rows are a wide one.
        wide, rest = columns[: folded * _FOLD].reshape(folded, -1), columns[folded * _FOLD :]
        low, top = (f(wide, 0).reshape(_FOLD, width) for f in (xp.amin, xp.amax))
        columns = xp.concatenate([low, top, rest])
    return xp.amin(columns, 0), xp.amax(columns, 0)
