"""What each program of a kernel works on, and how large it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from triton.runtime import JITFunction

from loramerge.errors import BadOption

if TYPE_CHECKING:
    from torch import Tensor, device

    from loramerge.kernels.pack import Segments, Slices

SHARED, PER_SLICE = 4, 3
"""Columns of a tile: first row, rows, first unit in A, units; for each slice: column of h, first unit in B, rank."""

_SMALLEST = 16
_CHUNK = 1024
_MOST_PARTS = 8


@dataclass(frozen=True)
class Shape:
    """Sides of the tiles, all powers of two from 16 on (what tensor cores take), warps and stages of a program."""

    m: int = 32
    n: int = 128
    k: int = 128
    warps: int = 4
    stages: int = 3

    def __post_init__(self) -> None:
        for side in (self.m, self.n, self.k):
            if side < _SMALLEST or side & (side - 1):
                raise BadOption(f"A tile's side of {side} is no power of two from {_SMALLEST} on.")

    @property
    def options(self) -> dict[str, Any]:
        """What a launch takes beside the sides. Products and sums fuse whatever a version of Triton does by itself."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


# By device and bytes of an element. None has been tuned on a GPU: sides are what prior work settled on for such sizes,
# and smaller in float32, which no tensor core multiplies exactly.
GROUPED = {("cpu", 2): Shape(k=256), ("cpu", 4): Shape(k=256), ("cuda", 2): Shape(), ("cuda", 4): Shape(k=64)}
FUSED = {
    ("cpu", 2): Shape(k=256),
    ("cpu", 4): Shape(k=256),
    ("cuda", 2): Shape(m=128, n=128, k=64, warps=8),
    ("cuda", 4): Shape(m=64, n=64, k=32),
}


def padded(rank: int) -> int:
    """The tile side that holds this many units: the next power of two, 16 or more."""
    return max(_SMALLEST, 1 << (rank - 1).bit_length())


def parts(inputs: int, block: int) -> tuple[int, int]:
    """How the sum over the inputs is split: (parts, inputs of each), whatever the rows are.

    Parts of about 1024 inputs, at most 8, each a multiple of the block: a decode step of few rows then has enough
    programs, and a long one reads few partial sums.
    """
    wanted = min(_MOST_PARTS, -(-inputs // _CHUNK))
    chunk = -(-inputs // (wanted * block)) * block
    return -(-inputs // chunk), chunk


def interprets(kernel: Any) -> bool:
    """Whether a kernel runs in the interpreter, which multiplies bfloat16 as bit patterns: upcast there."""
    return not isinstance(kernel, JITFunction)


@lru_cache(maxsize=64)
def table(
    starts: tuple[int, ...],
    parts: tuple[tuple[int, ...], ...],
    segments: Segments,
    side: int,
    device: device,
    everything: bool = False,
) -> tuple[Tensor, Tensor]:
    """Tiles of at most `side` rows: int32 (tiles, columns) and scales (tiles,) in float32.

    With `everything` rows without an adapter have tiles too, of rank 0. Kept, since every module of a pass with the
    same ranks asks for the same.
    """
    import torch

    rows, scales = [], []
    for low, high, update, scale in _covered(segments) if everything else segments.joined:
        entry = _entry(starts, parts, update)
        if not entry[1] and not everything:
            continue
        for first in range(low, high, side):
            rows.append([first, min(side, high - first), *entry])
            scales.append(scale)
    columns = SHARED + PER_SLICE * len(parts)
    return (
        torch.tensor(rows, dtype=torch.int32).reshape(-1, columns).to(device),
        torch.tensor(scales, dtype=torch.float32).to(device),
    )


def of(slices: Slices, segments: Segments, side: int, *, everything: bool = False) -> tuple[Tensor, Tensor]:
    """`table` for these updates, where they are."""
    return table(slices.starts, slices.parts, segments, side, slices.a.device, everything)


def _entry(starts: tuple[int, ...], parts: tuple[tuple[int, ...], ...], update: int) -> list[int]:
    if update < 0:
        return [0, 0, *(0,) * (PER_SLICE * len(parts))]
    entry, column = [starts[update], starts[update + 1] - starts[update]], 0
    for part in parts:
        rank = part[update + 1] - part[update]
        entry += [column, part[update], rank]
        column += rank
    return entry


def _covered(segments: Segments) -> Iterator[tuple[int, int, int, float]]:
    done = 0
    for segment in (*segments.joined, (segments.rows, segments.rows, -1, 0.0)):
        if done < segment[0]:
            yield done, segment[0], -1, 0.0
        if segment[0] < segment[1]:
            yield segment
        done = segment[1]
