"""What is evaluated: a base with an update at some modules, and with some of its weights replaced."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from loramerge.errors import BadTensor, UnsupportedAdapter

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.adapter import Adapter
    from loramerge.core.lowrank import LowRank


@dataclass(frozen=True, eq=False)
class Unit:
    """An update that candidates have in common, with the hash of its content; equal content is one unit."""

    update: LowRank

    @cached_property
    def key(self) -> str:
        """32 hexadecimal digits over factors, scale and bias."""
        update = self.update
        parts = [part for part in (update.b, update.a, update.mid, update.bias) if part is not None]
        return digest(parts, f"{update.scale!r} {update.bias is not None} {update.mid is not None}")

    @cached_property
    def is_something(self) -> bool:
        """Whether the update is not zero, as B is before training."""
        update = self.update
        return update.scale != 0 and bool((update.a != 0).any()) and bool((update.b != 0).any())

    @cached_property
    def size(self) -> float:
        """scale · the largest of B · the largest of A."""
        if not self.is_something:
            return 0.0
        return abs(self.update.scale) * float(abs(self.update.b).max()) * float(abs(self.update.a).max())


Terms = tuple[tuple[Unit, float], ...]
"""Σ coefficient · update of one module."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a weight that are replaced: trained tokens, (tokens, width)."""

    indices: tuple[int, ...]
    values: Tensor


@dataclass(frozen=True, eq=False)
class Candidate:
    """One candidate. Every module's update is a sum of units with coefficients; most have one unit, with 1.

    `replaced` are absolute weights by parameter name (biases, heads), `rows` rows of weights, `magnitudes`
    DoRA's, by module: W' = m ∘ (W + ΔW) / ‖W + ΔW‖, norms over rows.
    """

    name: str
    terms: Mapping[str, Terms] = field(default_factory=dict)
    replaced: Mapping[str, Tensor] = field(default_factory=dict)
    rows: Mapping[str, Rows] = field(default_factory=dict)
    magnitudes: Mapping[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def with_weights(self, weights: Mapping[str, Tensor]) -> Candidate:
        """The same with some weights replaced by others: another head."""
        return replace(self, replaced={**self.replaced, **weights})

    @property
    def plain(self) -> Candidate:
        """The same without updates: the base, with whatever weights are replaced."""
        return Candidate(f"{self.name} without updates", {}, self.replaced, self.rows)

    @property
    def has_update(self) -> bool:
        """Whether some update with a coefficient is not zero."""
        return any(weight and unit.is_something for terms in self.terms.values() for unit, weight in terms)

    @property
    def size(self) -> float:
        """About the largest number in any update: coefficient · scale · the largest of B · the largest of A."""
        return max((abs(weight) * unit.size for terms in self.terms.values() for unit, weight in terms), default=0.0)

    @cached_property
    def key(self) -> str:
        """A hash of everything but the name: candidates that are the same have the same."""
        found = hashlib.blake2b(digest_size=16)
        for module in sorted(self.terms):
            terms = [f"{unit.key} {weight!r}" for unit, weight in self.terms[module] if weight]
            found.update(f"{module} {' '.join(terms)}\n".encode() if terms else b"")
        for kind, table in (("weight", self.replaced), ("magnitude", self.magnitudes)):
            for name in sorted(table):
                found.update(f"{kind} {name} {digest([table[name]])}\n".encode())
        for name in sorted(self.rows):
            found.update(f"rows {name} {self.rows[name].indices} {digest([self.rows[name].values])}\n".encode())
        return found.hexdigest()


def digest(tensors: Sequence[Tensor], more: str = "") -> str:
    """A hash of tensors: dtype, shape and bytes."""
    from loramerge.core.arrays import tensor

    found = hashlib.blake2b(more.encode(), digest_size=16)
    for one in tensors:
        import torch

        plain = tensor(one).detach().cpu().contiguous()
        found.update(f"{plain.dtype} {tuple(plain.shape)}".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def of_adapter(adapter: Adapter) -> Candidate:
    """An adapter as a candidate, all of it loaded. Raises BadTensor, UnsupportedAdapter for what nobody interprets."""
    terms = {module: ((Unit(adapter.load(module)), 1.0),) for module in adapter.modules}
    replaced: dict[str, Tensor] = {}
    rows: dict[str, Rows] = {}
    magnitudes: dict[str, Tensor] = {}
    for key, spec in adapter.extras.items():
        value = adapter.load_extra(key)
        _check_finite(adapter.name, key, value)
        if ".modules_to_save." in key or ".original_module." in key:
            continue  # with `bias="all"` PEFT writes those of a saved module under its wrappers' names too
        if spec.kind in ("bias", "base", "saved"):
            replaced[key] = value
        elif spec.kind == "tokens":
            rows[f"{spec.module}.weight"] = Rows(spec.indices, value)
        elif spec.kind == "magnitude":
            magnitudes[spec.module] = value
        else:
            raise UnsupportedAdapter(
                f"Nobody here knows what {key} means, so the adapter cannot be run.",
                where=adapter.name,
                hint="loramerge inspect NAME",
            )
    return Candidate(adapter.name, terms, replaced, rows, magnitudes)


def _check_finite(name: str, key: str, value: Tensor) -> None:
    from loramerge.core.arrays import tensor

    count = int((~tensor(value).isfinite()).sum())
    if count:
        raise BadTensor(f"{key} has {count:,} numbers that are not finite.", where=name, hint="another copy of it")


def scaled(candidate: Candidate, factor: float, name: str) -> Candidate:
    """The same units, each times a factor: no number is copied. What is no update stays as it is."""
    terms = {
        module: tuple((unit, weight * factor) for unit, weight in some) for module, some in candidate.terms.items()
    }
    return replace(candidate, name=name, terms=terms)


def combined(name: str, candidates: Sequence[Candidate], weights: Sequence[Mapping[str, float]]) -> Candidate:
    """Σ wᵢ · updates of candidates, with a weight for each candidate and module: a row of coefficients, nothing else.

    What several candidates have in common is there once. Weights that replace the base's and magnitudes are no
    updates and stay out.
    """
    terms: dict[str, dict[str, tuple[Unit, float]]] = {}
    for candidate, weight in zip(candidates, weights, strict=True):
        for module, some in candidate.terms.items():
            found = terms.setdefault(module, {})
            for unit, own in some:
                _, before = found.get(unit.key, (unit, 0.0))
                found[unit.key] = unit, before + weight.get(module, 0.0) * own
    kept = {module: tuple(term for term in found.values() if term[1]) for module, found in terms.items()}
    return Candidate(name, kept)
