"""What do the updates of many adapters cost beside the base's own product, and which way of computing them is cheapest?

One module, n updates of rank 16, so many rows each. Ways on a processor: the base's product alone (the floor), our
grouped product, a loop of plain products, and for mixtures of four sources the coefficient form beside the grouped
product of mixtures written out. On a GPU also how near `shrink` and `expand` come to the speed of a copy, whether base
and updates in one kernel beat the library's product with ours behind it, and a pass of one layer's seven modules beside
a loop over the adapters. Each row holds its ratio to the first way of its table, from the same run.

    python tests/benchmarks/bench_kernels.py [--device cpu|cuda] [--rounds 15]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from itertools import accumulate

import torch
from _harness import record, summary, timed
from torch import Tensor
from torch.nn.functional import linear as base_product

from loramerge.kernels import combined, grouped
from loramerge.kernels.pack import Pack, Segments, Slices

RANK, SOURCES = 16, 4
POINTS = [(8, 1, 512, 512), (8, 32, 512, 512), (32, 8, 512, 512), (32, 8, 512, 1408), (8, 256, 512, 512)]
COMBINED = [(32, 8, 512, 512), (128, 8, 512, 512), (8, 256, 512, 512)]
CALLS = 20

Ways = Mapping[str, Callable[[], object]]


def drawn(*sides: int, dtype: torch.dtype, device: str) -> Tensor:
    draw = torch.Generator().manual_seed(sum(sides))
    return torch.randn(*sides, generator=draw).mul_(sides[-1] ** -0.5).to(device, dtype)


def packed(count: int, inputs: int, out: int, dtype: torch.dtype, device: str) -> Pack:
    a, b = (drawn(count * RANK, side, dtype=dtype, device=device) for side in (inputs, out))
    return Pack(a, b, tuple(range(0, count * RANK + 1, RANK)))


def looped(y: Tensor, x: Tensor, pack: Pack, segments: Segments) -> None:
    """A plain product after another for each update, as a loop over adapters has them."""
    for low, high, update, scale in segments:
        units = pack.rows(update)
        y[low:high].addmm_(x[low:high] @ pack.a[units].T, pack.b[units], alpha=scale)


def table(bench: str, ways: Ways, rounds: int, **fields: object) -> None:
    """Time all ways in turns, CALLS calls each, and record a row for each."""
    for way in ways.values():
        way()
    runs = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            runs[name].append(timed(lambda way=way: [way() for _ in range(CALLS)]))
    found = {name: summary(used) for name, used in runs.items()}
    first = next(iter(found.values()))["wall_s"]
    for name, numbers in found.items():
        ratio = round(numbers["wall_s"] / first, 3)
        record(bench, way=name, calls=CALLS, ratio=ratio, threads=torch.get_num_threads(), **fields, **numbers)
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        print(f"{bench} {shown} {name:24} {numbers['wall_s'] / CALLS * 1e3:9.4f} ms a call   x {ratio}", flush=True)


def grouping(dtype: torch.dtype, rounds: int) -> None:
    """Grouped against a loop, and three modules that read the same rows against one after another."""
    for count, rows, inputs, out in POINTS:
        sides = (count * rows, inputs), (count * rows, out), (out, inputs)
        x, y, weight = (drawn(*side, dtype=dtype, device="cpu") for side in sides)
        pack = packed(count, inputs, out, dtype, "cpu")
        segments = Segments.equal(range(count), [0.5] * count, rows)
        slices, ys = Slices.of([pack] * 3), [y, y.clone(), y.clone()]
        ways = {
            "base": partial(base_product, x, weight),
            "grouped": partial(grouped.add_, y, x, pack, segments),
            "loop of addmm_": partial(looped, y, x, pack, segments),
            "3 modules, 1 shrink": partial(grouped.add_slices_, ys, x, slices, segments),
            "3 modules, 3 shrinks": lambda ys=ys, x=x, pack=pack, s=segments: [grouped.add_(o, x, pack, s) for o in ys],
        }  # fmt: skip
        table("kernels", ways, rounds, n=count, rows=rows, inputs=inputs, out=out, dtype=str(dtype)[6:])


def combining(dtype: torch.dtype, rounds: int) -> None:
    """Mixtures of four sources: coefficients over their units, or each mixture written out."""
    for count, rows, inputs, out in COMBINED:
        sides = (count * rows, inputs), (count * rows, out), (out, inputs)
        x, y, weight = (drawn(*side, dtype=dtype, device="cpu") for side in sides)
        pack = packed(SOURCES, inputs, out, dtype, "cpu")
        c = torch.rand(count, SOURCES, generator=torch.Generator().manual_seed(0)).repeat_interleave(RANK, dim=1)
        # A mixture written out has the sources' units, B's scaled: rank 64, and its own B in memory.
        b = (c[:, :, None] * pack.b.float()).to(dtype).flatten(0, 1)
        written = Pack(pack.a.repeat(count, 1), b, tuple(accumulate([SOURCES * RANK] * count, initial=0)))
        cut = packed(count, inputs, out, dtype, "cpu")
        segments = Segments.equal(range(count), [1.0] * count, rows)
        ways = {
            "base": partial(base_product, x, weight),
            "coefficients": partial(combined.add_, y, x, pack, c),
            "written out, rank 64": partial(grouped.add_, y, x, written, segments),
            "written out, rank 16": partial(grouped.add_, y, x, cut, segments),
        }  # fmt: skip
        kept = {"mb_coefficients": _mb(c), "mb_written": _mb(written.a, written.b)}
        table(
            "kernels-combined", ways, rounds, n=count, rows=rows, inputs=inputs, out=out, dtype=str(dtype)[6:], **kept
        )


def _mb(*tensors: Tensor) -> float:
    return round(sum(t.nbytes for t in tensors) / 1e6, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    if arguments.device == "cuda":
        import _kernels_cuda

        _kernels_cuda.main()
        return
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.bfloat16):
        grouping(dtype, arguments.rounds)
        combining(dtype, arguments.rounds)


if __name__ == "__main__":
    main()
