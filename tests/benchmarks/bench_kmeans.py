"""Is k-means through a Gram matrix as good as scikit-learn's at the same n_init, and faster?

All adapters of one base that were trained together, and foreign ones of one base, are pooled module by
module as `lego` pools them (scale folded in, units balanced, raw features [a; b]); both cluster every
pool into 8 and 16. A row per group holds the ratio of total inertias, the worst module's ratio and the
ratio of the times. Then 1,024 units of 8,192 dimensions into 64, well grouped and not grouped at all.

Below 1 is better for inertia, above 1 for time. scikit-learn gets the same float64 rows; both have one
thread; times are of one process, taken in turns.

    python tests/benchmarks/bench_kmeans.py [--rounds 3]

Needs the folder of real adapters (LORAMERGE_SHARED) for all but the last.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from _harness import record
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from loramerge.core.adapter import Adapter
from loramerge.formats.peft import FORMAT as PEFT
from loramerge.linalg.cluster import kmeans
from loramerge.linalg.units import pool

SHARED = Path(os.environ.get("LORAMERGE_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
KS = (8, 16)
N_INIT = 10

Rows = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """One problem, clustered by both: inertias and the times of every round in seconds."""

    name: str
    ours: float
    theirs: float
    our_times: tuple[float, ...]
    their_times: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Our inertia over scikit-learn's."""
        return self.ours / self.theirs


def groups() -> Iterator[tuple[str, list[Adapter]]]:
    """Adapters that could be merged: by base, trained and foreign; and the five of rank 8 apart."""
    for kind, folders in (("trained", SHARED.glob("trained/*")), ("foreign", SHARED.glob("adapters/*/*"))):
        by_base = defaultdict(list)
        for folder in sorted(folders):
            if PEFT.sniff(folder) and not list(folder.glob("*.bin")):
                adapter = PEFT.read(folder)
                by_base[adapter.base].append(adapter)
        for base, adapters in sorted(by_base.items(), key=lambda item: str(item[0])):
            if len(adapters) > 1:
                yield f"{kind} {base}", adapters
            alike = [a for a in adapters if a.name.endswith("-r8")]
            if 1 < len(alike) < len(adapters):
                yield f"{kind} {base} r8", alike


def pools(adapters: list[Adapter]) -> Iterator[tuple[str, Rows]]:
    """Each module's living units as rows."""
    for name in sorted({name for adapter in adapters for name in adapter.modules}):
        units = pool([adapter.load(name) for adapter in adapters if name in adapter.modules]).balanced()
        yield name, units.take(units.sizes() > 0).ordered().rows().numpy()


def ours(rows: Rows, k: int) -> float:
    """The inertia of loramerge's partition; the Gram matrix is part of the work."""
    return kmeans(rows @ rows.T, k, n_init=N_INIT).inertia


def theirs(rows: Rows, k: int) -> float:
    """The inertia of scikit-learn's partition."""
    return float(KMeans(k, n_init=N_INIT, random_state=0).fit(rows).inertia_)


def timed(function: Callable[[Rows, int], float], rows: Rows, k: int) -> tuple[float, float]:
    """What it returns and how long it took."""
    start = time.perf_counter()
    found = function(rows, k)
    return found, time.perf_counter() - start


def compare(name: str, rows: Rows, k: int, rounds: int) -> Result:
    """Both on one problem, in turns."""
    runs = [(timed(ours, rows, k), timed(theirs, rows, k)) for _ in range(rounds)]
    (mine, _), (other, _) = runs[0]
    return Result(name, mine, other, tuple(one[1] for one, _ in runs), tuple(two[1] for _, two in runs))


def tell(group: str, k: int, shape: str, results: list[Result]) -> None:
    """Print a row and append it to the results."""
    rounds = range(len(results[0].our_times))
    speedups = [sum(r.their_times[i] for r in results) / sum(r.our_times[i] for r in results) for i in rounds]
    seconds = [sum(r.our_times[i] for r in results) for i in rounds]
    worst = max(results, key=lambda result: result.ratio)
    quartiles = statistics.quantiles(speedups, n=4) if len(speedups) > 1 else speedups * 3
    row = record(
        "kmeans",
        group=group,
        k=k,
        n_init=N_INIT,
        problems=len(results),
        shape=shape,
        inertia_ratio=sum(r.ours for r in results) / sum(r.theirs for r in results),
        worst_ratio=worst.ratio,
        worst=worst.name,
        speedup=statistics.median(speedups),
        speedup_q1=quartiles[0],
        speedup_q3=quartiles[2],
        seconds=statistics.median(seconds),
    )
    print(
        f"{group:34} k={k:<3} {len(results):3} × {shape:14} inertia {row['inertia_ratio']:.4f}"
        f"  worst {worst.ratio:.4f}  speed {row['speedup']:.1f}×  {row['seconds']:.2f} s",
        flush=True,
    )


def synthetic(grouped: bool) -> Rows:
    """1,024 units of 8,192 dimensions: around 48 centres, or around none."""
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((1024, 8192))
    return rows + draw.standard_normal((48, 8192))[draw.integers(0, 48, 1024)] if grouped else rows


def main() -> None:
    """All groups, then the synthetic ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each problem is timed")
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct units than clusters
    with threadpool_limits(1):
        ours(np.eye(9), 3), theirs(np.eye(9), 3)
        for group, adapters in groups():
            problems = list(pools(adapters))
            for k in KS:
                found = [compare(name, rows, k, rounds) for name, rows in problems if len(rows) > k]
                sizes = [rows.shape[0] for _, rows in problems if len(rows) > k]
                if found:
                    tell(group, k, f"{min(sizes)}–{max(sizes)} units", found)
        for name, grouped in (("around 48 centres", True), ("around none", False)):
            tell(f"synthetic {name}", 64, "1024 × 8192", [compare(name, synthetic(grouped), 64, rounds)])


if __name__ == "__main__":
    main()
