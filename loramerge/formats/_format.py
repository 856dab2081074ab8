"""What a format is, and the one door through which adapters are opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from loramerge.core.adapter import Adapter, ExtraSpec, ModuleSpec
    from loramerge.core.lowrank import LowRank


@dataclass(frozen=True)
class Outline:
    """What is going to be written, known before the first tensor is.

    `modules` gives names, shapes, kinds and dtypes; its ranks are upper bounds (a rank chosen by
    data is only known when its module arrives). With `verbatim`, scales, alpha, rsLoRA and the
    config are written as `modules` and `config` declare them (a copy); without, the scale is folded
    and alpha equals the rank (a result). `config` holds fields of an original config to carry over.
    """

    modules: Sequence[ModuleSpec]
    base: str | None = None
    extras: Sequence[tuple[ExtraSpec, Callable[[], Tensor]]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    verbatim: bool = False
    pad_rank: int | None = None
    """Zero-pad every module to this rank (`--profile vllm`)."""


@dataclass(frozen=True)
class Format:
    """An on-disk format: `sniff` looks at names only, `read` at headers only, `write` takes a stream.

    `read(path, name=..., allow_pickle=...)` opens a folder or file. `write(folder, outline, updates)`
    writes into an existing, empty folder and returns the names of the files written; making the
    folder appear at once is the caller's business.
    """

    sniff: Callable[[Path], bool]
    read: Callable[..., Adapter]
    write: Callable[[Path, Outline, Iterable[tuple[str, LowRank]]], list[str]] | None = None


FORMATS: Registry[Format] = Registry("loramerge.formats", "FORMAT", "format")
