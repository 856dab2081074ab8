"""Statistics on disk: a safetensors file of `<kind>.<module>`, float32, that says what it is.

Its metadata has `loramerge: statistics`, the base, the adapter (if any) and the number of tokens.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from loramerge.core.adapter import DTYPE_BYTES
from loramerge.core.statistics import KINDS, Statistics
from loramerge.errors import BadConfig, BadTensor, LoramergeError
from loramerge.formats import _tensors
from loramerge.formats._stream import write_stream

if TYPE_CHECKING:
    from torch import Tensor

Shapes = Mapping[tuple[str, str], tuple[int, ...]]

_MARK = ("loramerge", "statistics")
_ASYMMETRY = 1e-4
"""How far a Gram matrix may be from its transpose, as a share of its largest element: half precision rounds so far."""


def read_statistics(path: Path, name: str | None = None) -> Statistics:
    """The statistics in a file; reads its header only.

    Raises FormatError for what is no safetensors file, BadConfig for one that holds something else,
    BadTensor for a tensor of a wrong name, type or shape. Loading raises BadTensor for numbers that
    cannot be: NaN, a Gram matrix that is not symmetric, a negative mean of squares.
    """
    header = _tensors.read_header(path)
    if header.metadata.get(_MARK[0]) != _MARK[1]:
        raise BadConfig(
            "This file holds no statistics.", where=str(path), hint="loramerge stats REF --base DIR --text FILE"
        )
    shapes = dict(_shape(key, entry, str(path)) for key, entry in header.tensors.items())
    _check_sides(shapes, str(path))
    return Statistics(
        name=name or path.stem,
        shapes=shapes,
        loader=partial(_load, path),
        base=header.metadata.get("base"),
        adapter=header.metadata.get("adapter"),
        tokens=_tokens(header.metadata.get("tokens"), str(path)),
    )


def write_statistics(
    path: Path,
    shapes: Shapes,
    tensors: Iterable[tuple[str, str, Tensor]],
    *,
    base: str | None = None,
    adapter: str | None = None,
    tokens: int | None = None,
) -> None:
    """Write `(kind, module, tensor)` as they come, each of `shapes` once; the file appears when all is written.

    The bytes depend on nothing but the arguments. Raises BadTensor for numbers that are not finite, and
    LoramergeError where the file cannot be written; an old file is as it was then.
    """
    import torch

    said = {_MARK[0]: _MARK[1], "base": base, "adapter": adapter, "tokens": None if tokens is None else str(tokens)}
    bounds = {f"{kind}.{module}": ("F32", shape) for (kind, module), shape in shapes.items()}
    named = ((f"{kind}.{module}", tensor.to(torch.float32)) for kind, module, tensor in tensors)
    rows = ((name, _tensors.finite(tensor, name, str(path))) for name, tensor in named)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write_stream(temporary, bounds, rows, {key: value for key, value in said.items() if value is not None})
        temporary.replace(path)
    except OSError as error:
        raise LoramergeError(
            f"The statistics cannot be written: {error.strerror or error}. Nothing is left of them.",
            where=str(path),
            hint="-o on a disk with room where you may write",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _shape(key: str, entry: _tensors.Entry, where: str) -> tuple[tuple[str, str], tuple[int, ...]]:
    kind, _, module = key.partition(".")
    if kind not in KINDS or not module:
        raise BadTensor(f"{key} is not called KIND.MODULE.", where=where, hint=f"KIND is {', '.join(KINDS)}")
    if entry.dtype not in DTYPE_BYTES:
        raise BadTensor(f"{key} is stored as {entry.dtype}.", where=where, hint=", ".join(DTYPE_BYTES))
    square = kind == "grams"
    if len(entry.shape) != 1 + square or len(set(entry.shape)) != 1:
        wanted = "a square matrix" if square else "a vector"
        raise BadTensor(f"{key} is not {wanted}: {entry.shape}.", where=where)
    return (kind, module), entry.shape


def _check_sides(shapes: Shapes, where: str) -> None:
    for (kind, module), shape in shapes.items():
        other = shapes.get(("grams", module), shape)
        if kind == "fisher_in" and shape[0] != other[0]:
            raise BadTensor(f"{module} has {other[0]} inputs in one tensor and {shape[0]} in another.", where=where)


def _tokens(text: str | None, where: str) -> int | None:
    if text is None or (text.isascii() and text.isdigit() and len(text) < 19):
        return None if text is None else int(text)
    raise BadConfig(f"The number of tokens is {text[:40]!r}.", where=where)


def _load(path: Path, kind: str, module: str) -> Tensor:
    import torch

    key = f"{kind}.{module}"
    found = _tensors.load(path, key).to(torch.float64)
    squares = found.diagonal() if kind == "grams" else found
    if (squares < 0).any():
        raise BadTensor(f"{key} has negative means of squares.", where=str(path), hint="collect it again")
    if kind == "grams" and (found - found.T).abs().max() > _ASYMMETRY * found.abs().max():
        raise BadTensor(f"{key} is not symmetric, as a Gram matrix is.", where=str(path), hint="collect it again")
    return found
