"""TPE: draws what is likelier among the good points so far than among the others (Optuna).

Settings that only some methods have are modelled among the points that have them. Points of one batch keep away from
each other: those still running count as bad.

Bergstra et al. 2011, https://papers.nips.cc/paper/4443; the library `optuna`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from loramerge.errors import MissingExtra
from loramerge.search.domain import Choice, Domain, Integer, Uniform, Value
from loramerge.search.samplers._sampler import Sampler
from loramerge.search.space import Point, Space


class Tpe:
    """A study in memory."""

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._library = _library()
        self._study = _study(self._library, seed)
        self._running: list[Any] = []

    def ask(self, count: int) -> list[Point]:
        """One after the other, each knowing of those still running."""
        return [self._asked() for _ in range(count)]

    def tell(self, points: Sequence[Point], values: Sequence[float]) -> None:
        """What is no number is a failed trial."""
        failed = self._library.trial.TrialState.FAIL
        for value in values:
            trial = self._running.pop(0)
            if math.isfinite(value):
                self._study.tell(trial, value)
            else:
                self._study.tell(trial, state=failed)

    def _asked(self) -> Point:
        trial = self._study.ask()
        self._running.append(trial)
        found: dict[str, Value] = {}
        for dimension in self._space.dimensions:
            if dimension.applies(found):
                # Two methods' settings of one name are two to the study.
                found[dimension.name] = _suggested(trial, str(dimension), dimension.domain)
        return found


def _study(library: Any, seed: int) -> Any:
    """A study in memory. What optuna would log of it is not logged, and its logging is left as it was."""
    before = library.logging.get_verbosity()
    library.logging.set_verbosity(library.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optuna 4 calls constant_liar experimental, 5 does not
            sampler = library.samplers.TPESampler(seed=seed, constant_liar=True)
        return library.create_study(direction="maximize", sampler=sampler)
    finally:
        library.logging.set_verbosity(before)


def _suggested(trial: Any, name: str, domain: Domain) -> Value:
    value: Value
    if isinstance(domain, Choice):
        value = trial.suggest_categorical(name, domain.values)
    elif isinstance(domain, Integer):
        value = trial.suggest_int(name, domain.low, domain.high, log=domain.log)
    else:
        assert isinstance(domain, Uniform)
        value = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
    return value


def _library() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtra("The sampler tpe needs optuna.", hint='pip install "loramerge[search]"') from None
    return optuna


SAMPLER = Sampler(Tpe)
