"""Updates and extras as a PEFT weights file: shapes and keys known beforehand, tensors as they come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from loramerge.core.adapter import ExtraSpec, ModuleSpec
from loramerge.core.arrays import cast, is_finite, namespace, zeros
from loramerge.core.lowrank import LowRank
from loramerge.errors import BadOption, BadTensor, IncompatibleError
from loramerge.formats._format import Outline
from loramerge.formats._peft_keys import ancestors, disk_key, extra_disk_key

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank


class Sheet:
    """An outline as PEFT will have it: names, shapes at most, and the ranks once they are known."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self.specs = {spec.name: spec for spec in outline.modules}
        self.ranks: dict[str, int] = {}
        self.dora = {spec.module for spec, _ in outline.extras if spec.kind == "magnitude"}
        if self.dora and self.dora != self.specs.keys() and not outline.verbatim:
            raise IncompatibleError(
                "Some updates have DoRA magnitudes and others have none; PEFT has one switch for all of them.",
                where=", ".join(sorted(self.specs.keys() - self.dora)[:3]),
            )

    @cached_property
    def owners(self) -> Mapping[str, str]:
        """Module → the outermost target around it, by whose name PEFT looks up its rank and alpha."""
        return {name: next((path for path in ancestors(name) if path in self.specs), name) for name in self.specs}

    @cached_property
    def least(self) -> Mapping[str, int]:
        """The rank each module is zero-padded to: modules of one owner have one rank, and none has rank 0."""
        if self.outline.verbatim:
            return dict.fromkeys(self.specs, 0)
        inner = {owner for name, owner in self.owners.items() if name != owner}
        shared = dict.fromkeys(inner, 1)
        for name, owner in self.owners.items():
            if owner in inner:
                shared[owner] = max(shared[owner], self.specs[name].rank)
        return {name: max(self.outline.pad_rank or 1, shared.get(owner, 1)) for name, owner in self.owners.items()}

    @cached_property
    def has_bias(self) -> bool:
        """Whether any update has LoRA's own bias: PEFT gives one to all modules, or to none."""
        return any(spec.bias for spec in self.specs.values())

    def bounds(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Key → dtype and largest shape of everything that will be written."""
        found = {
            disk_key(name, part, self.specs): (spec.dtype, shape)
            for name, spec in self.specs.items()
            for part, shape in self.shapes(spec, max(spec.rank, self.least[name])).items()
        }
        extras = {self.extra_key(spec): (spec.dtype, spec.shape) for spec, _ in self.outline.extras}
        return {**found, **extras}

    def extra_key(self, spec: ExtraSpec) -> str:
        """An extra's key on disk."""
        return extra_disk_key(spec.key, spec.kind, spec.module, self.specs)

    def shapes(self, spec: ModuleSpec, rank: int) -> dict[str, tuple[int, ...]]:
        """Part → shape of one module's tensors on disk."""
        if spec.kind == "embedding":
            return {"embedding_a": (rank, spec.in_), "embedding_b": (spec.out, rank)}
        ones = (1,) * len(spec.kernel)
        found = {
            "a": (rank, spec.in_ // math.prod(spec.kernel), *spec.kernel),
            "b": (spec.out, rank, *ones),
        }
        bias = spec.bias if self.outline.verbatim else self.has_bias
        return {**found, "bias": (spec.out,)} if bias else found

    def tensors(self, updates: Iterable[tuple[str, LowRank]]) -> Iterator[tuple[str, Tensor]]:
        """Key and tensor, update by update, then the extras; fills `ranks`."""
        for name, update in updates:
            spec = self.specs[name]
            final = update if self.outline.verbatim else self.settle(spec, update)
            shapes = self.shapes(spec, final.rank)
            assert final.scale == (spec.scale if self.outline.verbatim else 1.0), name
            assert final.bias is None or "bias" in shapes, name
            self.ranks[name] = final.rank
            bias = zeros((spec.out,), final.b) if final.bias is None else final.bias
            stored = {"a": final.a, "b": final.b, "embedding_a": final.a, "embedding_b": final.b, "bias": bias}
            for part, shape in shapes.items():
                yield disk_key(name, part, self.specs), stored[part].reshape(shape)
        for extra, load in self.outline.extras:
            yield self.extra_key(extra), load()

    def settle(self, spec: ModuleSpec, update: LowRank) -> LowRank:
        """The update with its scale folded in, padded, and in its final type; raises BadTensor on overflow."""
        if self.outline.pad_rank and update.rank > self.outline.pad_rank:
            raise BadOption(
                f"{spec.name} has rank {update.rank}, and all ranks were to be {self.outline.pad_rank}.",
                hint=f"--rank {self.outline.pad_rank}",
            )
        plain = update.scale == 1.0 and update.mid is None
        folded = update if plain else update.exact().folded()
        return _cast(_padded(folded, self.least[spec.name]), spec)


def _padded(update: LowRank, rank: int) -> LowRank:
    """The same update with at least `rank` units, the new ones zero."""
    missing = rank - update.rank
    if missing <= 0:
        return update
    join, (out, in_) = namespace(update.b).concatenate, update.shape
    b, a = zeros((out, missing), update.b), zeros((missing, in_), update.a)
    return replace(update, b=join([update.b, b], 1), a=join([update.a, a], 0))


def _cast(update: LowRank, spec: ModuleSpec) -> LowRank:
    bias = None if update.bias is None else cast(update.bias, spec.dtype)
    final = LowRank(cast(update.b, spec.dtype), cast(update.a, spec.dtype), update.scale, bias=bias)
    for tensor in (final.a, final.b, final.bias):
        if tensor is not None and not is_finite(tensor):
            raise BadTensor(
                f"The update of {spec.name} holds numbers that {spec.dtype} cannot hold.", hint="a wider --dtype"
            )
    return final
