"""A safetensors file written while its tensors are still being computed.

The header stands before the data, and ranks that the data decides are not known when the first tensor
is written. So room is kept for the longest header there could be, and the real one is filled in at
the end, followed by spaces (which the format allows). The bytes depend on the bounds and the tensors
alone.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from loramerge.core.arrays import memory
from loramerge.formats._tensors import BITS, dtype_name

if TYPE_CHECKING:
    from torch import Tensor

Bounds = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name → dtype and shape, of which each side may turn out smaller but not larger."""


def write_stream(
    path: Path, bounds: Bounds, tensors: Iterable[tuple[str, Tensor]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write the tensors of `bounds`, torch's or numpy's, each exactly once, as they come; none is kept.

    Tensors of larger elements go before those of smaller ones, so that all are aligned. Nothing but
    {"format": "pt"} and `metadata` stands in the metadata: the same tensors give the same file.
    """
    metadata = {"format": "pt", **(metadata or {})}
    room = _room(bounds, metadata)
    with path.open("wb") as file, ExitStack() as stack:
        file.write(b" " * (8 + room))
        parts = _Parts(file, max(BITS[dtype] for dtype, _ in bounds.values()) // 8, stack)
        for name, tensor in tensors:
            dtype, shape = bounds[name]
            assert all(side <= bound for side, bound in zip(tensor.shape, shape, strict=True)), name
            assert tensor.itemsize * 8 <= BITS[dtype], name
            parts.add(name, tensor)
        entries = parts.join()
        assert entries.keys() == bounds.keys(), set(bounds) ^ set(entries)
        file.seek(0)
        file.write(room.to_bytes(8, "little") + _encode(entries, metadata))
        file.flush()
        os.fsync(file.fileno())


def _room(bounds: Bounds, metadata: Mapping[str, str]) -> int:
    """Bytes of the longest header there could be, rounded up to eight."""
    total = sum(BITS[dtype] * math.prod(shape) // 8 + 8 for dtype, shape in bounds.values())
    longest = max(BITS, key=len)
    entries = {name: _describe(longest, shape, total, total) for name, (_, shape) in bounds.items()}
    return -(-len(_encode(entries, metadata)) // 8) * 8


def _describe(dtype: str, shape: tuple[int, ...], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def _encode(entries: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    return json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()


class _Parts:
    """The data, kept apart by element size until all is there; the largest size goes into the file directly."""

    def __init__(self, file: IO[bytes], largest: int, stack: ExitStack) -> None:
        self.file = file
        self.largest = largest
        self.stack = stack
        self.parts: dict[int, IO[bytes]] = {largest: file}
        self.sizes: dict[int, int] = {}
        self.entries: dict[str, tuple[int, str, tuple[int, ...], int, int]] = {}

    def add(self, name: str, tensor: Tensor) -> None:
        size = tensor.itemsize
        assert name not in self.entries, name
        if size not in self.parts:
            folder = Path(self.file.name).parent
            self.parts[size] = self.stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        data = memory(tensor)
        self.parts[size].write(data)
        begin = self.sizes.get(size, 0)
        self.sizes[size] = begin + data.nbytes
        self.entries[name] = (size, dtype_name(tensor.dtype), tuple(tensor.shape), begin, begin + data.nbytes)

    def join(self) -> dict[str, Any]:
        """Append the parts to the file, larger elements first; returns the header's entries."""
        starts, at = {}, 0
        for size in sorted(self.parts, reverse=True):
            starts[size] = at
            at += self.sizes.get(size, 0)
            if size != self.largest:
                self.parts[size].seek(0)
                shutil.copyfileobj(self.parts[size], self.file)
        ordered = sorted(self.entries.items(), key=lambda item: (-item[1][0], item[1][3]))
        return {
            name: _describe(dtype, shape, starts[size] + begin, starts[size] + end)
            for name, (size, dtype, shape, begin, end) in ordered
        }
