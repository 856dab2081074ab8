"""From numbers per module to rows per family: what a plan and a result say about themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loramerge.core.catalog import family_of
from loramerge.engine.estimate import seconds

if TYPE_CHECKING:
    from loramerge.core.adapter import Adapter
    from loramerge.engine.job import Job
    from loramerge.engine.plan import Plan


def plan_facts(plan: Plan, adapters: Sequence[Adapter]) -> dict[str, Any]:
    """The plan in short: how much there is to do and what it takes."""
    return {
        "adapters": [adapter.name for adapter in adapters],
        "method": ", ".join(dict.fromkeys(job.method for job in plan.jobs)),
        "modules": len(plan.jobs),
        "rank": plan.rank,
        "dtype": plan.jobs[0].spec.dtype,
        "read_bytes": plan.bytes_in,
        "write_bytes": plan.bytes_out,
        "peak_bytes": plan.memory,
        "executor": plan.executor,
        "workers": plan.workers,
        "device": plan.device,
        "grain": ", ".join(plan.grains),
        "estimated_seconds": float(f"{seconds(plan):.2g}"),
    }


def plan_rows(plan: Plan, adapters: Sequence[Adapter]) -> list[dict[str, Any]]:
    """One row per family: modules, shapes, ranks in and out, bytes."""
    base = _base(adapters)
    grouped: dict[str, list[Job]] = {}
    for job in plan.jobs:
        grouped.setdefault(family_of(job.module, base), []).append(job)
    return [_plan_row(family, jobs, adapters) for family, jobs in grouped.items()]


def report(modules: Mapping[str, Mapping[str, Any]], base: str | None, notes: Sequence[str]) -> dict[str, Any]:
    """The report of a result: overall, by family, by module, and what else is worth saying."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for name, row in modules.items():
        grouped.setdefault(family_of(name, base), []).append(row)
    families = [{"family": family, **_row(rows)} for family, rows in grouped.items()]
    said = [*_remarks(modules), *notes]
    return {"overall": _row(list(modules.values())), "families": families, "modules": dict(modules), "notes": said}


def _base(adapters: Sequence[Adapter]) -> str | None:
    return next((adapter.base for adapter in adapters if adapter.base), None)


def _plan_row(family: str, jobs: Sequence[Job], adapters: Sequence[Adapter]) -> dict[str, Any]:
    ranks = [sum(job.ranks) for job in jobs]
    return {
        "family": family,
        "modules": len(jobs),
        "shape": span([f"{job.spec.out}×{job.spec.in_}" for job in jobs]),
        "units_in": span(ranks),
        "rank_out": span([job.spec.rank for job in jobs]),
        "read_bytes": sum(job.bytes_in for job in jobs),
        "write_bytes": sum(job.spec.nbytes for job in jobs),
    }


def _row(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Norms and errors of several modules as those of one long vector; others as means of those that have them."""
    found: dict[str, Any] = {
        "modules": len(rows),
        "units_in": span([row["rank_in"] for row in rows]),
        "rank": span([row["rank"] for row in rows]),
    }
    if all("relative_error" in row for row in rows):
        found["relative_error"] = _pooled_error(rows)
    if clustered := [row for row in rows if "energy" in row]:
        found["energy_kept"] = _mean([row["energy"] for row in clustered])
        found["cluster_sizes"] = span(sorted(size for row in clustered for size in row.get("sizes", ())))
        found["mixed"] = _mean([row["mixing"] for row in clustered if row.get("mixing") is not None])
    inputs = math.hypot(*(row["norm_inputs_mean"] for row in rows))
    norm = math.hypot(*(row["norm"] for row in rows))
    found["norm"] = norm
    found["norm_ratio"] = norm / inputs if inputs else None
    return found


def _pooled_error(rows: Sequence[Mapping[str, Any]]) -> float:
    lost = total = 0.0
    for row in rows:
        error = min(row["relative_error"], 1.0)
        whole = row["norm"] ** 2 / (1 - error**2) if error < 1 else 0.0
        lost, total = lost + whole * error**2, total + whole
    return math.sqrt(lost / total) if total else 0.0


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _remarks(modules: Mapping[str, Mapping[str, Any]]) -> list[str]:
    kept = [name for name, row in modules.items() if row.get("all_kept")]
    dead = sum(row.get("dead", 0) for row in modules.values())
    cancelled = sum(row.get("cancelled", 0) for row in modules.values())
    said = []
    if kept:
        said.append(f"{len(kept)} of {len(modules)} modules have no more units than k and keep them all")
    if dead:
        said.append(f"{dead} dead units (their product is zero) dropped")
    if cancelled:
        said.append(f"{cancelled} clusters cancel to zero; they were not reweighted")
    return said


def span(values: Sequence[Any]) -> Any:
    """One value for equal ones, "low–high" for numbers, a list of a few for texts."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) <= 1:
        return distinct[0] if distinct else None
    if all(isinstance(value, int | float) for value in distinct):
        return f"{min(distinct)}–{max(distinct)}"
    return ", ".join(map(str, distinct[:3])) + (" …" if len(distinct) > 3 else "")
