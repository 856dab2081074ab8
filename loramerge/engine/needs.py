"""Whether the statistics that were given are those that a plan needs. Reads shapes only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING

from loramerge.errors import NeedsData, ShapeMismatch

if TYPE_CHECKING:
    from loramerge.core.adapter import Adapter
    from loramerge.core.statistics import Statistics
    from loramerge.engine.job import Job


def check_statistics(jobs: Sequence[Job], adapters: Sequence[Adapter], statistics: Sequence[Statistics | None]) -> None:
    """Raises NeedsData where what a method needs was not measured, ShapeMismatch where it was of another model."""
    known = [*statistics, *[None] * (len(adapters) - len(statistics))]
    for job in jobs:
        for kind, at in product(job.plugin.needs, job.members):
            adapter, found = adapters[at], known[at]
            if found and found.has(kind, job.module):
                _check_sides(found, kind, job)
            elif job.module in adapter.modules:
                raise NeedsData(
                    f"{job.method} needs {kind} of {adapter.name} for {job.module}, and there are none.",
                    where=found.name if found else adapter.name,
                    hint=_way_to(kind, job, adapter.name),
                )


def _check_sides(found: Statistics, kind: str, job: Job) -> None:
    wanted = {"grams": (job.spec.in_,) * 2, "fisher_in": (job.spec.in_,), "fisher_out": (job.spec.out,)}[kind]
    seen = found.shapes[kind, job.module]
    if seen != wanted:
        raise ShapeMismatch(
            f"{kind} of {job.module} has {seen[0]} rows, and {wanted[0]} are wanted.",
            where=found.name,
            hint="measured on another model: loramerge stats with the adapters' own base",
        )


def check_metric(jobs: Sequence[Job], metric: Statistics | None) -> tuple[str, ...]:
    """What is to be said of the modules that are cut without the metric; raises NeedsData where all of them are."""
    cut = [job for job in jobs if job.plugin.rank == "free"]
    if metric is None or not cut:
        return ()
    for job in cut:
        if metric.has("grams", job.module):
            _check_sides(metric, "grams", job)
    plain = [job.module for job in cut if not metric.has("grams", job.module)]
    if len(plain) == len(cut):
        raise NeedsData(
            f"The metric has no Gram matrix of {plain[0]}, nor of any other module here.",
            where=metric.name,
            hint="loramerge stats REF --base MODEL --text FILE -o FILE, then --metric FILE",
        )
    if not plain:
        return ()
    return (f"the metric does not know {len(plain)} of {len(cut)} modules ({plain[0]} …): those are cut without it",)


def _way_to(kind: str, job: Job, name: str) -> str:
    if kind == "grams" and job.spec.kind == "embedding":
        return f"no Gram matrix is made of an embedding: --for '{job.module}:method=linear'"
    more = "" if kind == "grams" else " --fisher"
    return f"loramerge stats {name} --base MODEL --text FILE{more} -o FILE, then --data {name}=FILE"
