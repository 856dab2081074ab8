"""How long a plan will take, roughly: counts of arithmetic, entries and bytes, times measured rates.

The rates are those of one core of the machine named in `docs/performance.md`; `tests/benchmarks/calibrate.py`
measures them and says how far estimates are from what merges really took. They are for a person who wants
to know whether to wait: a factor of two is what they are good for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from loramerge.linalg.compress import OVERSAMPLE, PASSES

if TYPE_CHECKING:
    from loramerge.engine.job import Job
    from loramerge.engine.plan import Plan

FLOP = 6e-11
"""Seconds for a floating-point operation of a product in float64."""
ENTRY = 4e-9
"""Seconds for an entry of one update to pass an elementwise rule once."""
BYTE = 2.4e-9
"""Seconds for a byte read, checked and hashed, or written and hashed."""
START = 0.4
"""Seconds until the first tensor is read."""
TORCH = 1.8
"""Further seconds where torch has to be imported."""

_EIGEN = 20
"""Operations of an eigendecomposition for each n³."""


def seconds(plan: Plan) -> float:
    """Wall time of a merge."""
    work = sum(flops(job) * FLOP + entries(job) * ENTRY for job in plan.jobs) / plan.workers
    return START + (0.0 if plan.arrays else TORCH) + work + (plan.bytes_in + plan.bytes_out) * BYTE


def flops(job: Job) -> float:
    """Operations of the linear algebra of one job."""
    units, side, area = sum(job.held), sum(job.spec.shape), job.spec.out * job.spec.in_
    least = min(job.spec.shape)
    norms = sum(4.0 * side * rank**2 for rank in job.held)
    if job.plugin.on == "entries":
        dense = 2.0 * area * least + _EIGEN * least**3
        sketch = 2.0 * area * (job.spec.rank + OVERSAMPLE) * (2 * PASSES + 1)
        return norms + 2.0 * area * units + (dense if job.exact else sketch)
    if units >= least:
        return norms + 2.0 * area * (units + least) + _EIGEN * least**3
    cores = max(1.0, job.plugin.copies / 3) * (2.0 * side * units**2 + 2 * _EIGEN * units**3)
    return norms + cores + 2.0 * side * units * job.spec.rank


def entries(job: Job) -> float:
    """Entries of updates that pass an elementwise rule, each pass counted."""
    if job.plugin.on != "entries":
        return 0.0
    surveys = 2 if job.plugin.survey else 0
    merges = 1 if job.exact or job.hold else PASSES + 1
    return float(surveys + merges) * len(job.held) * job.spec.out * job.spec.in_
