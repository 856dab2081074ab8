"""Runs a plan: loads one module's updates, applies the method, truncates, measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from loramerge.engine.executors import ordered_map

if TYPE_CHECKING:
    from loramerge.core.adapter import Adapter
    from loramerge.core.lowrank import LowRank
    from loramerge.core.updates import Updates
    from loramerge.engine.plan import Job, Plan


@dataclass(frozen=True)
class Done:
    """One module's result (on the CPU) and what is to be said about it."""

    module: str
    delta: LowRank
    report: Mapping[str, Any]


def run(plan: Plan, adapters: Sequence[Adapter]) -> Iterator[Done]:
    """Merged modules, in plan order, the same bytes from any executor and any number of workers."""
    return ordered_map(merge_module, plan.jobs, tuple(adapters), kind=plan.executor, workers=plan.workers)


def merge_module(job: Job, adapters: Sequence[Adapter]) -> Done:
    """One job: a pure function of it and of the adapters' files."""
    from loramerge.linalg.measure import norm
    from loramerge.linalg.truncate import truncate_sum
    from loramerge.methods._method import MERGE, Context

    method = MERGE[job.method]
    norms: dict[int, float] = {}
    updates = _updates(job, adapters, norms)
    outcome = method.apply(updates, job.options, Context(job.module, job.weights, job.seed))
    report: dict[str, Any] = {"adapters": len(updates), "rank_in": sum(updates.ranks), **outcome.report}
    if method.rank == "free":
        cut = truncate_sum(outcome.parts, job.rank, ranks=updates.ranks)
        delta = cut.delta
        report["relative_error"] = cut.relative_error
    else:
        delta = outcome.delta
    delta = delta.times(job.scale).folded()
    report |= {"rank": delta.rank, "norm": norm(delta), "norm_inputs_mean": sum(norms.values()) / len(norms)}
    return Done(job.module, delta.to(device="cpu"), report)


def _updates(job: Job, adapters: Sequence[Adapter], norms: dict[int, float]) -> Updates:
    """The job's updates, each measured when it is loaded; all at once where a dense matrix would be larger."""
    from loramerge.core.updates import Updates
    from loramerge.linalg.measure import norm

    def load(at: int) -> LowRank:
        update = adapters[job.members[at]].load(job.module).plain().to(device=job.device)
        norms[at] = norm(update)
        return update

    ranks = [adapters[i].modules[job.module].rank for i in job.members]
    lazy = Updates([partial(load, at) for at in range(len(ranks))], ranks, job.spec.shape)
    return lazy if sum(ranks) >= min(job.spec.shape) else Updates.of(list(lazy))
