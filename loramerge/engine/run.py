"""Runs a plan: loads one module's updates, applies the method, truncates, measures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.engine.executors import ordered_map

if TYPE_CHECKING:
    from loramerge.core.adapter import Adapter
    from loramerge.core.lowrank import LowRank
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
    updates = [adapters[i].load(job.module).plain().to(device=job.device) for i in job.members]
    outcome = method.apply(updates, job.options, Context(job.module, job.weights, job.seed))
    report: dict[str, Any] = {"adapters": len(updates), "rank_in": sum(u.rank for u in updates), **outcome.report}
    delta = outcome.delta
    if method.rank == "free":
        rank = [update.rank for update in updates]
        cut = truncate_sum([delta], job.rank, ranks=rank)
        delta = cut.delta
        report["relative_error"] = cut.relative_error
    delta = delta.times(job.scale).folded()
    report["rank"] = delta.rank
    report["norm"] = norm(delta)
    report["norm_inputs_mean"] = sum(norm(u) for u in updates) / len(updates)
    return Done(job.module, delta.to(device="cpu"), report)
