"""What is observed of candidates on a task: every item once for every candidate that is not known already."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from loramerge.errors import IncompatibleError
from loramerge.evaluation.applied import Applied
from loramerge.evaluation.candidate import Candidate
from loramerge.evaluation.passes import GPU_ROWS, ROWS, Lot, Pass, Passes

if TYPE_CHECKING:
    from torch import nn

    from loramerge.evaluation.metrics import Array
    from loramerge.evaluation.tasks._task import Prepared

Progress = Callable[[int, int], None]


class Store(Protocol):
    """Where observations are kept as they are made, by a candidate's hash and an item's number."""

    def known(self, candidate: str) -> Mapping[int, Sequence[float]]:
        """The observations of one candidate."""

    def add(self, candidate: str, items: Sequence[int], observed: Array) -> None:
        """Keep observations (items, R)."""


class Memory:
    """A store that ends with the process."""

    def __init__(self) -> None:
        self._found: dict[str, dict[int, Sequence[float]]] = {}

    def known(self, candidate: str) -> Mapping[int, Sequence[float]]:
        """The observations of one candidate."""
        return self._found.get(candidate, {})

    def add(self, candidate: str, items: Sequence[int], observed: Array) -> None:
        """Keep observations (items, R)."""
        self._found.setdefault(candidate, {}).update(zip(items, observed.tolist(), strict=True))


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
        known = {candidate.key: set(store.known(candidate.key)) for candidate in unique}
        applied = Applied(self.module, unique, self.where)
        passes = Passes(applied, prepared.run, self.rows or self._rows)
        seen = _Effects(applied, prepared.run, check)
        done = total = 0
        todo = [(lot, missing) for lot in prepared.lots if (missing := _missing(lot, unique, known, names))]
        total = sum(len(lot.items) * len(missing) for lot, missing in todo)
        for lot, missing in todo:
            seen.begin(lot, missing)
            for found in passes.over(lot, missing):
                seen.look(found)
                for at, observed in zip(found.candidates, found.observed, strict=True):
                    store.add(unique[at].key, [names[item] for item in found.items], observed)
                done += len(found.candidates) * len(found.items)
                progress(done, total)
        self.notes += passes.notes
        seen.complain()
        observed = _gathered(candidates, store, names)
        return Observations(observed, tuple(_failures(candidates, observed, names)), done)

    @property
    def _rows(self) -> int:
        return GPU_ROWS if next(self.module.parameters()).is_cuda else ROWS


def _missing(
    lot: Lot, candidates: Sequence[Candidate], known: Mapping[str, set[int]], names: Sequence[int]
) -> list[int]:
    """The candidates of which some item of a lot is not known yet."""
    wanted = {names[item] for item in lot.items}
    return [at for at, candidate in enumerate(candidates) if not wanted <= known[candidate.key]]


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

    def __init__(self, applied: Applied, run: object, check: bool) -> None:
        self.applied = applied
        self.run = run
        changing = [at for at, one in enumerate(applied.candidates) if check and one.has_update]
        self.waiting = set(changing)
        self.plain: dict[str, Pass] = {}

    def begin(self, lot: Lot, missing: Sequence[int]) -> None:
        """Run the twins of the candidates whose effect has not been seen over the first item of a lot."""
        self.plain = {}
        some = lot.part(0, 1)
        for at in sorted(self.waiting & set(missing)):
            twin = self.applied.candidates[at].plain
            if twin.key not in self.plain:
                alone = Applied(self.applied.module, [twin], self.applied.where)
                passes = Passes(alone, self.run, 1)  # type: ignore[arg-type]
                self.plain[twin.key] = next(iter(passes.over(some, [0])))
        self.first = lot.items[0]

    def look(self, found: Pass) -> None:
        """Compare what came of candidates with what came of their twins."""
        import torch

        if self.first not in found.items:
            return
        row = found.items.index(self.first)
        for at, raw in zip(found.candidates, found.raw, strict=True):
            if at in self.waiting:
                base = self.plain[self.applied.candidates[at].plain.key].raw[0, 0]
                if not torch.allclose(raw[row], base, rtol=1e-6, atol=0, equal_nan=True):
                    self.waiting.discard(at)

    def complain(self) -> None:
        """Raises IncompatibleError for what never showed an effect."""
        if self.waiting:
            names = ", ".join(self.applied.candidates[at].name for at in sorted(self.waiting))
            raise IncompatibleError(
                "The output is the base's own, though the updates are not zero: they are not used by this task.",
                where=names,
                hint="--base names the model that they were trained on; --no-check goes on all the same",
            )
