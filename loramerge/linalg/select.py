"""The k-th largest magnitude of many numbers that pass by in tiles: exact, in a fixed amount of memory.

Magnitudes of floating-point numbers order as their bits do without the sign, so a radix select works:
count how many numbers fall under each value of the highest 11 bits, find the bucket that holds the k-th,
and look at the next 11 bits of the numbers in that bucket. Three passes for float32, six for float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor, dtype

_STEP = 11
"""Bits looked at in one pass. The 16 of two passes would make the tables of many updates larger than their tiles."""


class Passes(Protocol):
    """What can be gone through several times: pairs of a row's number and a tensor (n, …) of dtype `dtype`."""

    @property
    def dtype(self) -> dtype:
        """float32 or float64."""

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """One pass."""


def kth_magnitudes(passes: Passes, ks: Sequence[int]) -> Tensor:
    """(n,) the ks[i]-th largest |x| (counted from 1) among all numbers of slice i, over one pass's tensors.

    Memory: n counters per value of 11 bits. Time: one pass over the numbers for every 11 bits of their type.
    Raises ValueError for a k outside 1 … the count of numbers.
    """
    import torch

    n = len(ks)
    kind = torch.int32 if passes.dtype.itemsize == 4 else torch.int64
    prefix, left = [0] * n, list(ks)
    # The sign is left out.
    high = 8 * passes.dtype.itemsize - 1
    while high:
        low = max(0, high - _STEP)
        counts = torch.zeros(n, 1 << (high - low), dtype=torch.int64)
        for _, tile in passes:
            for i in range(n):
                bits = tile[i].abs().reshape(-1).view(kind)
                counts[i] += _counted(bits, prefix[i], high, low)
        for i in range(n):
            digit, left[i] = _bucket(counts[i], left[i])
            prefix[i] = (prefix[i] << (high - low)) | digit
        high = low
    return torch.tensor(prefix, dtype=kind).view(passes.dtype)


def kth_held(stacked: Tensor, k: int) -> Tensor:
    """(n,) the k-th largest |x| of each of n tensors that are in memory, (n, …): faster, with a copy of one."""
    import numpy as np
    import torch

    at = stacked[0].numel() - k
    found = [np.partition(part.abs().cpu().numpy().ravel(), at)[at] for part in stacked]
    return torch.tensor(np.array(found), dtype=stacked.dtype)


def _counted(bits: Tensor, prefix: int, high: int, low: int) -> Tensor:
    """How many have each value of the bits from `low` to below `high`, of those whose higher ones are `prefix`."""
    import torch

    if high < 8 * bits.element_size() - 1:
        bits = _selected(bits, high, prefix) & ((1 << high) - 1)
    return torch.bincount(bits >> low, minlength=1 << (high - low)).cpu()


def _selected(bits: Tensor, shift: int, prefix: int) -> Tensor:
    """Those whose bits from `shift` on are `prefix`."""
    import torch

    if bits.device.type != "cpu":
        return bits[(bits >> shift) == prefix]
    # numpy compares and selects three times as fast.
    array = bits.numpy()
    return torch.from_numpy(array[(array >> shift) == prefix])


def _bucket(counts: Tensor, k: int) -> tuple[int, int]:
    """The value in whose bucket the k-th largest lies, and its place there."""
    if not 1 <= k <= int(counts.sum()):
        raise ValueError(f"There is no {k}. of {int(counts.sum())} numbers.")
    above = counts.flip(0).cumsum(0)
    at = int((above < k).sum())
    return len(counts) - 1 - at, k - (int(above[at - 1]) if at else 0)
