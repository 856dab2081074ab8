"""Runs a plan: loads one module's updates, applies the method, truncates, measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from loramerge.engine.executors import ordered_map

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.adapter import Adapter
    from loramerge.core.lowrank import LowRank
    from loramerge.core.statistics import Statistics
    from loramerge.core.updates import Updates
    from loramerge.engine.job import Job
    from loramerge.engine.plan import Plan
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
    """One module's result (on the CPU) and what is to be said about it."""

    module: str
    delta: LowRank
    report: Mapping[str, Any]


def run(plan: Plan, inputs: Inputs) -> Iterator[Done]:
    """Merged modules, in plan order, the same bytes from any executor and any number of workers."""
    return ordered_map(merge_module, plan.jobs, inputs, kind=plan.executor, workers=plan.workers)


def merge_module(job: Job, inputs: Inputs) -> Done:
    """One job: a pure function of it and of the adapters' files."""
    from loramerge.linalg.measure import norm
    from loramerge.methods._grains import apply
    from loramerge.methods._method import MERGE, Context

    method = MERGE[job.method]
    norms: dict[int, float] = {}
    updates = _updates(job, inputs.adapters, norms)
    data = {name: _statistics(job, inputs, name) for name in method.needs}
    outcome = apply(method, updates, job.options, Context(job.module, job.weights, job.seed, data=data))
    report: dict[str, Any] = {"adapters": len(updates), "rank_in": sum(job.ranks), **outcome.report}
    if method.rank == "free":
        cut = _cut(job, outcome, _metric(job, inputs))
        delta = cut.delta
        report["relative_error"] = cut.relative_error
    else:
        delta = outcome.delta
    mean = sum(norms.values()) / len(norms)
    delta = delta.times(job.scale * (_restoring(mean, norm(delta)) if job.rescale else 1.0)).folded()
    report |= {"rank": delta.rank, "norm": norm(delta), "norm_inputs_mean": mean}
    return Done(job.module, delta.to(device="cpu"), report)


def _cut(job: Job, outcome: Outcome, metric: Tensor | None) -> Truncated:
    from loramerge.linalg.compress import compress
    from loramerge.linalg.truncate import truncate_sum

    if outcome.blocks is None:
        return truncate_sum(outcome.parts, job.rank, ranks=job.ranks, metric=metric)
    return compress(outcome.blocks, job.rank, ranks=job.ranks, bias=outcome.bias, hold=job.hold, metric=metric)


def _restoring(wanted: float, norm: float) -> float:
    """The factor that gives a result the norm that is wanted; 1 for a result of zero."""
    return wanted / norm if norm > 0 else 1.0


def _updates(job: Job, adapters: Sequence[Adapter], norms: dict[int, float]) -> Updates:
    """The job's updates, each measured when it is loaded; all at once where a dense matrix would be larger."""
    from loramerge.core.updates import Updates
    from loramerge.linalg.measure import norm
    from loramerge.linalg.units import nothing

    def load(at: int) -> LowRank:
        adapter = adapters[job.members[at]]
        if job.module not in adapter.modules:
            return nothing(job.spec.shape).to(device=job.device)
        update = adapter.load(job.module).plain().to(device=job.device)
        if at not in norms:
            norms[at] = norm(update)
        return update

    lazy = Updates([partial(load, at) for at in range(len(job.held))], job.held, job.spec.shape)
    return lazy if sum(job.held) >= min(job.spec.shape) else Updates.of(list(lazy))


def _statistics(job: Job, inputs: Inputs, name: str) -> list[Tensor]:
    """One tensor per update; the planner has seen that they are there."""
    found = []
    for at in job.members:
        statistics = inputs.statistics[at]
        assert statistics is not None
        found.append(statistics.load(name, job.module).to(device=job.device))
    return found


def _metric(job: Job, inputs: Inputs) -> Tensor | None:
    if inputs.metric is None or not inputs.metric.has("grams", job.module):
        return None
    return inputs.metric.load("grams", job.module).to(device=job.device)
