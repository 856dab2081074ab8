"""The weights of a base model: found by module name, read a few rows at a time, never as a whole.

A base is a folder with model.safetensors, or with model.safetensors.index.json and the files that this
names (or the same of diffusers), or a single .safetensors file.

    <path>.weight    (out, in)                     of a linear module
                     (in, out)                     of GPT-2's Conv1D
                     (out, channels, *kernel)      of a convolution
                     (in, out)                     of an embedding: the vocabulary first

Bases are saved with and without what a task's model puts in front (`bert.`, `model.`, `transformer.`), so
one prefix may be added to the modules' names, or taken off: the same for all that are asked for.

Source of the layout: https://huggingface.co/docs/transformers/big_models
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.core.adapter import DTYPE_BYTES, ModuleSpec
from loramerge.core.names import canonical, natural
from loramerge.errors import BadConfig, BadTensor, BaseMismatch, FormatError, NotFound, ShapeMismatch, UnsafePickle
from loramerge.formats import _json
from loramerge.formats._tensors import Entry, load_rows, read_header
from loramerge.registry import near

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "config.json"
_WHOLE = ("model.safetensors", "diffusion_pytorch_model.safetensors")
_INDICES = tuple(f"{name}.index.json" for name in _WHOLE)
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "diffusion_pytorch_model.bin")
_MAX_JSON = 50_000_000
_TILE = 1 << 20
"""Numbers of a weight that are read at once."""

Place = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight of a base. `flipped` says that it is stored as (in, out), the transpose of what ΔW is added to."""

    file: Path
    key: str
    shape: tuple[int, ...]
    flipped: bool = False

    def tiles(self) -> Iterator[tuple[Place, Tensor]]:
        """Where in (out, in), and what stands there, in float64: each stored row once, in order.

        Raises BadTensor for NaN and infinity.
        """
        import torch

        whole = slice(None)
        height = max(1, _TILE // math.prod(self.shape[1:]))
        for start in range(0, self.shape[0], height):
            rows = slice(start, min(start + height, self.shape[0]))
            tile = load_rows(self.file, self.key, rows, hint=_FETCH).flatten(1).to(torch.float64)
            yield ((whole, rows), tile.T) if self.flipped else ((rows, whole), tile)


@dataclass(frozen=True)
class Base:
    """All tensors of a base, from headers: by key without wrappers, the file and the key on disk, and its entry."""

    folder: Path
    files: tuple[str, ...]
    """What it is made of, relative to `folder`: an index, and the files with tensors."""
    tensors: Mapping[str, tuple[Path, str, Entry]]
    config: Mapping[str, Any] = field(default_factory=dict)
    """Its config.json; empty where there is none."""

    @property
    def name(self) -> str | None:
        """The name it was loaded by when it was saved, which can be a path of somebody's machine."""
        found = self.config.get("_name_or_path")
        return found if isinstance(found, str) and found else None

    def weights(self, specs: Sequence[ModuleSpec], *, conv1d: bool = False) -> dict[str, Weight]:
        """The weight of each module. `conv1d` settles square ones where nothing in the base does.

        Raises BaseMismatch for modules it lacks or prefixes that are not one, ShapeMismatch, and BadTensor for
        types that are no plain numbers.
        """
        paths = {key.removesuffix(".weight") for key in self.tensors if key.endswith(".weight")}
        names = _renamed([spec.name for spec in specs], paths, str(self.folder))
        return {spec.name: self._weight(spec, names[spec.name], conv1d) for spec in specs}

    def _weight(self, spec: ModuleSpec, path: str, conv1d: bool) -> Weight:
        file, key, entry = self.tensors[f"{path}.weight"]
        if entry.dtype not in DTYPE_BYTES:
            raise BadTensor(f"{key} is stored as {entry.dtype}: quantised.", where=str(file), hint=_UNQUANTISED)
        shape = entry.shape
        upright = (shape[0], math.prod(shape[1:])) == spec.shape and shape[2:] == spec.kernel
        flipped = shape == (spec.in_, spec.out) and spec.kind in ("linear", "embedding")
        if spec.kind == "embedding":
            upright = False
        if not upright and not flipped:
            raise ShapeMismatch(
                f"The base's {key} is {'×'.join(map(str, shape))}, and the update of {spec.name} "
                f"({spec.kind}) is {spec.out}×{spec.in_}.",
                where=str(file),
                hint="--base with the base model that the adapter was trained on",
            )
        if upright and flipped:
            found = self._is_conv1d(path)
            flipped = conv1d if found is None else found
        return Weight(file, key, shape, flipped)

    def _is_conv1d(self, path: str) -> bool | None:
        """Whether a square weight is stored as (in, out). None where the base does not tell.

        It is as its nearest neighbours are that are not square and have a bias: a bias has a number for each
        output. A Conv1D always has one itself.
        """
        if f"{path}.bias" not in self.tensors:
            return False
        shared = {other: _common(path, other) for other in self._layouts}
        nearest = max(shared.values(), default=0)
        found = {self._layouts[other] for other, common in shared.items() if common == nearest}
        return found.pop() if len(found) == 1 else None

    @cached_property
    def _layouts(self) -> Mapping[str, bool]:
        """Path → whether stored as (in, out), of all matrices whose bias tells."""
        found: dict[str, bool] = {}
        for key, (_, _, entry) in self.tensors.items():
            path = key.removesuffix(".weight")
            bias = self.tensors.get(f"{path}.bias")
            if path != key and bias and len(entry.shape) == 2 and entry.shape[0] != entry.shape[1]:
                found |= {path: True} if bias[2].shape == entry.shape[1:] else {}
                found |= {path: False} if bias[2].shape == entry.shape[:1] else {}
        return found


def is_base(path: Path) -> bool:
    """Whether a path has the names of a base's weights (a pickle's too); reads nothing."""
    if path.is_file():
        return path.suffix == ".safetensors"
    return any((path / name).is_file() for name in (*_WHOLE, *_INDICES, *_PICKLES))


def open_base(path: Path) -> Base:
    """The base in a folder or a file; reads headers only.

    Raises NotFound where there is none, UnsafePickle where it is a pickle, FormatError where it is quantised
    or damaged, and what reading headers raises.
    """
    if not is_base(path):
        raise NotFound(f"There are no weights of a base model at {path}.", hint=f"a folder with {_WHOLE[0]}")
    folder = path.parent if path.is_file() else path
    named = (path.name,) if path.is_file() else (*_WHOLE, *_INDICES)
    first = next((name for name in named if (folder / name).is_file()), None)
    if first is None:
        raise UnsafePickle(
            "The base's weights are a pickle, which can run code; of a base, only safetensors is read.",
            where=str(folder),
            hint="AutoModel.from_pretrained(DIR).save_pretrained(OTHER) writes safetensors",
        )
    config = _json.read(folder / CONFIG, limit=_MAX_JSON, error=BadConfig) if (folder / CONFIG).is_file() else {}
    if config.get("quantization_config"):
        raise FormatError("The base's weights are quantised.", where=str(folder / CONFIG), hint=_UNQUANTISED)
    keys = _index(folder / first) if first in _INDICES else None
    names = sorted(set(keys.values())) if keys is not None else [first]
    headers = {name: read_header(folder / name).tensors for name in names}
    if keys is None:
        keys = dict.fromkeys(headers[first], first)
    elif missing := [key for key, name in keys.items() if key not in headers[name]]:
        raise FormatError(f"{keys[missing[0]]} has no {missing[0]}.", where=str(folder / first), hint=_FETCH)
    tensors = {canonical(key): (folder / name, key, headers[name][key]) for key, name in keys.items()}
    return Base(folder, tuple(dict.fromkeys([first, *names])), tensors, config)


_UNQUANTISED = "--base with the weights the base had before it was quantised"
_FETCH = "fetch the base again"


def _index(path: Path) -> dict[str, str]:
    """Key → file of an index; raises FormatError for one that names no files beside it."""
    found = _json.read(path, limit=_MAX_JSON, error=FormatError).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise FormatError("The index has no weight_map.", where=str(path), hint=_FETCH)
    for name in found.values():
        if not isinstance(name, str) or Path(name).name != name or not (path.parent / name).is_file():
            raise FormatError(f"The index names {str(name)[:80]!r}, which is not there.", where=str(path), hint=_FETCH)
    return found


def _renamed(names: Sequence[str], paths: Collection[str], where: str) -> dict[str, str]:
    """Module → path in the base, with one prefix put in front of all names, or taken off all.

    The names as they are win, then those that lose least. Raises BaseMismatch where nothing fits all of
    them, or several prefixes do.
    """
    tried = {change: [n for n in names if _changed(n, change) not in paths] for change in _changes(names, paths)}
    fitting = [change for change, lacking in tried.items() if not lacking]
    if not fitting:
        raise _missing(min(tried.values(), key=len), len(names), paths, where)
    rivals = [added for taken, added in fitting if not taken and added]
    if len(rivals) > 1 and fitting[0] == ("", rivals[0]):
        raise BaseMismatch(
            f"Several weights of the base could be that of {names[0]}: those in {', '.join(rivals)}.",
            where=where,
            hint="--base with the part of the model that the adapter was trained on",
        )
    return {name: _changed(name, fitting[0]) for name in names}


def _changes(names: Sequence[str], paths: Collection[str]) -> list[tuple[str, str]]:
    """(taken off, put in front) that would do for the first or the last of the names: no change, then the least."""
    ends = (names[0], names[-1])
    added = {path.removesuffix(name) for name in ends for path in paths if path.endswith(f".{name}")}
    taken = {name[: dot.end()] for name in ends for dot in re.finditer(r"\.", name) if name[dot.end() :] in paths}
    return [("", ""), *(("", prefix) for prefix in sorted(added)), *((p, "") for p in sorted(taken, key=len))]


def _changed(name: str, change: tuple[str, str]) -> str:
    taken, added = change
    return added + name.removeprefix(taken) if name.startswith(taken) else ""


def _missing(lacking: Sequence[str], count: int, paths: Collection[str], where: str) -> BaseMismatch:
    close = list(dict.fromkeys(other for name in lacking[:3] for other in near(name, paths)))
    shown = f"{', '.join(lacking[:3])}{' …' if len(lacking) > 3 else ''}"
    return BaseMismatch(
        f"The base has no weight for {len(lacking)} of {count} modules: {shown}.",
        where=where,
        hint=f"the base has {', '.join(close or sorted(paths, key=natural)[:3]) or 'no weights at all'}",
    )


def _common(x: str, y: str) -> int:
    """How many leading parts two paths share."""
    pairs = zip(x.split("."), y.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
