"""PEFT: a folder with adapter_config.json and adapter_model.safetensors (or, if allowed, .bin).

    ΔW = scale · B @ A, A (r, in), B (out, r); scale = alpha / r, or alpha / √r with use_rslora,
    r and alpha looked up for each module in rank_pattern and alpha_pattern

A and B are the same for Linear and for GPT-2's Conv1D, whatever `fan_in_fan_out` says; convolutions
are flattened; an embedding's factors give ΔW transposed. `_peft_keys` has the key map, `_peft_refusals`
the kinds that are no LoRA. Adapters that PEFT saved by name lie in subfolders.

Source: https://github.com/huggingface/peft (0.21)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from loramerge.core.adapter import Adapter
from loramerge.errors import AmbiguousName, BadConfig, FormatError, NotFound
from loramerge.formats import _json, _peft_config, _pickle, _tensors
from loramerge.formats._format import Format, Outline
from loramerge.formats._peft_declare import declare
from loramerge.formats._peft_outline import Described, describe, load_extra, load_update
from loramerge.formats._peft_write import Sheet
from loramerge.formats._stream import write_stream

if TYPE_CHECKING:
    from loramerge.core.lowrank import LowRank

CONFIG = _peft_config.NAME
WEIGHTS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"


def sniff(path: Path) -> bool:
    """Whether a folder, or one right below it, or a file in it, has the names that PEFT gives."""
    if path.is_file():
        return path.name in (CONFIG, WEIGHTS, PICKLE)
    return any((path / name).is_file() for name in (CONFIG, WEIGHTS, PICKLE)) or bool(_named(path))


def read(path: Path, *, name: str | None = None, allow_pickle: bool = False) -> Adapter:
    """The adapter in a folder, or the only one in its subfolders; reads the config and the header.

    Raises BadConfig, BadTensor, UnsupportedAdapter, UnsafePickle for what is wrong with it, and
    AmbiguousName where several subfolders have one.
    """
    folder = _folder(path)
    config = _peft_config.read(folder / CONFIG)
    weights = _weights(folder, allow_pickle)
    pickled = weights.name == PICKLE
    source = _pickle if pickled else _tensors
    described = describe(config, source.read_header(weights))
    fetch, array = partial(source.load, weights), partial(_tensors.load_array, weights)
    return replace(
        _adapter(config.raw, described, name or folder.resolve().name),
        loader=partial(load_update, fetch, described.stored),
        arrays=None if pickled else partial(load_update, array, described.stored),
        extra_loader=partial(load_extra, fetch, described.disk),
        extra_arrays=None if pickled else partial(load_extra, array, described.disk),
        path=folder,
        files=(weights.name, CONFIG),
    )


def outline(config: Mapping[str, Any], header: _tensors.Header, name: str) -> Adapter:
    """An adapter that is elsewhere, from its parsed config and its weights' header; it cannot load."""
    described = describe(_peft_config.check(config, f"{CONFIG} of {name}"), header)
    return _adapter(config, described, name)


def write(folder: Path, outline: Outline, updates: Iterable[tuple[str, LowRank]]) -> list[str]:
    """Weights and config; each update is written before the next is asked for. Returns the names of both files.

    Raises BadTensor where a number does not fit the type it is to be stored in, BadOption where an
    update has a higher rank than all were to have, IncompatibleError for DoRA in part of the modules.
    """
    sheet = Sheet(outline)
    write_stream(folder / WEIGHTS, sheet.bounds(), sheet.tensors(updates))
    _json.write(folder / CONFIG, declare(sheet))
    return [WEIGHTS, CONFIG]


def _adapter(config: Mapping[str, Any], described: Described, name: str) -> Adapter:
    return Adapter(
        name=name,
        format="peft",
        modules=described.modules,
        loader=partial(_elsewhere, name),
        extras=described.extras,
        extra_loader=partial(_elsewhere, name),
        base=config.get("base_model_name_or_path") or None,
        config=config,
        notes=described.notes,
    )


def _elsewhere(name: str, key: str) -> NoReturn:
    raise NotFound(f"The tensors of {name} are not here.", where=key, hint="loramerge pull")


def _folder(path: Path) -> Path:
    """The folder that has the config: the path, the one around it, or the only named adapter's in it."""
    folder = path.parent if path.is_file() else path
    if (folder / CONFIG).is_file():
        return folder
    named = _named(path)
    if len(named) > 1:
        listed = ", ".join(folder.name for folder in named)
        raise AmbiguousName(f"There are several adapters: {listed}.", where=str(path), hint=str(named[0]))
    if not named:
        raise BadConfig(
            f"There are weights but no {CONFIG}, so their scale is not known.",
            where=str(path),
            hint=f"put the {CONFIG} that was saved with them beside them",
        )
    return named[0]


def _named(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return sorted(folder for folder in path.iterdir() if (folder / CONFIG).is_file())


def _weights(folder: Path, allow_pickle: bool) -> Path:
    safe, pickle = folder / WEIGHTS, folder / PICKLE
    if safe.is_file():
        if pickle.is_file():
            _pickle.check_same_names(pickle, _tensors.read_header(safe).tensors)
        return safe
    if pickle.is_file():
        _pickle.refuse_unless(allow_pickle, pickle)
        return pickle
    raise FormatError(
        f"There is a config but neither {WEIGHTS} nor {PICKLE}.", where=str(folder), hint="fetch the folder again"
    )


FORMAT = Format(sniff, read, write)
