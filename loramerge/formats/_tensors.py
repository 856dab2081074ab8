"""Safetensors files: a header read and checked by us, tensors loaded one at a time.

Keys that stand twice, gaps and overlaps, empty tensors with a side of 2⁴⁰, path-like names, NaN and
infinity are refused. Checking needs the header's bytes only, so it works for files that are still remote.
Tensors are read, not mapped: pages of a mapped file count as this process's memory for as long as it is open.

Source of the layout: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.core.arrays import FLOATS, is_finite, is_tensor, memory, namespace, numpy_type
from loramerge.errors import BadTensor, FormatError
from loramerge.formats import _json

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_HEADER = 25_000_000
MAX_TENSORS = 200_000
MAX_NAME = 512
MAX_NDIM = 5
MAX_METADATA = 1_000_000

BITS = {"BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64, "C64": 64}
BITS |= {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8}
BITS |= {"F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4}
"""The element types a safetensors file may have, and their sizes."""

_TORCH = {**FLOATS, "BOOL": "bool", "C64": "complex64"}
_TORCH |= {f"{kind}{bits}": f"{word}{bits}" for kind, word in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)}
_TORCH |= {"F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn", "F8_E8M0": "float8_e8m0fnu"}
_TORCH |= {"F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E4M3FNUZ": "float8_e4m3fnuz"}
_SAFETENSORS = {theirs: ours for ours, theirs in _TORCH.items()}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor as a header describes it; `begin` and `end` count bytes from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """All tensors of a file, in the header's order, and its free-form metadata. `where` names the file."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    where: str


def header_length(start: bytes, file_size: int, where: str) -> int:
    """The header's length from the first eight bytes; raises FormatError where it cannot be one."""
    if len(start) < 8:
        raise FormatError(f"A file of {file_size} bytes is no safetensors file.", where=where, hint=_AGAIN)
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER:
        raise FormatError(f"The header claims {length:,} bytes; {MAX_HEADER:,} is the limit.", where=where)
    if length > file_size - 8:
        raise FormatError(
            f"The header claims {length:,} bytes and the file has {file_size:,}: cut off, or no safetensors file.",
            where=where,
            hint=_AGAIN,
        )
    return length


def parse_header(data: bytes, file_size: int, where: str = "the weights") -> Header:
    """The checked header of a file of `file_size` bytes that begins with `data`.

    Raises BadTensor for a tensor that cannot be (name, type, shape, place), FormatError for a header
    that is none.
    """
    length = header_length(data[:8], file_size, where)
    if len(data) < 8 + length:
        raise FormatError(f"The header has {length:,} bytes, {len(data) - 8:,} are here.", where=where, hint=_AGAIN)
    try:
        tensors, metadata = _parsed(data[8 : 8 + length], file_size - 8 - length)
    except FormatError as error:
        raise type(error)(error.message, where=where, hint=error.hint) from None
    return Header(tensors, metadata, where)


@lru_cache(maxsize=8)
def _parsed(text: bytes, size: int) -> tuple[Mapping[str, Entry], Mapping[str, str]]:
    """What a header says of `size` bytes; kept, as adapters that were trained alike have the same one."""
    fields = _json.parse(text, where="", error=FormatError)
    metadata = _metadata(fields.pop("__metadata__", {}))
    if len(fields) > MAX_TENSORS:
        raise FormatError(f"{len(fields):,} tensors; {MAX_TENSORS:,} is the limit.")
    tensors = {name: _entry(name, value) for name, value in fields.items()}
    _check_places(tensors, size)
    return tensors, metadata


def read_header(path: Path) -> Header:
    """The checked header of a file; reads nothing behind it. Raises as `parse_header`."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(8)
            return parse_header(start + file.read(header_length(start, size, str(path))), size, str(path))
    except OSError as failure:
        raise FormatError(f"The file cannot be read: {failure.strerror}.", where=str(path)) from None


def check_name(name: str, where: str) -> None:
    """Raises BadTensor for a name nobody gives a tensor: too long, unprintable, or a path out of somewhere."""
    hostile = not name.isprintable() or "\\" in name or name.startswith("/") or ".." in name.split("/")
    if not name or len(name) > MAX_NAME or hostile:
        raise BadTensor(f"No tensor may be called {name[:80]!r}.", where=where)


def check_shape(name: str, shape: tuple[int, ...], where: str) -> None:
    """Raises BadTensor for a tensor without elements or with more than five sides."""
    if len(shape) > MAX_NDIM:
        raise BadTensor(f"{name} has {len(shape)} dimensions; {MAX_NDIM} is the limit.", where=where)
    if 0 in shape:
        raise BadTensor(f"{name} is empty: its shape is {shape}.", where=where, hint=UNGATHERED)


UNGATHERED = "save again with the parameters gathered: they were still spread over devices (DeepSpeed ZeRO-3, FSDP)"
_AGAIN = "fetch the file again"
_EARLIER = "take an earlier checkpoint of this adapter, or leave it out"


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FormatError("The header's metadata is not a table of texts.")
    if sum(len(key) + len(text) for key, text in value.items()) > MAX_METADATA:
        raise FormatError(f"The header's metadata is longer than {MAX_METADATA:,} characters.")
    return value


def _entry(name: str, value: Any) -> Entry:
    check_name(name, "")
    fields = value if isinstance(value, dict) else {}
    if fields.keys() != {"dtype", "shape", "data_offsets"}:
        raise BadTensor(f"{name} is not described by dtype, shape and data_offsets.")
    dtype, shape, places = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not (_numbers(shape) and _numbers(places) and len(places) == 2):
        raise BadTensor(f"{name} has a shape or a place that is no list of numbers.")
    if not isinstance(dtype, str) or dtype not in BITS:
        raise BadTensor(f"{name} has an unknown dtype, {dtype!r}.")
    entry = Entry(dtype, tuple(shape), *places)
    check_shape(name, entry.shape, "")
    if math.prod(entry.shape) * BITS[dtype] != (entry.end - entry.begin) * 8:
        raise BadTensor(f"{name} of shape {entry.shape} in {dtype} cannot take {entry.end - entry.begin:,} bytes.")
    return entry


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _check_places(tensors: Mapping[str, Entry], size: int) -> None:
    end = 0
    for name, entry in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != end:
            fault = "overlaps the tensor before it" if entry.begin < end else "leaves a gap before it"
            raise BadTensor(f"{name} {fault} (byte {entry.begin:,}).")
        end = entry.end
    if end != size:
        fault = "is cut off" if end > size else "goes on behind them"
        raise FormatError(f"The tensors end at byte {end:,}, and the file {fault}.", hint=_AGAIN)


def load(path: Path, name: str) -> Tensor:
    """One tensor, as stored. Raises BadTensor where it holds NaN or infinity, FormatError where it cannot be read."""
    return finite(_read(path, name, slice(None)), name, str(path))


def load_array(path: Path, name: str) -> Tensor:
    """As `load`, as a numpy array."""
    return finite(_read(path, name, slice(None), _array), name, str(path))


def load_rows(path: Path, name: str, rows: slice, *, hint: str) -> Tensor:
    """Some rows of a tensor, as stored; nothing else of it is read. Raises as `load`, with a hint of one's own."""
    return finite(_read(path, name, rows), f"{name}[{rows.start}:{rows.stop}]", str(path), hint)


def _tensor(shape: tuple[int, ...], dtype: str) -> Tensor:
    import torch

    return torch.empty(shape, dtype=torch_dtype(dtype))


def _array(shape: tuple[int, ...], dtype: str) -> Tensor:
    import numpy as np

    return np.empty(shape, numpy_type(_TORCH[dtype]))  # type: ignore[return-value]


def _read(path: Path, name: str, rows: slice, new: Callable[[tuple[int, ...], str], Tensor] = _tensor) -> Tensor:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            start, tensors = _layout(str(path), status.st_size, status.st_mtime_ns)
            shape, begin, end = _part(tensors[name], rows)
            array = new(shape, tensors[name].dtype)
            file.seek(start + begin)
            if file.readinto(memory(array)) < end - begin:
                raise FormatError(f"{name} is cut off.", where=str(path), hint=_AGAIN)
            return array
    except (OSError, KeyError) as failure:
        raise FormatError(f"{name} cannot be read: {failure}.", where=str(path)) from None


@lru_cache(maxsize=256)
def _layout(path: str, size: int, changed: int) -> tuple[int, Mapping[str, Entry]]:
    """Where a file's data begins, and its tensors; kept, so that the header is not parsed for each of them."""
    tensors = read_header(Path(path)).tensors
    return size - max((entry.end for entry in tensors.values()), default=0), tensors


def _part(entry: Entry, rows: slice) -> tuple[tuple[int, ...], int, int]:
    """The shape and the place of some rows of a tensor."""
    if rows == slice(None):
        return entry.shape, entry.begin, entry.end
    height, *rest = entry.shape
    first, last, _ = rows.indices(height)
    width = (entry.end - entry.begin) // height
    return (last - first, *rest), entry.begin + first * width, entry.begin + last * width


def finite(tensor: Tensor, name: str, where: str, hint: str = _EARLIER) -> Tensor:
    """The tensor itself; raises BadTensor with the number of NaN and infinite elements, if there are any."""
    plain = tensor
    if is_tensor(tensor):
        if not tensor.is_floating_point():
            return tensor
        plain = tensor if tensor.itemsize > 1 else tensor.float()
    if not is_finite(plain):
        count = int((~namespace(plain).isfinite(plain)).sum())
        raise BadTensor(
            f"{name} holds {count:,} elements that are NaN or infinite.",
            where=where,
            hint=hint,
        )
    return tensor


def torch_dtype(name: str) -> torch.dtype:
    """torch's type of a safetensors type."""
    import torch

    dtype: torch.dtype = getattr(torch, _TORCH[name])
    return dtype


def dtype_name(dtype: Any) -> str:
    """The name in safetensors of a type of torch's or numpy's; raises KeyError for one that has none."""
    return _SAFETENSORS[str(dtype).removeprefix("torch.")]
