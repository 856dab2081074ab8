"""What is observed of candidates on a task: every item once for every candidate that is not known already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from loramerge.errors import IncompatibleError
from loramerge.evaluation.applied import Applied
from loramerge.evaluation.candidate import Candidate, scaled
from loramerge.evaluation.passes import GPU_ROWS, ROWS, Lot, Pass, Passes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from loramerge.evaluation.metrics import Array
    from loramerge.evaluation.passes import Run
    from loramerge.evaluation.tasks._task import Prepared

Progress = Callable[[int, int], None]

_ROUNDING = 1e-5
"""What float32 may lose of the largest number of an output. Narrower types lose more: that counts as an effect."""


class Store(Protocol):
    """Where observations are kept as they are made, by a candidate's hash and an item's number."""

    def known(self, candidate: str) -> Mapping[int, Sequence[float]]:
        """The observations of one candidate."""

    def add(self, items: Sequence[int], observed: Mapping[str, Array]) -> None:
        """Keep the observations (items, R) of a pass, of each candidate, all or none."""


class Memory:
    """A store that ends with the process."""

    def __init__(self) -> None:
        self._found: dict[str, dict[int, Sequence[float]]] = {}

    def known(self, candidate: str) -> Mapping[int, Sequence[float]]:
        """The observations of one candidate."""
        return self._found.get(candidate, {})

    def add(self, items: Sequence[int], observed: Mapping[str, Array]) -> None:
        """Keep the observations (items, R) of a pass, of each candidate."""
        for candidate, rows in observed.items():
            self._found.setdefault(candidate, {}).update(zip(items, rows.tolist(), strict=True))


@dataclass(frozen=True)
class Observations:
    """Observations (candidates, items, R); NaN where the model gave none. `passes` counts items · candidates run."""

    observed: Array
    notes: tuple[str, ...] = ()
    passes: int = 0


@dataclass
class Bench:
    """A model and candidates to run on it together. `rows`: activations in a pass (None: what suits the device)."""

    module: nn.Module
    where: str = "model"
    rows: int | None = None
    notes: list[str] = field(default_factory=list)

    def observe(
        self,
        candidates: Sequence[Candidate],
        prepared: Prepared,
        store: Store | None = None,
        *,
        numbers: Sequence[int] | None = None,
        check: bool = True,
        progress: Progress = lambda done, total: None,
    ) -> Observations:
        """All candidates on all items; equal candidates, and what the store knows, are not run again.

        `numbers` are what the store calls the items (their places in the task's file). With `check`, raises
        IncompatibleError for a candidate that changes weights and no output.
        """
        store = store or Memory()
        names = list(range(prepared.items)) if numbers is None else list(numbers)
        unique = list({candidate.key: candidate for candidate in candidates}.values())
        known = [set(store.known(candidate.key)) for candidate in unique]
        applied = Applied(self.module, unique, self.where)
        passes = Passes(applied, prepared.run, self.rows or self._rows, names, sharing=not prepared.own_way)
        seen = _Effects(applied, prepared.run, names, check)
        held: list[tuple[list[int], dict[str, Array]]] = []
        todo = [part for lot in prepared.lots for part in _missing(lot, known, names)]
        total, done = sum(len(lot.items) * len(missing) for lot, missing in todo), 0
        for lot, missing in todo:
            seen.begin(lot, missing)
            for found in passes.over(lot, missing, len(unique)):
                seen.look(found)
                items, rows = [names[item] for item in found.items], zip(found.candidates, found.observed, strict=True)
                kept: dict[bool, dict[str, Array]] = {False: {}, True: {}}
                for at, values in rows:
                    kept[at in seen.unseen][unique[at].key] = values
                store.add(items, kept[False])
                held.append((items, kept[True]))
                done += len(found.candidates) * len(found.items)
                progress(done, total)
        if passes.shrunk:
            self.rows = passes.rows
        self.notes += passes.notes
        seen.complain()
        # Only now: what a store knows is not checked again.
        for items, some in held:
            store.add(items, some)
        observed = _gathered(candidates, store, names)
        return Observations(observed, tuple(_failures(candidates, observed, names)), done)

    @property
    def _rows(self) -> int:
        return GPU_ROWS if next(self.module.parameters()).is_cuda else ROWS


def _missing(lot: Lot, known: Sequence[set[int]], names: Sequence[int]) -> Iterator[tuple[Lot, Sequence[int]]]:
    """The items of a lot that are not known of some candidates, with those candidates; the lot itself where none is."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for at, items in enumerate(known):
        places = tuple(place for place, item in enumerate(lot.items) if names[item] not in items)
        groups.setdefault(places, []).append(at)
    for places, candidates in groups.items():
        if places:
            yield lot if len(places) == len(lot.items) else lot.at(places), candidates


def _gathered(candidates: Sequence[Candidate], store: Store, names: Sequence[int]) -> Array:
    tables = {candidate.key: store.known(candidate.key) for candidate in candidates}
    return np.array([[tables[one.key][name] for name in names] for one in candidates], dtype=np.float64)


def _failures(candidates: Sequence[Candidate], observed: Array, names: Sequence[int]) -> Iterator[str]:
    for candidate, values in zip(candidates, observed, strict=True):
        bad = np.flatnonzero(np.isnan(values).any(1))
        if len(bad):
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            yield f"{candidate.name}: the model's output is not finite at item {names[bad[0]] + 1}{more}"


class _Effects:
    """Sees to it that a candidate that changes weights changes outputs: against its twin without updates."""

    def __init__(self, applied: Applied, run: Run, names: Sequence[int], check: bool) -> None:
        self.applied = applied
        self.run = run
        self.names = names
        self.first: dict[int, Lot] = {}
        self.unseen = {at for at, one in enumerate(applied.candidates) if check and one.has_update}
        self.plain: dict[str, Tensor] = {}

    def begin(self, lot: Lot, missing: Sequence[int]) -> None:
        """Run the twins of the candidates whose effect has not been seen over the first item of a lot."""
        self.plain = {}
        self.item = lot.items[0]
        for at in sorted(self.unseen & set(missing)):
            self.first[at] = lot.part(0, 1)
            twin = self.applied.candidates[at].plain
            if twin.key not in self.plain:
                self.plain[twin.key] = self._alone(twin, lot.part(0, 1))

    def look(self, found: Pass) -> None:
        """Compare what came of candidates with what came of their twins."""
        if self.item not in found.items:
            return
        row = found.items.index(self.item)
        for at, raw in zip(found.candidates, found.raw, strict=True):
            if at in self.unseen and _differ(raw[row], self.plain[self.applied.candidates[at].plain.key]):
                self.unseen.discard(at)

    def complain(self) -> None:
        """Raises IncompatibleError for what was run and never showed an effect."""
        if without := [at for at in sorted(self.unseen & set(self.first)) if not self._shows(at)]:
            raise IncompatibleError(
                "The output is the base's own, though the updates are not zero: they are not used by this task.",
                where=", ".join(self.applied.candidates[at].name for at in without),
                hint="--base names the model that they were trained on; --no-check goes on all the same",
            )

    def _shows(self, at: int) -> bool:
        """Whether a candidate's update shows when it is larger: a small one may be less than the rounding."""
        candidate, item = self.applied.candidates[at], self.first[at]
        louder = scaled(candidate, 1 / candidate.size, candidate.name)
        return _differ(self._alone(louder, item), self._alone(candidate.plain, item))

    def _alone(self, candidate: Candidate, item: Lot) -> Tensor:
        """What comes of one item."""
        passes = Passes(Applied(self.applied.module, [candidate], self.applied.where), self.run, 1, self.names)
        return next(iter(passes.over(item, [0]))).raw[0, 0]


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs differ by more than the rounding of other companions in a pass; so does what is no number."""
    a, b = a.double(), b.double()
    return not bool((a - b).abs().max() <= _ROUNDING * b.abs().max())
