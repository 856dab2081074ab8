"""What a PEFT adapter holds, from its config and the weights' header alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from loramerge.core.adapter import DTYPE_BYTES, ExtraSpec, ModuleSpec
from loramerge.core.arrays import zeros
from loramerge.core.lowrank import LowRank
from loramerge.errors import BadConfig, BadTensor, UnsupportedAdapter
from loramerge.formats._peft_config import Config
from loramerge.formats._peft_keys import MAGNITUDE, KeyMap, sort_keys
from loramerge.formats._tensors import UNGATHERED, Entry, Header

if TYPE_CHECKING:
    from torch import Tensor

_KINDS = {2: "linear", 3: "conv1d", 4: "conv2d", 5: "conv3d"}


class Stored(NamedTuple):
    """Where one update is: keys on disk, its scale, and the blocks of an old MergedLinear."""

    a: str
    b: str
    bias: str | None
    scale: float
    blocks: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Described:
    """All of an adapter but its numbers. `stored` and `disk` say where updates and extras are."""

    modules: Mapping[str, ModuleSpec]
    stored: Mapping[str, Stored]
    extras: Mapping[str, ExtraSpec]
    disk: Mapping[str, str]
    notes: tuple[str, ...]


def describe(config: Config, header: Header) -> Described:
    """Specs of all updates and extras.

    Raises BadTensor for factors that do not fit together, BadConfig where the config contradicts the
    tensors, UnsupportedAdapter for what is no LoRA.
    """
    keys = sort_keys(header.tensors, config.raw.get("modules_to_save") or (), header.where)
    if not keys.factors:
        shown = ", ".join([*header.tensors][:3]) or "there are none"
        raise UnsupportedAdapter(
            f"None of its {len(header.tensors):,} tensors is a LoRA factor ({shown}).",
            where=header.where,
            hint="is it a full model, or were the factors left out when it was saved?",
        )
    found = {name: _Module(name, parts, keys.owners[name], config, header) for name, parts in keys.factors.items()}
    extras = {spec.key: (spec, disk) for spec, disk in _extras(keys, config, header)}
    return Described(
        modules={name: module.spec() for name, module in found.items()},
        stored={name: module.stored() for name, module in found.items()},
        extras={key: spec for key, (spec, _) in extras.items()},
        disk={key: disk for key, (_, disk) in extras.items()},
        notes=(*config.notes(), *keys.notes),
    )


class _Module:
    """One module's tensors, checked against each other and against the config."""

    def __init__(self, name: str, parts: Mapping[str, str], owner: str, config: Config, header: Header) -> None:
        self.name = name
        self.parts = parts
        self.config = config
        self.header = header
        self.embedding = "embedding_a" in parts
        self.a_key, self.b_key = self.factor("a"), self.factor("b")
        self.a, self.b = self.entry(self.a_key), self.entry(self.b_key)
        merged = len(self.a.shape) == 2 and len(self.b.shape) == 3
        self.blocks = config.blocks if merged else ()
        self.groups = sum(self.blocks) or 1
        self.check_shapes()
        self.check_sides()
        rank, alpha = config.resolve(owner)
        self.check_rank(rank)
        self.alpha = alpha * self.groups
        self.scale = config.scale(rank, alpha)

    def factor(self, side: str) -> str:
        """The key of a factor; raises BadTensor where it has no counterpart."""
        part = f"embedding_{side}" if self.embedding else side
        if part not in self.parts:
            raise BadTensor(f"{self.name} has one factor without the other.", where=self.header.where, hint=UNGATHERED)
        return self.parts[part]

    def entry(self, key: str) -> Entry:
        """A factor's header entry; raises BadTensor for a type or a shape no factor has."""
        entry = self.header.tensors[key]
        if entry.dtype not in DTYPE_BYTES:
            raise BadTensor(
                f"{key} is stored as {entry.dtype}, which is not read.",
                where=self.header.where,
                hint=f"store it as one of {', '.join(DTYPE_BYTES)}",
            )
        if len(entry.shape) < 2:
            raise BadTensor(f"{key} is flat: {entry.shape}.", where=self.header.where, hint=UNGATHERED)
        return entry

    def check_shapes(self) -> None:
        """Raises BadTensor where A and B do not multiply, UnsupportedAdapter for grouped convolutions."""
        a, b = self.a.shape, self.b.shape
        rank = b[1] * self.groups
        fits = len(a) == len(b) or bool(self.blocks)
        if fits and len(a) > 2 and a[0] % rank == 0 and a[0] > rank:
            raise UnsupportedAdapter(
                f"{self.name} is a grouped convolution ({a[0] // rank} groups), which is not supported.",
                where=self.header.where,
            )
        if not fits or a[0] != rank or set(b[2:]) - {1} or b[0] % self.groups:
            raise BadTensor(f"The factors of {self.name} do not multiply: B {b}, A {a}.", where=self.header.where)

    def check_sides(self) -> None:
        """Raises where LoRA's bias or DoRA's magnitude is not as the config says."""
        self.check_side("bias", self.config.raw.get("lora_bias"), "lora_bias")
        self.check_side("magnitude", self.config.raw.get("use_dora"), "use_dora")
        if self.config.raw.get("use_dora") and "magnitude" not in self.parts:
            raise BadTensor(
                f"{self.name} has no DoRA magnitude, and the config says use_dora.", where=self.header.where
            )

    def check_side(self, part: str, declared: bool | None, field: str) -> None:
        """Raises where a bias or a magnitude is not declared, or has not one number for each output."""
        if part not in self.parts:
            return
        if not declared:
            raise BadConfig(
                f"{self.parts[part]} is there, and {field} is not set.", where=self.config.where, hint=f"{field}: true"
            )
        if math.prod(self.header.tensors[self.parts[part]].shape) != self.out:
            raise BadTensor(f"{self.parts[part]} has not {self.out} elements.", where=self.header.where)

    def check_rank(self, rank: int) -> None:
        """Raises BadConfig where the tensors have another rank than the config: the scale would be a guess."""
        if self.a.shape[0] != rank * self.groups:
            raise BadConfig(
                f"{self.name} has rank {self.a.shape[0]}, and the config says {rank * self.groups}.",
                where=self.config.where,
                hint="correct r or rank_pattern, and lora_alpha if alpha / r was meant to stay",
            )

    @property
    def out(self) -> int:
        """Rows of ΔW; a MergedLinear's B has only those of the blocks that are updated."""
        return self.b.shape[0] // self.groups * (len(self.blocks) or 1)

    def spec(self) -> ModuleSpec:
        """What the house knows of it."""
        wider = max(self.a.dtype, self.b.dtype, key=lambda dtype: DTYPE_BYTES[dtype])
        same_size = DTYPE_BYTES[self.a.dtype] == DTYPE_BYTES[self.b.dtype]
        return ModuleSpec(
            name=self.name,
            out=self.out,
            in_=math.prod(self.a.shape[1:]),
            rank=self.a.shape[0],
            scale=self.scale,
            # F16 and BF16 have no common type of their size.
            dtype="F32" if same_size and self.a.dtype != self.b.dtype else wider,
            kind="embedding" if self.embedding else _KINDS[len(self.a.shape)],
            kernel=self.a.shape[2:],
            alpha=self.alpha,
            rslora=self.config.rslora,
            bias="bias" in self.parts,
            dora="magnitude" in self.parts,
        )

    def stored(self) -> Stored:
        """What loading it takes."""
        return Stored(self.a_key, self.b_key, self.parts.get("bias"), self.scale, self.blocks)


def _extras(keys: KeyMap, config: Config, header: Header) -> Iterator[tuple[ExtraSpec, str]]:
    for key, extra in keys.extras.items():
        entry = header.tensors[extra.disk]
        indices = _indices(config, extra.module, entry) if extra.kind == "tokens" else ()
        yield ExtraSpec(key, extra.kind, entry.shape, entry.dtype, extra.module, indices), extra.disk
    for module, parts in keys.factors.items():
        if disk := parts.get("magnitude"):
            entry = header.tensors[disk]
            yield ExtraSpec(module + MAGNITUDE, "magnitude", entry.shape, entry.dtype, module), disk


def _indices(config: Config, module: str, entry: Entry) -> tuple[int, ...]:
    """Which rows of an embedding were trained; raises BadConfig where the config does not say so."""
    stated: Any = config.raw.get("trainable_token_indices") or {}
    if isinstance(stated, dict):
        stated = next((found for name, found in stated.items() if module.endswith(name)), [])
    if len(stated) != entry.shape[0]:
        raise BadConfig(
            f"trainable_token_indices names {len(stated)} tokens of {module}, and {entry.shape[0]} are stored.",
            where=config.where,
        )
    return tuple(stated)


def load_update(fetch: Callable[[str], Tensor], stored: Mapping[str, Stored], module: str) -> LowRank:
    """One module's update from its tensors, as stored; convolutions flattened, merged blocks spread out."""
    one = stored[module]
    a, b = fetch(one.a), fetch(one.b)
    bias = None if one.bias is None else fetch(one.bias)
    b = _spread(b, one.blocks) if one.blocks else b.reshape(len(b), -1)
    return LowRank(b=b, a=a.reshape(len(a), -1), scale=one.scale, bias=bias)


def load_extra(fetch: Callable[[str], Tensor], disk: Mapping[str, str], key: str) -> Tensor:
    """One extra tensor, as stored."""
    return fetch(disk[key])


def _spread(b: Tensor, blocks: tuple[bool, ...]) -> Tensor:
    """The B of an old MergedLinear as a plain factor: (rows of updated blocks, r, 1) -> (all rows, g·r).

    The old layer had one lora_A of g·r rows for g updated blocks of a fused output and convolved it
    with B in g groups, so the j-th group of B meets rows j·r to (j+1)·r of A; the rows of other blocks
    are zero.
    """
    updated = [at for at, on in enumerate(blocks) if on]
    height, rank = b.shape[0] // len(updated), b.shape[1]
    spread = zeros((height * len(blocks), rank * len(updated)), b)
    for j, block in enumerate(updated):
        rows = slice(j * height, (j + 1) * height)
        spread[block * height : (block + 1) * height, j * rank : (j + 1) * rank] = b[rows, :, 0]
    return spread
