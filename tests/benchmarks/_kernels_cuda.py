"""The GPU's part of `bench_kernels.py`: times are of CUDA graphs over several sets of buffers, so that neither the
host nor what the cache still holds is measured; "eager" rows are the same calls from Python."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from _harness import gpu, record
from bench_kernels import RANK, drawn, looped, packed
from torch import Tensor
from torch.nn.functional import linear as base_product

from loramerge.kernels import grouped, linear
from loramerge.kernels._triton import expand, shrink, tiles
from loramerge.kernels.dispatch import Backend
from loramerge.kernels.pack import Pack, Segments, Slices

SETS, REPEATS, COUNT, SIDE = 8, 30, 32, 4096
# Llama-3-8B's layer, modules that read the same rows together: inputs, and outputs of q/k/v, o, gate/up, down.
LAYER = [(4096, (4096, 1024, 1024)), (4096, (4096,)), (4096, (14336, 14336)), (14336, (4096,))]


def seconds(calls: Sequence[Callable[[], object]], *, graph: bool = True) -> float:
    """The median time of one of the calls, which are run one after another."""
    for call in calls:
        call()
    torch.cuda.synchronize()
    run: Callable[[], object] = lambda: [call() for call in calls]  # noqa: E731
    if graph:
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            run()
        run = captured.replay
    found = []
    for _ in range(REPEATS):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end) / 1e3 / len(calls))
    return statistics.median(found)


def row(bench: str, way: str, wall: float, **fields: object) -> None:
    """Record and print one row; with `ratio` or `of_copy` among the fields."""
    record(bench, way=way, wall_s=wall, **fields, **gpu())
    print(bench, way, f"{wall * 1e6:.1f} us", *(f"{key}={value}" for key, value in fields.items()), flush=True)


def bandwidth() -> float:
    """Bytes a second that copying a gigabyte reads and writes."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds([lambda: target.copy_(source)])


def bf16(*sides: int) -> Tensor:
    return drawn(*sides, dtype=torch.bfloat16, device="cuda")


def kernels(copy: float) -> None:
    """G4: shrink and expand against the speed of a copy; the error beside torch's."""
    shape = tiles.GROUPED["cuda", 2]
    pack = packed(COUNT, SIDE, SIDE, torch.bfloat16, "cuda")
    for rows in (1, 16, 128, 512):
        total = COUNT * rows
        segments = Segments.equal(range(COUNT), [0.5] * COUNT, rows)
        table, scales = tiles.of(pack.alone, segments, shape.m)
        xs, ys = ([bf16(total, SIDE) for _ in range(SETS)] for _ in range(2))
        h = shrink.launch(xs[0], pack.a, table, RANK, shape)
        first = seconds([partial(shrink.launch, x, pack.a, table, RANK, shape) for x in xs])
        second = seconds([partial(expand.launch, [y], [pack.b], 0, h, table, scales, RANK, shape) for y in ys])
        read = xs[0].nbytes + pack.a.nbytes + h.nbytes
        written = 2 * ys[0].nbytes + pack.b.nbytes + h.nbytes
        row("kernels-cuda", "shrink", first, rows=total, of_copy=round(read / first / copy, 3))
        row("kernels-cuda", "expand", second, rows=total, of_copy=round(written / second / copy, 3))
        row("kernels-cuda", "error", 0.0, rows=total, **errors(xs[0], pack, segments))


def errors(x: Tensor, pack: Pack, segments: Segments) -> dict[str, float]:
    """The root mean square error of ours over torch's, both against float64, and whether bits repeat (G4, G5)."""
    wide = Pack(pack.a.double(), pack.b.double(), pack.starts)
    exact = grouped.reference(x.double(), wide, segments)
    ours, torchs = (computed(x, pack, segments, way) for way in ("triton", "torch"))
    low, high, update, scale = next(iter(segments))
    alone = computed(x[low:high], pack, Segments.equal([update], [scale], high - low), "triton")
    ratio = (ours.double() - exact).norm() / (torchs.double() - exact).norm()
    repeats = torch.equal(ours, computed(x, pack, segments, "triton"))
    same = torch.equal(ours[low:high], alone)
    return {"over_torch": round(float(ratio), 3), "repeats": repeats, "same_alone": same}


def computed(x: Tensor, pack: Pack, segments: Segments, backend: Backend) -> Tensor:
    return grouped.add_(x.new_zeros(len(x), pack.b.shape[1]), x, pack, segments, backend=backend)


def fusing() -> None:
    """Base and updates in one kernel over the library's product with ours behind it: below 1 it may be switched on."""
    pack, weight = packed(COUNT, SIDE, SIDE, torch.bfloat16, "cuda"), bf16(SIDE, SIDE)
    for rows in (16, 64, 128, 256, 512):
        segments = Segments.equal(range(COUNT), [0.5] * COUNT, rows)
        xs = [bf16(COUNT * rows, SIDE) for _ in range(SETS)]
        base = seconds([partial(base_product, x, weight) for x in xs])

        def layered(x: Tensor, fused: bool, segments: Segments = segments) -> Tensor:
            return linear.linear(x, weight, None, pack, segments, fused=fused)

        two, one = (seconds([partial(layered, x, fused) for x in xs]) for fused in (False, True))
        row("kernels-cuda", "base", base, rows=COUNT * rows, ratio=1.0)
        row("kernels-cuda", "base, shrink, expand", two, rows=COUNT * rows, ratio=round(two / base, 3))
        fused = {"ratio": round(one / base, 3), "over_two": round(one / two, 3)}
        row("kernels-cuda", "base_plus_lora", one, rows=COUNT * rows, **fused)


@dataclass(frozen=True)
class Shared:
    """Modules that read the same rows: their packs and weights, and the packs' A's stacked."""

    packs: list[Pack]
    weights: list[Tensor]
    slices: Slices

    @classmethod
    def drawn(cls, inputs: int, outs: Sequence[int]) -> Shared:
        packs = [packed(COUNT, inputs, out, torch.bfloat16, "cuda") for out in outs]
        return cls(packs, [bf16(out, inputs) for out in outs], Slices.of(packs))

    def base(self, x: Tensor) -> list[Tensor]:
        return [base_product(x, weight) for weight in self.weights]

    def together(self, x: Tensor, segments: Segments) -> None:
        grouped.add_slices_(self.base(x), x, self.slices, segments)

    def alone(self, x: Tensor, update: int) -> None:
        for y, pack in zip(self.base(x), self.packs, strict=True):
            own = pack.rows(update)
            looped(y, x, Pack(pack.a[own], pack.b[own], (0, RANK)), Segments.equal([0], [0.5], len(x)))


def layer() -> None:
    """G1 to G3 as far as kernels show them: one layer's seven modules, 32 adapters at once or one after another."""
    made = [(inputs, Shared.drawn(inputs, outs)) for inputs, outs in LAYER]
    for rows in (1, 16, 64, 256):
        segments = Segments.equal(range(COUNT), [0.5] * COUNT, rows)
        parts = [(bf16(COUNT * rows, inputs), shared) for inputs, shared in made]
        ways = {
            "floor": partial(_each, parts, Shared.base),
            "together": partial(_each, parts, partial(Shared.together, segments=segments)),
            "loop": partial(_loop, parts, rows),
        }
        for graph in (True, False):
            found = {way: seconds([call], graph=graph) for way, call in ways.items()}
            for way, wall in found.items():
                ratios = {"over_floor": round(wall / found["floor"], 3), "of_loop": round(found["loop"] / wall, 2)}
                row("kernels-cuda-layer", way, wall, rows=rows, n=COUNT, graph=graph, **ratios)


def _each(parts: Sequence[tuple[Tensor, Shared]], does: Callable[..., object]) -> None:
    for x, shared in parts:
        does(shared, x)


def _loop(parts: Sequence[tuple[Tensor, Shared]], rows: int) -> None:
    for update in range(COUNT):
        for x, shared in parts:
            shared.alone(x[update * rows : (update + 1) * rows], update)


def main() -> None:
    copy = bandwidth()
    row("kernels-cuda", "copy", 0.0, gb_s=round(copy / 1e9))
    kernels(copy)
    fusing()
    layer()
