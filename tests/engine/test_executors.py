"""Ordered maps. What runs in other processes has to be importable there, hence builtins as work."""

from __future__ import annotations

import operator
import threading
import time

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from loramerge.core.statistics import KINDS, Statistics
from loramerge.engine.executors import ordered_map
from loramerge.engine.plan import Request, Setting, plan
from loramerge.engine.run import Inputs, run
from loramerge.errors import BadTensor, LoramergeError
from loramerge.formats._format import open_adapter
from loramerge.linalg import ranks
from loramerge.methods._method import MERGE

# Starting processes takes seconds, so each claim about them is made by one test.
here = pytest.mark.parametrize(("kind", "workers"), [("serial", 1), ("threads", 3)])


def drawn(kind, module):
    """Statistics that some model could have; a function of this file, so that it pickles."""
    draw = torch.Generator().manual_seed(len(module))
    side = 96 if kind == "fisher_out" else 64
    rows = torch.rand(side, side, generator=draw, dtype=torch.float64)
    return rows @ rows.T if kind == "grams" else rows[0]


def measured(adapter):
    """All kinds of statistics of all modules of an adapter."""
    shapes = {(kind, module): tuple(drawn(kind, module).shape) for kind in KINDS for module in adapter.modules}
    return Statistics("measured", shapes, drawn)


def merged(adapters, method, options, kind, workers):
    """All factors of a merge as bytes."""
    statistics = tuple(measured(adapter) for adapter in adapters)
    asked = Request(Setting(method, options, [1.0] * len(adapters), ranks.parse("3")))
    made = plan(adapters, asked, statistics=statistics, executor=kind, workers=workers)
    return [
        (done.module, np.asarray(done.delta.b).tobytes(), np.asarray(done.delta.a).tobytes())
        for done in run(made, Inputs(tuple(adapters), statistics))
    ]


@here
def test_results_come_in_the_order_of_the_jobs(kind, workers):
    found = list(ordered_map(operator.mul, range(20), 3, kind=kind, workers=workers))

    assert found == [job * 3 for job in range(20)]


def test_no_jobs_are_no_results():
    assert list(ordered_map(operator.mul, [], 3, kind="processes", workers=2)) == []


@pytest.mark.parametrize("method", MERGE.names())
def test_every_method_gives_the_same_bytes_on_more_workers(make_adapter, method):
    sizes = {f"layers.{layer}.{name}": (96, 64) for layer in range(2) for name in "qv"}
    count = min(MERGE[method].most or 3, 3)
    adapters = [open_adapter(make_adapter(f"a{i}", rank=4, modules=sizes)) for i in range(count)]

    assert merged(adapters, method, {}, "serial", 1) == merged(adapters, method, {}, "threads", 3)


@pytest.mark.parametrize(
    ("method", "options", "others"),
    [
        ("linear", {}, [("threads", 1), ("threads", 2), ("threads", 4)]),
        ("ties", {"density": 0.3}, [("threads", 2), ("threads", 4), ("processes", 2)]),
        ("lego", {"k": 5}, [("threads", 1), ("threads", 2), ("threads", 4), ("processes", 2)]),
    ],
)
def test_the_bytes_are_the_same_on_every_executor(make_adapter, method, options, others):
    sizes = {f"layers.{layer}.{name}": (96, 64) for layer in range(4) for name in "qv"}
    adapters = [open_adapter(make_adapter(name, rank=4, modules=sizes)) for name in ("x", "y", "z")]

    first = merged(adapters, method, options, "serial", 1)
    found = [merged(adapters, method, options, *other) for other in others]

    assert len(first) == len(sizes)
    assert all(other == first for other in found)


@here
def test_an_error_in_a_job_keeps_its_class_and_its_words(make_adapter, kind, workers):
    good, bad = make_adapter("good"), make_adapter("bad")
    weights = bytearray((bad / "adapter_model.safetensors").read_bytes())
    weights[-4:] = torch.tensor([float("nan")]).numpy().tobytes()
    (bad / "adapter_model.safetensors").write_bytes(weights)

    with pytest.raises(BadTensor, match="1 elements that are NaN") as caught:
        merged([open_adapter(good), open_adapter(bad)], "linear", {}, kind, workers)

    assert str(bad) in caught.value.where


def test_processes_keep_order_compute_with_one_thread_and_hand_errors_over_whole(monkeypatch):
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "3")
    threads = "__import__('torch').get_num_threads()"
    blas = "{pool['num_threads'] for pool in __import__('threadpoolctl').threadpool_info()}"
    broken = "(_ for _ in ()).throw(__import__('loramerge.errors').errors.BadTensor('bad', where='there', hint='this'))"

    results = ordered_map(eval, ["0", threads, blas, "3", broken, "5"], {}, kind="processes", workers=2)

    assert [next(results) for _ in range(4)] == [0, 1, {1}, 3]
    with pytest.raises(BadTensor, match="bad") as caught:
        next(results)
    assert (caught.value.where, caught.value.hint) == ("there", "this")


@here
def test_an_error_that_is_not_ours_comes_through_too(kind, workers):
    results = ordered_map(operator.truediv, [1, 2, 0, 4], 0.0, kind=kind, workers=workers)

    with pytest.raises(ZeroDivisionError):
        list(results)


def test_results_before_the_error_are_delivered_and_work_after_it_is_dropped():
    started = []

    def work(job, payload):
        started.append(job)
        if job == 2:
            raise LoramergeError("stop")
        return job

    results = ordered_map(work, range(1000), None, kind="threads", workers=2)

    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(LoramergeError, match="stop"):
        next(results)
    assert len(started) < 100


def test_a_worker_that_dies_is_an_error_with_advice():
    with pytest.raises(LoramergeError, match="worker process died") as caught:
        list(ordered_map(eval, ["__import__('os')._exit(9)"] * 3, {}, kind="processes", workers=2))

    assert "--workers 1" in caught.value.hint


def test_at_most_two_jobs_per_worker_are_under_way():
    begun = threading.Semaphore(0)
    started = []

    def work(job, payload):
        started.append(job)
        begun.release()
        return job

    results = ordered_map(work, range(100), None, kind="threads", workers=3)
    next(results)
    for _ in range(6):
        assert begun.acquire(timeout=10)
    time.sleep(0.05)

    assert sorted(started) == list(range(6))
    results.close()


def test_serial_work_is_done_when_its_result_is_asked_for():
    started = []

    results = ordered_map(lambda job, payload: started.append(job), range(3), None)
    next(results)

    assert started == [0]


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info()]


@pytest.fixture
def three_threads():
    """A process that computes with three threads, as on a larger machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with threadpool_limits(3):
        yield blas_threads()
    torch.set_num_threads(before)


@pytest.mark.parametrize(("kind", "workers"), [("serial", 1), ("threads", 2)])
def test_work_has_one_thread_and_the_caller_has_its_own_again_afterwards(three_threads, kind, workers):
    def work(job, payload):
        return torch.get_num_threads(), set(blas_threads())

    found = list(ordered_map(work, range(4), None, kind=kind, workers=workers))

    assert found == [(1, {1})] * 4
    assert (torch.get_num_threads(), blas_threads()) == (3, three_threads)


@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_the_callers_threads_come_back_also_after_an_error_and_when_nobody_reads_on(three_threads, kind):
    with pytest.raises(ZeroDivisionError):
        list(ordered_map(operator.truediv, [1, 2], 0.0, kind=kind, workers=2))
    unread = ordered_map(operator.mul, range(9), 1, kind=kind, workers=2)
    next(unread)
    unread.close()

    assert (torch.get_num_threads(), blas_threads()) == (3, three_threads)
