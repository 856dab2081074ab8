"""All candidates over all items: in passes of as many candidates and items as go well together.

A lot is items of one shape. A pass takes a lot, or part of it, through the model once for each of some
candidates, together. How many rows of activations a pass may have depends on the device: a processor's caches
favour some hundreds to a thousand (`ROWS`), a GPU takes what fits. Where memory does not suffice, a pass is
cut in half and the evaluation goes on with what fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from loramerge.errors import LoramergeError
from loramerge.evaluation.applied import Apart, Applied

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.evaluation.metrics import Array

ROWS = 1024
"""Rows of activations in a pass on the CPU."""

GPU_ROWS = 16384
"""Rows of activations in a pass on a GPU, where memory does not end earlier."""


@dataclass(frozen=True)
class Lot:
    """Items that run together: their numbers and inputs, tensors (items, …) of one shape each.

    `cost`: rows of activations that an item takes for each candidate.
    """

    items: tuple[int, ...]
    inputs: Mapping[str, Tensor]
    cost: int

    def part(self, first: int, last: int) -> Lot:
        """The items from one place to another."""
        inputs = {name: value[first:last] for name, value in self.inputs.items()}
        return Lot(self.items[first:last], inputs, self.cost)

    def at(self, places: Sequence[int]) -> Lot:
        """The items at some places."""
        inputs = {name: value[list(places)] for name, value in self.inputs.items()}
        return Lot(tuple(self.items[place] for place in places), inputs, self.cost)


@dataclass(frozen=True)
class Pass:
    """What one pass found: observations (candidates, items, R) of these candidates at these items.

    `raw` (candidates, items, …) is what the observations were made of, by which one sees whether a candidate
    did anything.
    """

    candidates: tuple[int, ...]
    items: tuple[int, ...]
    observed: Array
    raw: Tensor


Run = Callable[[Any, Mapping[str, Any], int], tuple[Any, Any]]
"""`run(module, inputs, count) -> (observed, raw)`: inputs are repeated for `count` candidates; (count · items, …)."""


@dataclass
class Passes:
    """Takes candidates on a model through lots. `rows`: how many rows of activations a pass may have.

    `names`: what the items are called, by number, where they are not 0, 1, …; `shrunk`: whether memory has ended and
    `rows` is fewer since. `sharing`: candidates are given the same inputs all the way, so layers below their first
    difference run once.
    """

    applied: Applied
    run: Run
    rows: int
    names: Sequence[int] = ()
    notes: list[str] = field(default_factory=list)
    sharing: bool = True
    shrunk: bool = False

    def over(self, lot: Lot, candidates: Sequence[int], of: int | None = None) -> Iterator[Pass]:
        """These candidates over a lot, pass by pass, which are cut as for `of` candidates (so many as there are)."""
        first = 0
        while first < len(lot.items):
            # As many candidates as possible, since what they share is shared then.
            some = min(self._together(lot), of or len(candidates)) or 1
            part = lot.part(first, first + max(1, self.rows // (lot.cost * some)))
            for start in range(0, len(candidates), some):
                yield from self._fitting(part, candidates[start : start + some])
            first += len(part.items)

    def _together(self, lot: Lot) -> int:
        """How many candidates a pass may have."""
        return 1 if self.applied.alone else max(1, self.rows // lot.cost)

    def _fitting(self, lot: Lot, chosen: Sequence[int]) -> Iterator[Pass]:
        """One pass, or where memory ends its halves. Raises LoramergeError where one item is too much."""
        if len(chosen) <= self._together(lot) and (found := self._tried(lot, chosen)):
            yield found
            return
        for candidates, part in _halves(lot, chosen):
            yield from self._fitting(part, candidates)

    def _tried(self, lot: Lot, chosen: Sequence[int]) -> Pass | None:
        """The pass, or None where it has to be made in parts."""
        single = len(chosen) == 1 and len(lot.items) == 1
        if not single and len(chosen) * len(lot.items) * lot.cost > self.rows:
            return None  # memory has ended since the pass was cut
        try:
            return self._one(lot, chosen)
        except Apart:
            self.applied.apart = True
            self.notes.append("one candidate a pass: the model gives some module what belongs to no candidate")
            return None
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            if single:
                what = f"{self.applied.candidates[chosen[0]].name}, item {self._name(lot.items[0]) + 1}"
                raise LoramergeError(
                    f"There is not enough memory for one item of one candidate ({what}).",
                    hint="shorter items, --dtype BF16, or a larger machine",
                ) from None
        # Outside the except clause, whose error holds on to every tensor of the failed pass.
        self._shrink(lot, chosen)
        return None

    def _name(self, item: int) -> int:
        return self.names[item] if self.names else item

    def _shrink(self, lot: Lot, chosen: Sequence[int]) -> None:
        import torch

        taken = lot.cost * len(lot.items) * len(chosen)
        self.rows, self.shrunk = max(1, min(self.rows, taken // 2)), True
        self.notes.append(f"memory ended at {taken:,} rows in a pass; passes have {self.rows:,} from there on")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _one(self, lot: Lot, chosen: Sequence[int]) -> Pass:
        import torch

        device = next(self.applied.module.parameters()).device
        count, items = len(chosen), len(lot.items)
        inputs = {name: repeated(value.to(device), count) for name, value in lot.inputs.items()}
        with torch.inference_mode(), self.applied.on(chosen, sharing=self.sharing):
            observed, raw = self.run(self.applied.module, inputs, count)
        shaped = observed.double().cpu().reshape(count, items, -1).numpy()
        return Pass(tuple(chosen), lot.items, np.asarray(shaped), raw.reshape(count, items, -1))


def repeated(value: Tensor, count: int) -> Tensor:
    """(items, …) -> (count · items, …): all items for the first candidate, then all for the next."""
    return value.repeat(count, *[1] * (value.ndim - 1))


def _halves(lot: Lot, chosen: Sequence[int]) -> Iterator[tuple[Sequence[int], Lot]]:
    if len(chosen) > 1:
        half = len(chosen) // 2
        yield chosen[:half], lot
        yield chosen[half:], lot
    else:
        half = len(lot.items) // 2
        yield chosen, lot.part(0, half)
        yield chosen, lot.part(half, len(lot.items))


def _out_of_memory(error: Exception) -> bool:
    """Whether memory ended: torch says it in a class of its own on CUDA, in words alone on the CPU."""
    import torch

    said = str(error).lower()
    words = ("not enough memory", "can't allocate memory", "out of memory", "cannot allocate")
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or any(word in said for word in words)
