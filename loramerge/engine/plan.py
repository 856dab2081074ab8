"""The plan of a merge, from headers alone: one job per module, checks, sizes. Reads no tensor, imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from loramerge.core.adapter import DTYPE_BYTES, Adapter, ModuleSpec, widest
from loramerge.core.names import first_match, matches, natural
from loramerge.errors import BadOption, NeedsBase, ShapeMismatch, UsageError
from loramerge.methods._method import MERGE
from loramerge.options import parse

if TYPE_CHECKING:
    from loramerge.linalg.ranks import RankRule
    from loramerge.methods._method import Method


@dataclass(frozen=True)
class Request:
    """What is asked for: a method, its options, one weight per adapter, a rank rule, the rest.

    `overrides` maps patterns on canonical module names to options that replace `options` there
    (first match wins). `scale` multiplies the result. `dtype` is safetensors' name of the result's
    type; None keeps the widest of the inputs.
    """

    method: str
    options: Mapping[str, Any]
    weights: Sequence[float]
    rank: RankRule
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0
    scale: float = 1.0
    dtype: str | None = None
    dora: str = "error"


@dataclass(frozen=True)
class Job:
    """One module's share of the work. `members` are indices into the adapters that have the module.

    `spec` describes the result; its rank is an upper bound.
    """

    module: str
    members: tuple[int, ...]
    weights: tuple[float, ...]
    spec: ModuleSpec
    method: str
    options: Any
    rank: RankRule
    seed: int
    scale: float
    device: str
    bytes_in: int

    @property
    def memory(self) -> int:
        """Bytes at work, roughly: inputs with their float64 copies, or the dense sum where that is smaller."""
        stacked = self.bytes_in + 3 * 8 * (self.bytes_in // DTYPE_BYTES[self.spec.dtype])
        # Only a sum that the engine truncates takes its terms one by one.
        dense = 3 * 8 * self.spec.out * self.spec.in_ + stacked // len(self.members)
        held = min(stacked, dense) if MERGE[self.method].rank == "free" else stacked
        return held + 2 * 8 * self.spec.numel


@dataclass(frozen=True)
class Plan:
    """All jobs in the order of the result, how they will be run, and what that takes."""

    jobs: tuple[Job, ...]
    executor: str
    workers: int
    device: str
    notes: tuple[str, ...] = ()

    @property
    def bytes_in(self) -> int:
        """Bytes of factors to read."""
        return sum(job.bytes_in for job in self.jobs)

    @property
    def bytes_out(self) -> int:
        """Bytes of factors to write, at most."""
        return sum(job.spec.nbytes for job in self.jobs)

    @property
    def memory(self) -> int:
        """Bytes at work at once, at most: the largest jobs, one per worker and one waiting."""
        largest = sorted((job.memory for job in self.jobs), reverse=True)
        return sum(largest[: 2 * self.workers if self.workers > 1 else 1])

    @property
    def rank(self) -> int:
        """The largest rank the result can have."""
        return max((job.spec.rank for job in self.jobs), default=0)


def plan(
    adapters: Sequence[Adapter],
    request: Request,
    method: Method,
    *,
    executor: str = "threads",
    workers: int | None = None,
    device: str = "cpu",
    max_memory: int | None = None,
) -> Plan:
    """One job per module of the union of the adapters' modules, in natural order.

    Raises UsageError without adapters or modules, ShapeMismatch where two adapters disagree about a
    module, NeedsBase for DoRA, BadOption for options that fit no module or a budget too small for
    the largest one.
    """
    _check_adapters(adapters, request)
    members = _members(adapters)
    _check_patterns(request.overrides, members)
    dtype = request.dtype or widest(spec.dtype for adapter in adapters for spec in adapter.modules.values())
    jobs = tuple(_job(adapters, name, found, request, method, dtype, device) for name, found in members.items())
    if method.check:
        ranks = [[adapters[i].modules[job.module].rank for i in job.members] for job in jobs]
        method.check([job.options for job in jobs], ranks)
    return _fitted(Plan(jobs, executor, workers or default_workers(), device, _notes(adapters)), max_memory)


def default_workers() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resolve_device(asked: str) -> str:
    """The device that "cpu", "cuda" or "auto" means here; raises BadOption where there is no CUDA."""
    if asked == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if asked == "cuda":
        raise BadOption("There is no CUDA device here.", hint="--device cpu")
    return "cpu"


def _check_adapters(adapters: Sequence[Adapter], request: Request) -> None:
    if not adapters:
        raise UsageError("There are no adapters to work on.", hint="loramerge pull USER/ADAPTER, or name some")
    empty = [adapter.name for adapter in adapters if not adapter.modules]
    if empty:
        raise UsageError("There is no LoRA module to merge.", where=", ".join(empty), hint="loramerge show NAME")
    dora = _with_dora(adapters)
    if dora and request.dora == "error":
        raise NeedsBase(
            "A DoRA update depends on the base weights, which a merge of adapters does not have.",
            where=", ".join(dora),
            hint="--dora factors merges the factors and leaves the magnitudes out (approximate)",
        )


def _with_dora(adapters: Sequence[Adapter]) -> list[str]:
    return [a.name for a in adapters if any(spec.dora for spec in a.modules.values())]


def _notes(adapters: Sequence[Adapter]) -> tuple[str, ...]:
    names = ", ".join(_with_dora(adapters))
    return (f"the DoRA magnitudes of {names} are left out, so this merge is approximate",) if names else ()


def _members(adapters: Sequence[Adapter]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, adapter in enumerate(adapters):
        for name in adapter.modules:
            found.setdefault(name, []).append(index)
    return {name: found[name] for name in sorted(found, key=natural)}


def _check_patterns(overrides: Mapping[str, Any], members: Mapping[str, Any]) -> None:
    for pattern in overrides:
        if not any(matches(pattern, name) for name in members):
            raise BadOption(f"No module matches {pattern!r}.", hint="loramerge inspect NAME lists the modules")


def _job(
    adapters: Sequence[Adapter],
    name: str,
    members: Sequence[int],
    request: Request,
    method: Method,
    dtype: str,
    device: str,
) -> Job:
    specs = [adapters[i].modules[name] for i in members]
    _check_shapes(name, specs, [adapters[i].name for i in members])
    pattern = first_match(request.overrides, name)
    changed = request.overrides[pattern] if pattern is not None else {}
    options: Any = parse(method.options, {**request.options, **changed})
    spec = replace(
        specs[0],
        rank=_bound(method, options, request, [spec.rank for spec in specs], specs[0]),
        scale=1.0,
        dtype=dtype,
        alpha=0.0,
        rslora=False,
        bias=any(spec.bias for spec in specs),
        dora=False,
    )
    weights = tuple(float(request.weights[i]) for i in members)
    size = sum(spec.nbytes for spec in specs)
    return Job(
        name,
        tuple(members),
        weights,
        spec,
        request.method,
        options,
        request.rank,
        request.seed,
        request.scale,
        device,
        size,
    )


def _check_shapes(name: str, specs: Sequence[ModuleSpec], owners: Sequence[str]) -> None:
    shapes = {(spec.kind, spec.kernel, spec.shape) for spec in specs}
    if len(shapes) > 1:
        seen = " and ".join(f"{kind} {shape[0]}×{shape[1]}" for kind, _, shape in sorted(shapes))
        raise ShapeMismatch(
            f"Adapters disagree about the shape of {name}: {seen}.",
            where=", ".join(owners),
            hint="they were made for different base models: merge those of one base",
        )


def _bound(method: Method, options: Any, request: Request, ranks: Sequence[int], spec: ModuleSpec) -> int:
    if method.rank == "own":
        return method.bound(options, ranks) if method.bound else sum(ranks)
    return request.rank.bound(ranks, spec.out, spec.in_)


def _fitted(made: Plan, max_memory: int | None) -> Plan:
    workers = max(1, min(made.workers, len(made.jobs)))
    fitted = replace(made, workers=workers, executor=made.executor if workers > 1 else "serial")
    while max_memory is not None and fitted.memory > max_memory and fitted.workers > 1:
        fewer = fitted.workers - 1
        fitted = replace(fitted, workers=fewer, executor=fitted.executor if fewer > 1 else "serial")
    if max_memory is not None and fitted.memory > max_memory:
        largest = max(fitted.jobs, key=lambda job: job.memory)
        raise BadOption(
            f"The largest module needs {fitted.memory:,} bytes, above --max-memory.",
            where=largest.module,
            hint=f"--max-memory {fitted.memory / 2**20 + 1:.0f}MiB",
        )
    return fitted
