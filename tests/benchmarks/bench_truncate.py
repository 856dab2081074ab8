"""How much does truncating from factors save against the SVD of the dense sum, and is it as exact?

n adapters of rank 16 with decaying spectra and a partly shared A, added and cut to rank 16, one module of
side × side. A row per n and way: truncate_sum as it is, the same by QR in float64, and the dense thin SVD
in float32 (once, for one n: it takes a minute at 4,096). The error of the singular values is the largest
relative one of the 16, against QR in float64.

    python tests/benchmarks/bench_truncate.py [--side 4096] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from _harness import record
from torch import Tensor

from loramerge.core.lowrank import LowRank, cat
from loramerge.linalg.measure import singular_values
from loramerge.linalg.truncate import truncate_sum

RANK = 16
COUNTS = (2, 8, 32, 64)
DENSE = 8


def adapters(count: int, side: int) -> list[LowRank]:
    """Random updates in float32; half of every A is the same in all."""
    draw = torch.Generator().manual_seed(0)
    shared = torch.randn(RANK // 2, side, generator=draw)
    decay = torch.arange(1, RANK + 1).float() ** -0.7
    made = []
    for _ in range(count):
        a = torch.cat([shared, torch.randn(RANK - len(shared), side, generator=draw)])
        made.append(LowRank(b=torch.randn(side, RANK, generator=draw) * decay, a=a, scale=2.0))
    return made


def factors(deltas: list[LowRank]) -> Tensor:
    """The first singular values by truncate_sum."""
    delta = truncate_sum(deltas, RANK).delta
    return delta.b.norm(dim=0) * delta.a.norm(dim=1)


def qr(deltas: list[LowRank]) -> Tensor:
    """The same truncation by two QRs and the SVD of the core, in float64."""
    whole = cat([delta.to(dtype=torch.float64) for delta in deltas])
    (q, r), (p, s) = torch.linalg.qr(whole.b), torch.linalg.qr(whole.a.T)
    left, values, right = torch.linalg.svd(r @ s.T)
    root = values[:RANK].sqrt()
    b, a = q @ (left[:, :RANK] * root), (root[:, None] * right[:RANK]) @ p.T
    return b.norm(dim=0) * a.norm(dim=1)


def dense(deltas: list[LowRank]) -> Tensor:
    """The first singular values of the (side, side) sum in float32."""
    total = deltas[0].dense()
    for delta in deltas[1:]:
        total += delta.dense()
    return torch.linalg.svd(total, full_matrices=False).S[:RANK].double()


def tell(name: str, function: Callable[[list[LowRank]], Tensor], deltas: list[LowRank], rounds: int) -> float:
    """Time one way, print a row, append it; returns the median in seconds."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        found = function(deltas)
        times.append(time.perf_counter() - start)
    want = singular_values(cat([delta.to(dtype=torch.float64) for delta in deltas]))[:RANK]
    error = float(((found - want) / want).abs().max())
    quartiles = statistics.quantiles(times, n=4) if rounds > 1 else times * 3
    row = record(
        "truncate",
        way=name,
        adapters=len(deltas),
        units=len(deltas) * RANK,
        side=deltas[0].shape[0],
        rank=RANK,
        ms=1000 * statistics.median(times),
        q1=1000 * quartiles[0],
        q3=1000 * quartiles[2],
        value_error=error,
    )
    print(f"{name:12} {len(deltas):3} adapters  {row['ms']:10.1f} ms  singular values off by {error:.1e}", flush=True)
    return statistics.median(times)


def main() -> None:
    """Every way for every count; the dense one once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    factors(adapters(2, 64)), qr(adapters(2, 64)), dense(adapters(2, 64))
    for count in COUNTS:
        deltas = adapters(count, options.side)
        ours = tell("factors", factors, deltas, options.rounds)
        tell("QR float64", qr, deltas, options.rounds)
        if count == DENSE:
            print(f"the dense SVD takes {tell('dense SVD', dense, deltas, 1) / ours:.0f} times as long")


if __name__ == "__main__":
    main()
