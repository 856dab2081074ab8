"""What becomes of the tensors that are not updates: biases, saved modules, heads, trained tokens.

Nothing is dropped in silence. The policies, of `--extras`:

- auto: biases, saved embeddings and trained tokens are averaged with the weights where shapes agree,
  else an error; task heads are kept apart, one file per adapter, unless they are all the same
- average: everything is averaged, heads too
- first:NAME: all extras of that adapter, none of the others'
- drop: none, and the report says so
- error: refuse adapters that have any

Absolute values are averaged over the adapters that have them, with weights that sum to one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from loramerge.core.adapter import DTYPE_BYTES, Adapter, ExtraSpec, widest
from loramerge.core.arrays import cast, exact, memory
from loramerge.core.names import natural
from loramerge.errors import BadOption, IncompatibleError, ShapeMismatch
from loramerge.registry import near

if TYPE_CHECKING:
    from torch import Tensor

Source = tuple[ExtraSpec, Callable[[], "Tensor"]]

_HEADS = ("classifier", "score", "qa_outputs", "pre_classifier", "pooler", "classification_head")
_TASKS = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")


@dataclass(frozen=True)
class Extras:
    """What a result carries beside its updates.

    `kept` goes into the adapter itself; `heads` maps an adapter's name to the tensors kept apart for
    it; `notes` says what was averaged, kept apart or dropped.
    """

    kept: tuple[Source, ...] = ()
    heads: Mapping[str, tuple[Source, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def merge_extras(adapters: Sequence[Adapter], weights: Sequence[float], policy: str) -> Extras:
    """The extras of a merge under `policy`. Reads tensors only to compare those that could be equal.

    Raises ShapeMismatch where averaging meets different shapes, IncompatibleError under "error" and
    for tensors nobody can average, BadOption for an unknown policy.
    """
    check_policy(adapters, policy)
    if policy.startswith("first:"):
        return _first(adapters, policy.removeprefix("first:"))
    if policy == "drop":
        notes = [f"{len(_wanted(a))} extra tensors of {a.name} dropped (--extras drop)" for a in adapters if _wanted(a)]
        return Extras(notes=tuple(notes))
    return _auto(adapters, weights, keep_heads=policy == "auto")


def check_policy(adapters: Sequence[Adapter], policy: str) -> None:
    """Raises what headers alone tell: BadOption for an unknown policy or name, IncompatibleError under "error"."""
    name = policy.removeprefix("first:")
    names = [adapter.name for adapter in adapters]
    if name != policy and name not in names:
        raise BadOption(f"--extras {policy} names no adapter here.", hint=", ".join(near(name, names) or names))
    if name == policy and policy not in ("auto", "average", "drop", "error"):
        raise BadOption(f"--extras {policy!r} is not a policy.", hint="auto, average, first:NAME, drop, error")
    having = [adapter.name for adapter in adapters if _wanted(adapter)]
    if policy == "error" and having:
        raise IncompatibleError(
            "These adapters hold tensors that are not LoRA updates.", where=", ".join(having), hint="--extras auto"
        )


def is_head(adapter: Adapter, spec: ExtraSpec) -> bool:
    """Whether a saved module is a task head: its meaning is one adapter's own."""
    if spec.kind != "saved":
        return False
    parts = spec.key.split(".")
    return adapter.config.get("task_type") in _TASKS or any(part in _HEADS for part in parts)


def _wanted(adapter: Adapter) -> list[ExtraSpec]:
    # A magnitude belongs to an update that either was refused or lost its magnitude by request.
    return [spec for spec in adapter.extras.values() if spec.kind != "magnitude"]


def _first(adapters: Sequence[Adapter], name: str) -> Extras:
    chosen = next(adapter for adapter in adapters if adapter.name == name)
    kept = tuple((spec, partial(chosen.read_extra, spec.key)) for spec in _wanted(chosen))
    others = [adapter.name for adapter in adapters if adapter is not chosen and _wanted(adapter)]
    said = (f"extras are those of {name}; not those of {', '.join(others)}",) if others else ()
    return Extras(kept=kept, notes=said)


def _auto(adapters: Sequence[Adapter], weights: Sequence[float], *, keep_heads: bool) -> Extras:
    found = [_Found(adapters, key, owners) for key, owners in _owners(adapters).items()]
    # Heads stay together: where one of an adapter's head tensors differs from the others', all are kept apart.
    apart = keep_heads and any(item.head and not item.equal for item in found)
    kept: list[Source] = []
    heads: dict[str, list[Source]] = {}
    averaged: dict[str, list[str]] = {}
    notes: list[str] = []
    for item in found:
        if item.head and apart:
            for name, source in item.sources():
                heads.setdefault(name, []).append(source)
        elif item.equal:
            kept.append(item.sources()[0][1])
        elif item.spec.kind == "base":
            notes.append(f"{item.key}: the copies of a base weight differ, left out")
        else:
            kept.append(_average(item, weights))
            averaged.setdefault(item.where, []).append(item.key)
    notes += [f"{_some(keys)} averaged over {where}" for where, keys in averaged.items()]
    notes += [f"the head of {name} kept as heads/{name}.safetensors" for name in heads]
    return Extras(tuple(kept), {name: tuple(sources) for name, sources in heads.items()}, tuple(notes))


class _Found:
    """One extra's key and the adapters that have it."""

    def __init__(self, adapters: Sequence[Adapter], key: str, owners: Sequence[int]) -> None:
        self.key = key
        self.owners = owners
        self.adapters = [adapters[i] for i in owners]
        self.specs = [adapter.extras[key] for adapter in self.adapters]
        self.spec = self.specs[0]
        # Copies of two libraries cannot be added up.
        light = all(adapter.extra_arrays for adapter in self.adapters)
        self.loads = [partial(a.read_extra if light else a.load_extra, key) for a in self.adapters]
        self.where = ", ".join(adapter.name for adapter in self.adapters)
        self.head = all(is_head(a, spec) for a, spec in zip(self.adapters, self.specs, strict=True))

    @cached_property
    def equal(self) -> bool:
        """Whether all copies are the same, bit for bit."""
        if any(spec != self.spec for spec in self.specs):
            return False
        first = memory(self.loads[0]()) if len(self.loads) > 1 else None
        return first is None or all(first == memory(load()) for load in self.loads[1:])

    def sources(self) -> list[tuple[str, Source]]:
        """Each owner's name with its copy."""
        found = zip(self.adapters, self.specs, self.loads, strict=True)
        return [(adapter.name, (spec, load)) for adapter, spec, load in found]


def _owners(adapters: Sequence[Adapter]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, adapter in enumerate(adapters):
        for spec in _wanted(adapter):
            found.setdefault(spec.key, []).append(index)
    return {key: found[key] for key in sorted(found, key=natural)}


def _average(item: _Found, weights: Sequence[float]) -> Source:
    if item.spec.kind == "raw" or any(spec.dtype not in DTYPE_BYTES for spec in item.specs):
        raise IncompatibleError(
            f"Nobody knows how to merge the tensor {item.key}.", where=item.where, hint="--extras drop"
        )
    if len({(spec.shape, spec.indices) for spec in item.specs}) > 1:
        shapes = sorted({str(spec.shape) for spec in item.specs})
        what = f"its shape is {' and '.join(shapes)}" if len(shapes) > 1 else "its rows stand for different tokens"
        raise ShapeMismatch(
            f"Adapters disagree about {item.key}: {what}.",
            where=item.where,
            hint="--extras first:NAME, or --extras drop",
        )
    total = sum(weights[i] for i in item.owners)
    if total == 0:
        raise BadOption(
            f"The weights of {item.key} sum to zero, so there is no average.", where=item.where, hint="--extras drop"
        )
    spec = replace(item.spec, dtype=widest(spec.dtype for spec in item.specs))
    return spec, partial(_mean, tuple(item.loads), tuple(weights[i] / total for i in item.owners), spec.dtype)


def _mean(loads: Sequence[Callable[[], Tensor]], shares: Sequence[float], dtype: str) -> Tensor:
    first, *rest = (exact(load()) * share for load, share in zip(loads, shares, strict=True))
    return cast(sum(rest, first), dtype)


def _some(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{len(keys)} tensors ({keys[0]} …)"
