"""An adapter as the rest of the house sees it: specs from headers, tensors on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank

DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The tensor types an adapter's factors may have (safetensors' names) and their sizes in bytes."""


def widest(dtypes: Iterable[str]) -> str:
    """The smallest of DTYPE_BYTES that holds the numbers of all: F32 where F16 meets BF16."""
    kinds = set(dtypes)
    if {"F16", "BF16"} <= kinds and not kinds & {"F32", "F64"}:
        return "F32"
    return max(sorted(kinds), key=lambda kind: DTYPE_BYTES[kind])


@dataclass(frozen=True, slots=True)
class ModuleSpec:
    """One module's update as a header describes it: everything but the numbers.

    `out` and `in_` are the sides of ΔW as `LowRank` holds it: for a convolution `in_` counts
    in_channels · kernel, for an embedding `in_` is the vocabulary and `out` the width (the base's
    weight is ΔW transposed then). `scale` is resolved; `alpha` and `rslora` are what the file
    declared, so that a copy can declare it again.
    """

    name: str
    out: int
    in_: int
    rank: int
    scale: float
    dtype: str = "F32"
    kind: str = "linear"
    """linear, conv1d, conv2d, conv3d or embedding."""
    kernel: tuple[int, ...] = ()
    alpha: float = 0.0
    rslora: bool = False
    bias: bool = False
    """LoRA's own bias on B (`lora_bias`); absolute biases of the base are extras."""
    dora: bool = False
    """A DoRA magnitude belongs to this update (an extra of kind "magnitude" carries it)."""
    units: int = 0
    """The units the update holds once it is loaded, where they are more than its rank; 0: they are not."""

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in) of ΔW."""
        return self.out, self.in_

    @property
    def held(self) -> int:
        """The units of the update as it is loaded."""
        return self.units or self.rank

    @property
    def numel(self) -> int:
        """Stored numbers: both factors and LoRA's bias."""
        return self.rank * (self.out + self.in_) + (self.out if self.bias else 0)

    @property
    def nbytes(self) -> int:
        """Stored bytes."""
        return self.numel * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class ExtraSpec:
    """A tensor of an adapter that is not a factor of an update.

    `key` is its name on disk without wrapper prefixes (`classifier.weight`). `kind` is one of

    - "bias": a bias of the base, trained, absolute (`bias="all"` or `"lora_only"`)
    - "saved": a module trained in full (`modules_to_save`), absolute
    - "base": a copy of a base weight that PEFT stores beside embedding updates
    - "tokens": rows of an embedding, replaced at `indices` (trainable tokens)
    - "magnitude": a DoRA magnitude; `module` names its update
    - "raw": nobody here interprets it; carried as it is
    """

    key: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    module: str = ""
    indices: tuple[int, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """A mapping from module names to updates, lazy: specs come from headers, `load` reads one module.

    Loaders are module-level functions or partials of them, so an open adapter pickles and can be
    sent to another process. `path` is where it was read from (None for a header read remotely, or
    for one made in memory).
    """

    name: str
    format: str
    modules: Mapping[str, ModuleSpec]
    loader: Callable[[str], LowRank]
    extras: Mapping[str, ExtraSpec] = field(default_factory=dict)
    extra_loader: Callable[[str], Tensor] | None = None
    arrays: Callable[[str], LowRank] | None = None
    """As `loader`, with numpy arrays for factors; None where only torch can read them."""
    extra_arrays: Callable[[str], Tensor] | None = None
    """As `extra_loader`, likewise."""
    base: str | None = None
    path: Path | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    """The file's own config, as read (empty where the format has none)."""
    files: tuple[str, ...] = ()
    """The files that make up the adapter, relative to `path`: weights first, then the config."""
    notes: tuple[str, ...] = ()
    """Oddities met while reading, one sentence each."""

    def load(self, module: str) -> LowRank:
        """The update of one module. Reads that module's tensors only."""
        return self.loader(module)

    def load_extra(self, key: str) -> Tensor:
        """One extra tensor, as stored."""
        if self.extra_loader is None:
            raise KeyError(key)
        return self.extra_loader(key)

    def read(self, module: str) -> LowRank:
        """As `load`, in numpy arrays where the format allows it: for what is only copied or added up."""
        return (self.arrays or self.load)(module)

    def read_extra(self, key: str) -> Tensor:
        """As `load_extra`, in a numpy array where the format allows it."""
        return (self.extra_arrays or self.load_extra)(key)

    @property
    def rank(self) -> int:
        """The largest rank of any module (0 for an adapter without updates)."""
        return max((spec.rank for spec in self.modules.values()), default=0)

    @property
    def nbytes(self) -> int:
        """Bytes of all factors."""
        return sum(spec.nbytes for spec in self.modules.values())
