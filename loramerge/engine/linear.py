"""Merges that are nothing but coefficients: who evaluates them needs no merged update at all."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from loramerge.engine.run import Inputs, updates_of

if TYPE_CHECKING:
    from loramerge.engine.job import Job
    from loramerge.engine.plan import Plan


def is_linear(plan: Plan) -> bool:
    """Whether every module's result is its updates with coefficients, cut to no rank. From headers alone."""
    return all(
        job.plugin.on == "coefficients" and not job.rescale and job.spec.rank >= sum(job.held) for job in plan.jobs
    )


def coefficients(plan: Plan, inputs: Inputs) -> list[dict[str, float]]:
    """For each adapter module → coefficient, the result's scale in it: Σ cᵢ ΔWᵢ is what `run` makes of a module."""
    found: list[dict[str, float]] = [{} for _ in inputs.adapters]
    for job in plan.jobs:
        for member, number in _of_job(job, inputs).items():
            found[member][job.module] = number * job.scale
    return found


def _of_job(job: Job, inputs: Inputs) -> Mapping[int, float]:
    from loramerge.linalg.measure import gram
    from loramerge.methods._method import Context

    updates = updates_of(job, inputs.adapters, {})
    numbers = job.plugin.apply(partial(gram, updates), job.options, Context(job.module, job.weights, job.seed))
    return {member: float(number) for member, number in zip(job.members, numbers, strict=True)}
