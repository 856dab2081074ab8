"""What a README says about its model, and the tags by which the model is found.

The card is the YAML between the two `---` lines at the top of README.md. Tags are, in this order:
library, formats of the files, task, the card's own tags, languages, `dataset:`, `license:`, and for
each base model `base_model:<id>` and `base_model:<relation>:<id>`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LONGEST = 1 << 20
_DEEPEST = 50
_FORMATS = {".safetensors": "safetensors", ".gguf": "gguf", ".onnx": "onnx"}
_LISTS = ("tags", "datasets", "base_model", "language", "license")
_WORDS = ("library_name", "pipeline_tag", "base_model_relation", "license_name")


def read_card(readme: str) -> tuple[dict[str, Any], list[str]]:
    """The metadata of a README, ready for JSON ({} where there is none), and what is wrong with it."""
    text = _front_matter(readme)
    if len(text) > _LONGEST:
        return {}, [f"The metadata is longer than {_LONGEST} characters"]
    try:
        _check_shape(text)
        card = yaml.load(text, Loader=_LOADER)  # a safe loader: plain data only
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        return {}, [" ".join(str(error).split())]
    if card is None:
        return {}, []
    if not isinstance(card, dict):
        return {}, ["The metadata must be a mapping of names to values"]
    return _plain(card), [*_mistakes(card)]


def _front_matter(readme: str) -> str:
    lines = readme.lstrip("\ufeff").splitlines()
    if not lines or lines[0].rstrip() != "---":
        return ""
    end = next((n for n, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), 0)
    return "\n".join(lines[1:end])


def _check_shape(text: str) -> None:
    # An alias can make a few bytes mean gigabytes, and depth can exhaust the stack; no card needs either.
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("Aliases are not allowed in the metadata")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError("The metadata is nested too deeply")


def _plain(value: Any) -> Any:
    """YAML's values as JSON has them: dates and what is not a number become text, names too."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, bytes) or (isinstance(value, float) and not math.isfinite(value)):
        return str(value)
    return value


def _mistakes(card: Mapping[str, Any]) -> list[str]:
    lists = [name for name in _LISTS if name in card and not _is_words(card[name])]
    words = [name for name in _WORDS if not isinstance(card.get(name, ""), str)]
    return [f'"{name}" must be a string or a list of strings' for name in lists] + [
        f'"{name}" must be a string' for name in words
    ]


def _is_words(value: Any) -> bool:
    return value is None or all(isinstance(item, str) for item in (value if isinstance(value, list) else [value]))


def library(card: Mapping[str, Any], paths: Collection[str]) -> str | None:
    """What the card says; PEFT where there is an adapter."""
    return card.get("library_name") or ("peft" if "adapter_config.json" in paths else None)


def derive(card: Mapping[str, Any], paths: Collection[str]) -> list[str]:
    """All tags of a model, each once."""
    suffixes = {path[path.rfind(".") :] for path in paths if "." in path}
    bases = _words(card, "base_model")
    kind = relation(card, paths)
    found = [
        library(card, paths),
        *(tag for suffix, tag in _FORMATS.items() if suffix in suffixes),
        card.get("pipeline_tag"),
        *_words(card, "tags"),
        *_words(card, "language"),
        *(f"dataset:{name}" for name in _words(card, "datasets")),
        *(f"license:{name}" for name in _words(card, "license")),
        *(f"base_model:{base}" for base in bases),
        *(f"base_model:{kind}:{base}" for base in bases),
    ]
    return list(dict.fromkeys(tag for tag in found if tag))


def relation(card: Mapping[str, Any], paths: Collection[str]) -> str:
    """How a model came from its base: what the card says, else what its files and bases suggest."""
    if stated := card.get("base_model_relation"):
        return str(stated)
    if library(card, paths) == "peft":
        return "adapter"
    if any(path.endswith(".gguf") for path in paths):
        return "quantized"
    return "merge" if len(_words(card, "base_model")) > 1 else "finetune"


def _words(card: Mapping[str, Any], name: str) -> list[str]:
    value = card.get(name) or []
    return value if isinstance(value, list) else [value]
