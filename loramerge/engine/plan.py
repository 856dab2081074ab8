"""The plan of a merge, from headers alone: one job per module, checks, sizes. Reads no tensor, imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from loramerge.core.adapter import Adapter, ModuleSpec, widest
from loramerge.core.names import first_match, matches, natural
from loramerge.engine.job import Job
from loramerge.engine.needs import check_metric, check_statistics
from loramerge.errors import BadOption, NeedsBase, ShapeMismatch, UsageError
from loramerge.methods._method import MERGE
from loramerge.options import parse
from loramerge.registry import near

if TYPE_CHECKING:
    from loramerge.core.statistics import Statistics
    from loramerge.linalg.ranks import RankRule
    from loramerge.methods._method import Method


@dataclass(frozen=True)
class Setting:
    """How a module is merged: a method, its options, one weight per adapter, a rank rule."""

    method: str
    options: Mapping[str, Any]
    weights: Sequence[float]
    rank: RankRule


@dataclass(frozen=True)
class Request:
    """What is asked for: a setting, another one for modules that match a pattern, and the rest.

    In `overrides` the first pattern that matches a canonical module name wins. `scale` multiplies the
    result; `rescale` first gives each module's result the mean norm of its inputs. `dtype` is safetensors'
    name of the result's type; None keeps the widest of the inputs.
    """

    setting: Setting
    overrides: Mapping[str, Setting] = field(default_factory=dict)
    seed: int = 0
    scale: float = 1.0
    rescale: bool = False
    dtype: str | None = None
    dora: str = "error"

    @property
    def settings(self) -> list[Setting]:
        """All settings that some module may have."""
        return [self.setting, *self.overrides.values()]


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
        """Bytes at work at once, at most: the largest jobs, one per worker, and as many results that wait."""
        largest = sorted((job.memory for job in self.jobs), reverse=True)[: self.workers]
        waiting = sorted((8 * job.spec.numel for job in self.jobs), reverse=True)[: self.workers]
        return sum(largest) + (sum(waiting) if self.workers > 1 else 0)

    @property
    def rank(self) -> int:
        """The largest rank the result can have."""
        return max((job.spec.rank for job in self.jobs), default=0)

    @property
    def arrays(self) -> bool:
        """Whether numpy does all of the work, and torch is not needed."""
        return all(job.arrays for job in self.jobs)

    @property
    def grains(self) -> tuple[str, ...]:
        """The grains of the methods at work, each once."""
        return tuple(dict.fromkeys(job.plugin.on for job in self.jobs))


def plan(
    adapters: Sequence[Adapter],
    request: Request,
    *,
    statistics: Sequence[Statistics | None] = (),
    metric: Statistics | None = None,
    executor: str = "threads",
    workers: int | None = None,
    device: str = "cpu",
    max_memory: int | None = None,
) -> Plan:
    """One job per module of the union of the adapters' modules, in natural order.

    Raises UsageError without adapters or modules, or with more or fewer than a method takes, ShapeMismatch
    where two adapters disagree about a module, or statistics with one, NeedsBase for DoRA, NeedsData for
    statistics that are missing and for a metric that knows no module, BadOption for options that fit no module
    or a budget too small for the largest one.
    """
    _check_adapters(adapters, request)
    owners = _owners(adapters)
    _check_patterns(request.overrides, owners)
    dtype = request.dtype or widest(spec.dtype for adapter in adapters for spec in adapter.modules.values())
    jobs = tuple(_job(adapters, name, found, request, dtype, device) for name, found in owners.items())
    _check_options(jobs)
    check_statistics(jobs, adapters, statistics)
    notes = (*_notes(adapters), *check_metric(jobs, metric))
    jobs = tuple(replace(job, metric=metric is not None and metric.has("grams", job.module)) for job in jobs)
    return _fitted(Plan(jobs, executor, workers or default_workers(), device, notes), max_memory)


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
    for setting in request.settings:
        _check_count(setting.method, len(adapters))
    dora = _with_dora(adapters)
    if dora and request.dora == "error":
        raise NeedsBase(
            "A DoRA update depends on the base weights, which a merge of adapters does not have.",
            where=", ".join(dora),
            hint="--base PATH, the base model's weights, makes it exact; --dora factors merges the factors and "
            "leaves the magnitudes out (approximate)",
        )


def _check_count(name: str, count: int) -> None:
    method = MERGE[name]
    if count < method.least or (method.most is not None and count > method.most):
        wanted = f"{method.least}" if method.least == method.most else f"{method.least} or more"
        raise UsageError(f"{name} takes {wanted} adapters, not {count}.", hint="--method linear takes any number")


def _with_dora(adapters: Sequence[Adapter]) -> list[str]:
    return [a.name for a in adapters if any(spec.dora for spec in a.modules.values())]


def _notes(adapters: Sequence[Adapter]) -> tuple[str, ...]:
    names = ", ".join(_with_dora(adapters))
    return (f"the DoRA magnitudes of {names} are left out, so this merge is approximate",) if names else ()


def _owners(adapters: Sequence[Adapter]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, adapter in enumerate(adapters):
        for name in adapter.modules:
            found.setdefault(name, []).append(index)
    return {name: found[name] for name in sorted(found, key=natural)}


def _check_patterns(overrides: Mapping[str, Any], owners: Mapping[str, Any]) -> None:
    for pattern in overrides:
        if not any(matches(pattern, name) for name in owners):
            close = near(pattern.strip("*."), owners) or list(owners)[:2]
            raise BadOption(f"No module matches {pattern!r}.", hint=", ".join(close))


def _check_options(jobs: Sequence[Job]) -> None:
    for name in dict.fromkeys(job.method for job in jobs):
        check = MERGE[name].check
        if check:
            found = [job for job in jobs if job.method == name]
            check([job.options for job in found], [job.ranks for job in found])


def _job(
    adapters: Sequence[Adapter], name: str, owners: Sequence[int], request: Request, dtype: str, device: str
) -> Job:
    specs = {i: adapters[i].modules[name] for i in owners}
    check_shapes(name, list(specs.values()), [adapters[i].name for i in owners])
    pattern = first_match(request.overrides, name)
    setting = request.setting if pattern is None else request.overrides[pattern]
    method = MERGE[setting.method]
    options: Any = parse(method.options, setting.options)
    # What "max" looks at is the rank an adapter was given; all else counts the units there are.
    widest_wins = method.rank == "free" and setting.rank.kind == "max"
    ranks = [spec.rank if widest_wins else spec.held for spec in specs.values()]
    members = range(len(adapters)) if method.counts_zeros else owners
    first = specs[owners[0]]
    bound = _bound(method, options, setting.rank, ranks, first)
    return Job(
        name,
        tuple(members),
        tuple(float(setting.weights[i]) for i in members),
        tuple(ranks),
        tuple(specs[i].held if i in specs else 1 for i in members),
        replace(
            first,
            rank=bound,
            scale=1.0,
            dtype=dtype,
            alpha=0.0,
            rslora=False,
            bias=any(spec.bias for spec in specs.values()),
            dora=False,
            units=0,
        ),
        setting.method,
        options,
        # A number above what there is would count the units of zeros that stand for a missing module.
        replace(setting.rank, value=bound) if setting.rank.kind == "fixed" else setting.rank,
        request.seed,
        request.scale,
        request.rescale,
        device,
        sum(spec.nbytes for spec in specs.values()),
        readable=all(adapters[i].arrays for i in owners),
    )


def check_shapes(name: str, specs: Sequence[ModuleSpec], owners: Sequence[str]) -> None:
    """Raises ShapeMismatch where the specs of one module are not of one kind, kernel and shape."""
    shapes = {(spec.kind, spec.kernel, spec.shape) for spec in specs}
    if len(shapes) > 1:
        seen = " and ".join(f"{kind} {shape[0]}×{shape[1]}" for kind, _, shape in sorted(shapes))
        raise ShapeMismatch(
            f"Adapters disagree about the shape of {name}: {seen}.",
            where=", ".join(owners),
            hint="they were made for different base models: merge those of one base",
        )


def _bound(method: Method, options: Any, rule: RankRule, ranks: Sequence[int], spec: ModuleSpec) -> int:
    if method.rank == "own":
        return method.bound(options, ranks) if method.bound else sum(ranks)
    return rule.bound(ranks, spec.out, spec.in_, dense=method.on in ("entries", "stream"))


def _fitted(made: Plan, max_memory: int | None) -> Plan:
    """The plan with as many workers and dense results kept as the budget allows. Raises BadOption where none fits."""
    jobs = tuple(replace(job, hold=job.may_hold) for job in made.jobs)
    workers = max(1, min(made.workers, len(jobs)))
    fitted = replace(made, jobs=jobs, workers=workers, executor=made.executor if workers > 1 else "serial")
    if max_memory is None or fitted.memory <= max_memory:
        return fitted
    fitted = replace(fitted, jobs=tuple(replace(job, hold=False) for job in jobs))
    while fitted.memory > max_memory and fitted.workers > 1:
        fewer = fitted.workers - 1
        fitted = replace(fitted, workers=fewer, executor=fitted.executor if fewer > 1 else "serial")
    if fitted.memory > max_memory:
        largest = max(fitted.jobs, key=lambda job: job.memory)
        raise BadOption(
            f"The largest module needs {fitted.memory:,} bytes, above --max-memory.",
            where=largest.module,
            hint=f"--max-memory {fitted.memory / 2**20 + 1:.0f}MiB",
        )
    return fitted
