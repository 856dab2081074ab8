"""What a format is, and the one door through which adapters are opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.errors import NotFound, UnknownFormat
from loramerge.formats._tensors import read_header
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


def open_adapter(path: Path | str, name: str | None = None, *, allow_pickle: bool = False) -> Adapter:
    """The adapter in a folder or file, read by the first format that knows it.

    Raises NotFound where there is nothing, UnknownFormat where nobody knows it, and what the format's
    reader raises.
    """
    path = Path(path)
    if not path.exists():
        raise NotFound(f"There is nothing at {path}.", hint="USER/ADAPTER, without ./, names an adapter on the Hub")
    for candidate in FORMATS:
        if FORMATS[candidate].sniff(path):
            return FORMATS[candidate].read(path, name=name, allow_pickle=allow_pickle)
    raise UnknownFormat(
        f"No format is known that looks like this: {', '.join(_samples(path)) or 'an empty folder'}.",
        where=str(path),
        hint="PEFT's format is a folder with adapter_config.json beside adapter_model.safetensors",
    )


def _samples(path: Path) -> list[str]:
    """What tells a stranger's format: a folder's first files, or a weights file's first keys."""
    if path.is_dir():
        return sorted(item.name for item in path.iterdir())[:5]
    return list(read_header(path).tensors)[:5] if path.suffix == ".safetensors" else [path.name]


def outline_of(adapter: Adapter) -> Outline:
    """What makes a copy: a format that writes this outline with `updates_of` has the same tensors, bit for bit."""
    return Outline(
        modules=tuple(adapter.modules.values()),
        base=adapter.base,
        extras=tuple((spec, partial(adapter.read_extra, spec.key)) for spec in adapter.extras.values()),
        config=adapter.config,
        verbatim=True,
    )


def updates_of(adapter: Adapter) -> Iterator[tuple[str, LowRank]]:
    """All updates of an adapter, in its order, each read when its turn comes."""
    return ((name, adapter.read(name)) for name in adapter.modules)


FORMATS: Registry[Format] = Registry("loramerge.formats", "FORMAT", "format")
