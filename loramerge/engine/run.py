"""Runs a plan: loads one module's updates, applies the method, truncates, measures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, overload

from loramerge.engine.executors import ordered_map
from loramerge.errors import BadTensor

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.adapter import Adapter
    from loramerge.core.lowrank import LowRank
    from loramerge.core.statistics import Statistics
    from loramerge.core.updates import Updates
    from loramerge.engine.job import Job
    from loramerge.engine.plan import Plan
    from loramerge.linalg.stored import Norms
    from loramerge.linalg.truncate import Truncated
    from loramerge.methods._method import Outcome


@dataclass(frozen=True)
class Inputs:
    """What the jobs of a plan work on: adapters, statistics of each where a method needs them, and a metric.

    `metric` measures what a truncation costs: its grams weigh the directions of a module's inputs.
    """

    adapters: Sequence[Adapter]
    statistics: Sequence[Statistics | None] = ()
    metric: Statistics | None = None


@dataclass(frozen=True)
class Done:
    """One module's result (on the CPU; numpy arrays where the job took them) and what is to be said about it."""

    module: str
    delta: LowRank
    report: Mapping[str, Any]


def run(plan: Plan, inputs: Inputs) -> Iterator[Done]:
    """Merged modules, in plan order, the same bytes from any executor and any number of workers."""
    kind, workers, torch = plan.executor, plan.workers, not plan.arrays
    return ordered_map(merge_module, plan.jobs, inputs, kind=kind, workers=workers, torch=torch)


def merge_module(job: Job, inputs: Inputs) -> Done:
    """One job: a pure function of it and of the adapters' files. Raises BadTensor where numbers overflow."""
    import numpy as np

    try:
        with np.errstate(all="ignore"):
            done = _merged(job, inputs)
        if math.isfinite(done.report["norm"]):
            return done
    except Exception as error:
        # numpy and torch have one each for a matrix that has no decomposition, since it is not finite.
        if not isinstance(error, OverflowError) and not type(error).__name__.endswith("LinAlgError"):
            raise
    raise BadTensor(
        "The merged numbers are larger than float64 can hold.",
        where=job.module,
        hint="smaller weights, or a smaller --scale",
    )


def _merged(job: Job, inputs: Inputs) -> Done:
    from loramerge.linalg.measure import norm
    from loramerge.methods._grains import apply
    from loramerge.methods._method import MERGE, Context

    method = MERGE[job.method]
    norms: dict[int, float] = {}
    updates = updates_of(job, inputs.adapters, norms)
    data = {name: _Statistics(job, inputs, name) for name in method.needs}
    outcome = apply(method, updates, job.options, Context(job.module, job.weights, job.seed, data=data))
    report: dict[str, Any] = {"adapters": len(updates), "rank_in": sum(job.ranks), **outcome.report}
    made = _cut(job, outcome, _metric(job, inputs)) if method.rank == "free" else _whole(outcome)
    if method.rank == "free":
        report["relative_error"] = made.relative_error
    having = [at for at, member in enumerate(job.members) if job.module in inputs.adapters[member].modules]
    mean = _mean_norm(updates, having, norms, outcome.weights, made.norms)
    size = norm(made.delta) if made.norms.total is None else made.norms.total
    factor = job.scale * (_restoring(mean, size) if job.rescale else 1.0)
    delta = made.delta.times(factor).folded()
    report |= {"rank": delta.rank, "norm": abs(factor) * size, "norm_inputs_mean": mean}
    return Done(job.module, delta if job.arrays else delta.to(device="cpu"), report)


def _cut(job: Job, outcome: Outcome, metric: Tensor | None) -> Truncated:
    from loramerge.linalg.compress import compress
    from loramerge.linalg.truncate import truncate_sum

    if outcome.blocks is None:
        return truncate_sum(outcome.parts, job.rank, ranks=job.ranks, metric=metric)
    return compress(outcome.blocks, job.rank, ranks=job.ranks, bias=outcome.bias, hold=job.hold, metric=metric)


def _whole(outcome: Outcome) -> Truncated:
    from loramerge.linalg.truncate import Truncated

    return Truncated(outcome.delta, 0.0, norms=outcome.norms)


def _mean_norm(
    updates: Updates,
    having: Sequence[int],
    norms: dict[int, float],
    weights: Sequence[float] | None,
    known: Norms,
) -> float:
    """The mean norm of the updates that are there; what came out of the merge is not measured again."""
    from loramerge.linalg.measure import norm

    counted = [at for at, weight in enumerate(weights or ()) if weight != 0]
    for at, size in zip(counted, known.each, strict=False):
        if weights and size is not None:
            norms.setdefault(at, size / abs(weights[at]))
    for at in having:
        if at not in norms:
            norms[at] = norm(updates[at])
    return sum(norms[at] for at in having) / len(having)


def _restoring(wanted: float, norm: float) -> float:
    """The factor that gives a result the norm that is wanted; 1 for a result of zero."""
    return wanted / norm if norm > 0 else 1.0


def updates_of(job: Job, adapters: Sequence[Adapter], norms: dict[int, float]) -> Updates:
    """The job's updates; where a dense matrix would be larger, all at once, else each measured when it is loaded."""
    from loramerge.core.updates import Updates
    from loramerge.linalg.measure import norm

    def load(at: int) -> LowRank:
        adapter = adapters[job.members[at]]
        if job.module not in adapter.modules:
            return _nothing(job)
        update = _read(job, adapter)
        if one_by_one and at not in norms:
            norms[at] = norm(update)
        return update

    one_by_one = sum(job.held) >= min(job.spec.shape)
    lazy = Updates([partial(load, at) for at in range(len(job.held))], job.held, job.spec.shape)
    return lazy if one_by_one else Updates.of(list(lazy))


def _read(job: Job, adapter: Adapter) -> LowRank:
    if job.arrays:
        return adapter.read(job.module).plain()
    return adapter.load(job.module).plain().to(device=job.device)


def _nothing(job: Job) -> LowRank:
    from loramerge.linalg.units import nothing

    if not job.arrays:
        return nothing(job.spec.shape).to(device=job.device)
    import numpy as np

    return nothing(job.spec.shape, np.empty(0))  # type: ignore[arg-type]


class _Statistics(Sequence["Tensor"]):
    """One kind of statistics, one tensor per update, each loaded when it is asked for.

    An adapter that lacks the module, and of which nothing was measured there, counts as an update of zero
    that meets what the others meet on average. The planner has seen that those with the module have theirs.
    """

    def __init__(self, job: Job, inputs: Inputs, kind: str) -> None:
        self.job = job
        self.kind = kind
        self.sources = [inputs.statistics[at] for at in job.members]

    def __len__(self) -> int:
        return len(self.sources)

    @overload
    def __getitem__(self, at: int) -> Tensor: ...

    @overload
    def __getitem__(self, at: slice) -> list[Tensor]: ...

    def __getitem__(self, at: int | slice) -> Tensor | list[Tensor]:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        found = self._load(self.sources[at])
        return self._mean if found is None else found

    @cached_property
    def _mean(self) -> Tensor:
        total, count = None, 0
        for source in self.sources:
            found = self._load(source)
            if found is not None:
                total, count = (found if total is None else total + found), count + 1
        assert total is not None
        return total / count

    def _load(self, source: Statistics | None) -> Tensor | None:
        if source is None or not source.has(self.kind, self.job.module):
            return None
        return source.load(self.kind, self.job.module).to(device=self.job.device)


def _metric(job: Job, inputs: Inputs) -> Tensor | None:
    if inputs.metric is None or not job.metric:
        return None
    return inputs.metric.load("grams", job.module).to(device=job.device)
