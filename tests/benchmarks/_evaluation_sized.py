"""The part of `bench_evaluation.py` that is told by the size of the base: decode steps and scoring, on a GPU too.

A decode step is one token for each of some sequences of every adapter, behind a cache of random keys and values;
scoring is one item of so many tokens without a cache. Timed is the forward pass up to the last hidden states, called
from Python as an evaluation calls it and waited for: what the host takes counts, and so does the cache's growth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from _harness import Used, compare, gpu, timed
from bench_evaluation import Past, Setup, Size, base, device_of, difference, name_of, tell, tokens_of, ways
from torch import Tensor

LIMIT = 20.0
"""Seconds of one round after which a way is left out."""

BUDGET = 25.0
"""Seconds that the rounds of one shape may take; there are three at least."""


@dataclass(frozen=True)
class Shape:
    """What every adapter is given: items, tokens of each, and tokens that are in the cache before."""

    items: int
    tokens: int
    past: int = 0


@dataclass(frozen=True)
class Course:
    """A base, how many adapters it gets, and what they are given."""

    size: Size
    adapters: int
    shapes: tuple[Shape, ...]


COURSES = {
    # Llama-3-8B with a smaller vocabulary. The longer the cache, the less of a step is what adapters are about.
    "8b": Course(
        Size(layers=32, width=4096, inner=14336, words=32000, heads=32, shared_heads=8),
        32,
        (Shape(1, 1, 256), Shape(16, 1, 64), Shape(1, 64), Shape(1, 256), Shape(1, 512)),
    ),
    "toy": Course(
        Size(layers=2, width=64, inner=96, words=100, heads=4, shared_heads=2),
        3,
        (Shape(1, 1, 8), Shape(4, 1, 5), Shape(1, 16)),
    ),
}


def main(name: str, device: str, dtype: torch.dtype, rounds: int) -> None:
    """All shapes of a size; ways that take too long are left out."""
    course = COURSES[name]
    began = time.perf_counter()
    setup = Setup.of(base(dtype, course.size, device), course.adapters)
    print(f"{name}: the base and {course.adapters} adapters in {time.perf_counter() - began:.0f} s", flush=True)
    for shape in course.shapes:
        one_shape(f"evaluation-{name}", setup, course.size, shape, dtype, rounds)


def one_shape(bench: str, setup: Setup, size: Size, shape: Shape, dtype: torch.dtype, rounds: int) -> None:
    """Every way once, its output compared with the loop's; then rounds of those that are quick enough."""
    device = device_of(setup.model)
    ids = tokens_of(size, shape.items, shape.tokens).to(device)
    past = past_of(size, shape, len(setup.made), device, dtype)
    made = ways(setup, ids, past)
    found, took = first_round(made)
    agreement = {
        "error": difference(found["together"], found["loop"]),
        "error_peft": difference(found["peft"], found["loop"]),
        **steadiness(setup, ids, past, found),
    }
    found.clear()
    for way in (way for way in made if took[way] > LIMIT):
        print(f"   {way} is left out: one round took {took[way]:.0f} s", flush=True)
    kept = [way for way in made if took[way] <= LIMIT]
    timers: dict[str, Callable[[], Used]] = {way: partial(timed, partial(ended, made[way])) for way in kept}
    fitting = max(3, min(rounds, int(BUDGET / sum(took[way] for way in kept))))
    where = gpu() if device.type == "cuda" else {"device": device.type}
    told = {"adapters": len(setup.made), **vars(shape), "dtype": name_of(dtype), **agreement, **where}
    tell({way: row["wall_s"] for way, row in compare(bench, timers, fitting, warm=False, **told).items()})


def past_of(size: Size, shape: Shape, count: int, device: torch.device, dtype: torch.dtype) -> Past:
    """Caches with random keys and values; none for a shape without a past."""
    from transformers import DynamicCache

    if not shape.past:
        return Past.none(count)
    generator = torch.Generator(device).manual_seed(3)
    sides = count * shape.items, size.shared_heads, shape.past, size.width // size.heads
    each, whole = [DynamicCache() for _ in range(count)], DynamicCache()
    for layer in range(size.layers):
        k, v = (torch.randn(sides, generator=generator, dtype=dtype, device=device) for _ in range(2))
        whole.update(k, v, layer)
        for cache, own_k, own_v in zip(each, k.chunk(count), v.chunk(count), strict=True):
            cache.update(own_k, own_v, layer)
    return Past(each, whole)


def first_round(ways: Mapping[str, Callable[[], Tensor]]) -> tuple[dict[str, Tensor], dict[str, float]]:
    """What every way makes, and the seconds it took, with what is compiled or loaded then."""
    found, took = {}, {}
    for name, way in ways.items():
        began = time.perf_counter()
        found[name] = ended(way)
        took[name] = time.perf_counter() - began
    return found, took


def ended(way: Callable[[], Tensor]) -> Tensor:
    """What a way makes, once the device has made it."""
    made = way()
    if made.is_cuda:
        torch.cuda.synchronize()
    return made


def steadiness(setup: Setup, ids: Tensor, past: Past, found: Mapping[str, Tensor]) -> dict[str, Any]:
    """Whether bits repeat, and by how much (0: not a bit) the first adapter alone differs from itself among others.

    The base's own products are the library's, which may choose another kernel for other numbers of rows: so the
    base's difference stands beside.
    """
    alone = ways(replace(setup, made=setup.made[:1]), ids, Past(past.each[:1], past.each[0]))
    return {
        "repeats": torch.equal(ways(setup, ids, past)["together"](), found["together"]),
        "alone": furthest(alone["together"](), found["together"]),
        "base_alone": furthest(alone["base"](), found["base"]),
    }


def furthest(one: Tensor, among: Tensor) -> float:
    """The largest difference from the first of many, over the largest number."""
    same = among[: len(one)]
    return float((one - same).abs().max() / same.abs().max())
