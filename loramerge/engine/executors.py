"""Ordered maps: serial, threads, processes. The same results in the same order from each.

At most two jobs per worker are under way, so memory does not grow with the number of jobs. Every
worker computes with one BLAS thread: parallelism is over modules, and a matrix product's rounding
must not depend on how many workers there are.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from loramerge.errors import LoramergeError

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future, ProcessPoolExecutor

J = TypeVar("J")
R = TypeVar("R")
Work = Callable[[J, Any], R]

EXECUTORS = ("serial", "threads", "processes")


def ordered_map(
    work: Work[J, R], jobs: Sequence[J], payload: Any, *, kind: str = "serial", workers: int = 1, torch: bool = True
) -> Iterator[R]:
    """`work(job, payload)` for each job, in order, on one of EXECUTORS; `torch` says whether it computes with torch.

    `work`, `jobs` and `payload` must pickle for "processes"; the payload is sent once to each worker.
    An error in a job is raised here when its turn comes; work not yet begun is dropped.
    """
    keep_freed_memory()
    if kind == "serial" or workers <= 1 or len(jobs) <= 1:
        with one_thread(torch=torch):
            for job in jobs:
                yield work(job, payload)
    elif kind == "threads":
        from concurrent.futures import ThreadPoolExecutor

        with one_thread(torch=torch), ThreadPoolExecutor(workers, initializer=_quiet_thread, initargs=(torch,)) as pool:
            yield from _windowed(pool, work, jobs, (payload,), 2 * workers)
    else:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor

        # A fork after torch has started its threads can hang; a fresh interpreter cannot.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(payload, torch)) as pool:
            yield from _processes(pool, work, jobs, workers)


@contextmanager
def one_thread(*, torch: bool = True) -> Iterator[None]:
    """One BLAS thread inside, the number there was before outside; without `torch` only numpy's."""
    import numpy  # noqa: F401  # only what is loaded can be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), _one_torch_thread() if torch else nullcontext():
        yield


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Let the C library keep what is freed: to return pages and fault them in again took a third of a merge.

    glibc keeps up to twice the largest block it has seen freed, if that is not above 32 MiB; so it is shown
    one, of which no page is touched. Elsewhere this does nothing.
    Source: mallopt(3), M_MMAP_THRESHOLD, "dynamic".
    """
    import numpy as np

    np.empty(31 << 20, np.uint8)


def _quiet_thread(torch: bool) -> None:
    if torch:
        from torch import set_num_threads

        # OpenMP keeps the number of threads for each thread apart, so the main thread's setting is not enough.
        set_num_threads(1)


_PAYLOAD: list[Any] = []


def _begin(payload: Any, torch: bool) -> None:
    """What a worker process is handed once, when it starts."""
    from threadpoolctl import threadpool_limits

    threading.Thread(target=_follow_parent, daemon=True).start()
    _quiet_thread(torch)
    keep_freed_memory()
    threadpool_limits(1)  # numpy's, for as long as the process lives
    _PAYLOAD[:] = [payload]


def _follow_parent() -> None:
    """End this worker when the process that started it is gone, even by kill -9: it would wait for jobs for ever."""
    from multiprocessing import parent_process

    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _processes(pool: ProcessPoolExecutor, work: Work[J, R], jobs: Sequence[J], workers: int) -> Iterator[R]:
    from concurrent.futures.process import BrokenProcessPool

    try:
        yield from _windowed(pool, _Remote(work), jobs, (), 2 * workers)
    except BrokenProcessPool:
        raise LoramergeError(
            "A worker process died (killed, or out of memory).", hint="--workers 1, or a smaller --max-memory"
        ) from None


class _Remote:
    """`work` bound to the payload that its process was handed; pickles as `work` alone."""

    def __init__(self, work: Work[Any, Any]) -> None:
        self.work = work

    def __call__(self, job: Any) -> Any:
        return self.work(job, _PAYLOAD[0])


def _windowed(
    pool: Executor, work: Callable[..., R], jobs: Iterable[J], rest: tuple[Any, ...], window: int
) -> Iterator[R]:
    waiting: deque[Future[R]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(work, job, *rest))
            if len(waiting) >= window:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
