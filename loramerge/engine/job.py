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

_CUT = 3
"""Copies of the units that a sum is cut to its rank with: balanced, whitened, and what is kept."""


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
    metric: bool = False
    """A metric measures what the cut to a rank costs."""
    readable: bool = False
    """All members' updates can be read as numpy arrays."""

    @property
    def plugin(self) -> Method:
        """The method itself."""
        return MERGE[self.method]

    @property
    def arrays(self) -> bool:
        """Whether numpy does the work: what needs no more starts seconds earlier than torch does."""
        return self.readable and self.plugin.takes_arrays and self.device == "cpu" and not self.metric

    @property
    def memory(self) -> int:
        """Bytes at work, roughly."""
        if self.plugin.on == "entries":
            return self._entries()
        side, area, units = sum(self.spec.shape), self.spec.out * self.spec.in_, sum(self.held)
        # From here on a dense matrix is the smaller object, and sums of weighed updates load one at a time.
        small = units >= min(self.spec.shape)
        one_by_one = self.plugin.on == "stream" or (self.plugin.on == "coefficients" and small)
        loaded = self.bytes_in // len(self.members) if one_by_one else self.bytes_in
        method = 0 if self.plugin.on == "stream" else self.plugin.copies * units * side
        dense = 2 * area + 4 * min(self.spec.shape) ** 2
        cut = dense if small or self.plugin.on == "stream" else _CUT * units * side
        grams = 3 * self.spec.in_**2 if self.metric or "grams" in self.plugin.needs else 0
        return loaded + _EXACT * (max(method, cut) + grams + 2 * self.spec.numel)

    def _entries(self) -> int:
        """The factors, a tile with its temporaries, and the result's matrix, or what stands for it."""
        size = self.spec.out * self.spec.in_
        width = max(4, DTYPE_BYTES[self.spec.dtype])
        factors = self.bytes_in + width * sum(self.held) * (self.spec.out + self.spec.in_)
        tile = max(TILE_BYTES, len(self.held) * self.spec.in_ * width) * self.plugin.copies
        whole = self._whole() if self.hold or self.exact else 0
        sketch = 4 * _EXACT * (self.spec.rank + 16) * (self.spec.out + self.spec.in_)
        grams = 3 * _EXACT * self.spec.in_**2 if self.metric else 0
        return factors + tile + grams + (3 * _EXACT * size if self.exact else whole) + sketch

    def _whole(self) -> int:
        return max(4, DTYPE_BYTES[self.spec.dtype]) * self.spec.out * self.spec.in_

    @property
    def exact(self) -> bool:
        """Whether a dense result is decomposed as a whole."""
        from loramerge.linalg.compress import is_exact

        return self.metric or is_exact(self.rank, self.ranks, self.spec.shape)

    @property
    def may_hold(self) -> bool:
        """Whether there is a dense result, small enough to be kept without asking."""
        return self.plugin.on == "entries" and self._whole() <= HOLD_BYTES
