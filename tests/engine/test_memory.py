"""What a plan says a module takes, against what a process of its own grows by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import pytest

SIZES = {"many": (100, 384, 512, 8), "wide": (4, 2048, 2048, 16)}
"""Adapters, out, in and rank: many small ones, and few wide ones."""
METHODS = ("linear", "karcher", "ties", "regmean", "knots", "ctm", "np", "pico", "lego")
SPARE = 24 * 2**20
"""What libraries take for themselves."""


def grown(method, size):
    """(bytes this process grows by when it runs the plan of one module, bytes the plan says)."""
    import resource

    import torch

    from loramerge.core.adapter import Adapter, ModuleSpec
    from loramerge.core.statistics import Statistics
    from loramerge.engine.plan import Request, Setting, plan
    from loramerge.engine.run import Inputs, run
    from loramerge.linalg.ranks import RankRule

    count, out, in_, rank = SIZES[size]
    spec = ModuleSpec("m", out, in_, rank, 2.0)
    shapes = {("grams", "m"): (in_, in_), ("fisher_in", "m"): (in_,), ("fisher_out", "m"): (out,)}
    adapters = [Adapter(str(i), "peft", {"m": spec}, partial(update, i, spec)) for i in range(count)]
    measured = [Statistics(str(i), shapes, partial(statistic, shapes)) for i in range(count)]
    setting = Setting(method, {}, (1 / count,) * count, RankRule("fixed", rank))
    made = plan(adapters, Request(setting), statistics=measured, executor="serial", workers=1)
    small = torch.eye(8, dtype=torch.float64)
    for decompose in (torch.linalg.svd, torch.linalg.eigh, torch.linalg.qr):
        decompose(small)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(list(run(made, Inputs(adapters, measured)))) == 1
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before), made.memory


def update(seed, spec, module):
    import torch

    from loramerge.core.lowrank import LowRank

    draw = torch.Generator().manual_seed(seed)
    b, a = (torch.randn(*sides, generator=draw) for sides in ((spec.out, spec.rank), (spec.rank, spec.in_)))
    return LowRank(b, a, spec.scale)


def statistic(shapes, kind, module):
    import torch

    shape = shapes[kind, module]
    return torch.eye(*shape, dtype=torch.float64) if len(shape) == 2 else torch.ones(*shape, dtype=torch.float64)


def measure():
    """Each case in a fork of its own, so that none starts at another's peak."""
    import torch

    import loramerge.engine.run
    import loramerge.linalg.cluster
    import loramerge.linalg.compress
    import loramerge.linalg.joint  # noqa: F401

    torch.set_num_threads(1)
    for size in SIZES:
        for method in METHODS:
            sys.stdout.flush()
            if os.fork() == 0:
                print(json.dumps([method, size, *grown(method, size)]), flush=True)
                os._exit(0)
            os.wait()


@pytest.fixture(scope="module")
def rows():
    if not sys.platform.startswith("linux"):
        pytest.skip("a fork's peak starts at what it was born with on Linux alone")
    # The allocator gives back what is freed, so that what is held counts, and not how it happened to lie.
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    found = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True, env=alone)
    return {(method, size): (grew, said) for method, size, grew, said in map(json.loads, found.stdout.splitlines())}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", METHODS)
def test_a_module_takes_about_what_its_plan_says(rows, method, size):
    grew, said = rows[method, size]

    assert grew <= 1.25 * said + SPARE


if __name__ == "__main__":
    measure()
