"""One module's share of a merge, and what it takes. Known from headers; pickles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.core.adapter import DTYPE_BYTES, ModuleSpec
from loramerge.linalg.tiles import TILE_BYTES
from loramerge.methods._method import MERGE, Method

if TYPE_CHECKING:
    from loramerge.linalg.ranks import RankRule

HOLD_BYTES = 256 * 2**20
"""A dense result up to this size is kept while it is compressed, unless a budget forbids it."""

_EXACT = 8
"""Bytes of a number in float64, in which all but elementwise rules compute."""


@dataclass(frozen=True)
class Job:
    """What is to be done for one module.

    `members` are indices into the adapters whose updates go in; `ranks` are those of the adapters that have
    the module, `held` the units each member's update holds once it is loaded (an adapter without the module
    is an update of zero). `spec` describes the result; its rank is an upper bound. `hold` lets a dense result
    stay in memory while it is compressed.
    """

    module: str
    members: tuple[int, ...]
    weights: tuple[float, ...]
    ranks: tuple[int, ...]
    held: tuple[int, ...]
    spec: ModuleSpec
    method: str
    options: Any
    rank: RankRule
    seed: int
    scale: float
    rescale: bool
    device: str
    bytes_in: int
    hold: bool = True

    @property
    def plugin(self) -> Method:
        """The method itself."""
        return MERGE[self.method]

    @property
    def memory(self) -> int:
        """Bytes at work, roughly."""
        if self.plugin.on == "entries":
            return self._entries()
        units = sum(self.held)
        stacked = self.bytes_in + self.plugin.copies * _EXACT * units * (self.spec.out + self.spec.in_)
        dense = 3 * _EXACT * self.spec.out * self.spec.in_ + stacked // len(self.members)
        # Sums of weighed updates take one at a time where a dense matrix is the smaller object; folds always do.
        one_by_one = self.plugin.on == "coefficients" and units >= min(self.spec.shape)
        grams = 3 * _EXACT * self.spec.in_**2 if "grams" in self.plugin.needs else 0
        return (dense if one_by_one or self.plugin.on == "stream" else stacked) + grams + 2 * _EXACT * self.spec.numel

    def _entries(self) -> int:
        """The factors, a tile with its temporaries, and the result's matrix, or what stands for it."""
        size = self.spec.out * self.spec.in_
        width = max(4, DTYPE_BYTES[self.spec.dtype])
        factors = self.bytes_in + width * sum(self.held) * (self.spec.out + self.spec.in_)
        tile = max(TILE_BYTES, len(self.held) * self.spec.in_ * width) * self.plugin.copies
        whole = self._whole() if self.hold or self.exact else 0
        sketch = 4 * _EXACT * (self.spec.rank + 16) * (self.spec.out + self.spec.in_)
        return factors + tile + (3 * _EXACT * size if self.exact else whole) + sketch

    def _whole(self) -> int:
        return max(4, DTYPE_BYTES[self.spec.dtype]) * self.spec.out * self.spec.in_

    @property
    def exact(self) -> bool:
        """Whether a dense result is decomposed as a whole."""
        from loramerge.linalg.compress import is_exact

        return is_exact(self.rank, self.ranks, self.spec.shape)

    @property
    def may_hold(self) -> bool:
        """Whether there is a dense result, small enough to be kept without asking."""
        return self.plugin.on == "entries" and self._whole() <= HOLD_BYTES
