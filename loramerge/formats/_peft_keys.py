"""The key map of PEFT's weight files: what each tensor is, from its name alone, and back.

    base_model.model.<module>.lora_A.weight                    a
    base_model.model.<module>.lora_B.weight, .lora_B.bias      b, bias
    base_model.model.<module>.lora_embedding_A, _B             a, b
    base_model.model.<module>.lora_magnitude_vector[.weight]   DoRA's magnitude
    base_model.model.<module>.base_layer.weight | bias         a copy of the base's weight | a trained bias
    base_model.model.<module>.token_adapter.trainable_tokens_delta
    base_model.model.<anything else>                           saved modules and trained biases

An adapter's name may have been left in (`lora_A.default.weight`); it is taken out when it is the same
in all keys. Where PEFT wraps one target inside another (the output projection of torch's attention)
the inner one's path has a `base_layer` in it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from loramerge.core.names import canonical, natural
from loramerge.errors import BadTensor, UnsupportedAdapter
from loramerge.formats._peft_refusals import refuse_keys

PREFIX = "base_model.model."
TOKENS = ".token_adapter.trainable_tokens_delta"
MAGNITUDE = ".lora_magnitude_vector"

_FACTOR = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)"
    r"(?:\.(?P<adapter>[^.]+))??(?:\.(?P<leaf>weight|bias))?"
)
_PARTS = {
    ("lora_A", "weight"): "a",
    ("lora_B", "weight"): "b",
    ("lora_B", "bias"): "bias",
    ("lora_embedding_A", None): "embedding_a",
    ("lora_embedding_B", None): "embedding_b",
    ("lora_magnitude_vector", None): "magnitude",
    ("lora_magnitude_vector", "weight"): "magnitude",
}
_SUFFIXES = {
    "a": ".lora_A.weight",
    "b": ".lora_B.weight",
    "bias": ".lora_B.bias",
    "embedding_a": ".lora_embedding_A",
    "embedding_b": ".lora_embedding_B",
    "magnitude": MAGNITUDE,
}


@dataclass(frozen=True, slots=True)
class ExtraKey:
    """Where a tensor that is no factor is on disk, what it is, and whose."""

    disk: str
    kind: str
    module: str


@dataclass(frozen=True)
class KeyMap:
    """A file's tensors by what they are.

    `factors` maps module → part → key on disk, modules in natural order. `owners` maps a module to the
    outermost target around it, whose rank and alpha PEFT gives it (itself, as a rule). `extras` maps a
    key without wrappers to where it is.
    """

    factors: Mapping[str, Mapping[str, str]]
    owners: Mapping[str, str]
    extras: Mapping[str, ExtraKey]
    notes: list[str] = field(default_factory=list)


def sort_keys(names: Iterable[str], saved: Collection[str], where: str) -> KeyMap:
    """Classify all keys of a file; `saved` is the config's modules_to_save.

    Raises BadTensor for keys of several adapters, or two for one thing, and UnsupportedAdapter for
    those of other methods.
    """
    names = sorted(names, key=natural)
    refuse_keys(names, where)
    adapter = _adapter_name(names, where)
    factors: dict[str, dict[str, str]] = {}
    owners: dict[str, str] = {}
    extras: dict[str, ExtraKey] = {}
    for disk in names:
        name = canonical(disk)
        if found := _FACTOR.fullmatch(name):
            module = _module(found["module"], disk, where)
            part = _PARTS.get((found["part"], found["leaf"]))
            if part is None or part in factors.setdefault(module, {}):
                raise BadTensor(f"{disk} is no tensor of LoRA, or the second of its kind.", where=where)
            factors[module][part] = disk
            owners[module] = found["module"].partition(".base_layer.")[0]
        else:
            key, extra = _extra(name, disk, adapter, saved)
            if key in extras:
                raise BadTensor(f"{disk} and {extras[key].disk} are the same tensor.", where=where)
            extras[key] = extra
    return KeyMap(factors, owners, extras, list(_notes(names, adapter, extras)))


def disk_key(module: str, part: str, modules: Collection[str]) -> str:
    """The key of one part of a module's update, in a file that has updates for `modules`."""
    return PREFIX + _nested(module, modules) + _SUFFIXES[part]


def extra_disk_key(key: str, kind: str, module: str, modules: Collection[str]) -> str:
    """The key of an extra, in a file that has updates for `modules`."""
    if kind == "magnitude":
        return disk_key(module, "magnitude", modules)
    return PREFIX + (_nested(key, modules) if kind in ("bias", "base", "saved") else key)


def ancestors(path: str) -> Iterator[str]:
    """The paths of the modules around a path, the outermost first."""
    return (path[: dot.start()] for dot in re.finditer(r"\.", path))


def _nested(path: str, modules: Collection[str]) -> str:
    """The path with `base_layer` behind every module that PEFT wraps."""
    for around in sorted((around for around in ancestors(path) if around in modules), key=len, reverse=True):
        path = f"{around}.base_layer{path[len(around) :]}"
    return path


def _adapter_name(names: Iterable[str], where: str) -> str | None:
    """The adapter name left in the keys; raises BadTensor where they do not agree."""
    found = {match["adapter"] for name in names if (match := _FACTOR.fullmatch(name))}
    if len(found) > 1:
        named = ", ".join(sorted(name or "(none)" for name in found))
        raise BadTensor(
            f"The keys belong to several adapters: {named}.", where=where, hint="save each adapter by itself"
        )
    return next(iter(found), None)


def _module(path: str, disk: str, where: str) -> str:
    if path.endswith(".base_layer") or path == "base_layer":
        raise UnsupportedAdapter(
            f"{disk} is LoRA on fused expert parameters, which is not supported: the layout depends on the base.",
            where=where,
            hint="train with target_modules on single experts",
        )
    return path.replace(".base_layer.", ".")


def _extra(name: str, disk: str, adapter: str | None, saved: Collection[str]) -> tuple[str, ExtraKey]:
    if adapter:
        name = name.replace(f".modules_to_save.{adapter}.", ".").removesuffix(f".{adapter}")
    key = name.replace(".base_layer.", ".")
    module = next((path for path in ancestors(key) if path.endswith(tuple(saved))), "")
    if key.endswith(TOKENS):
        return key, ExtraKey(disk, "tokens", key.removesuffix(TOKENS))
    if module:
        return key, ExtraKey(disk, "saved", module)
    owner, _, leaf = key.rpartition(".")
    weight = "base" if name.endswith(".base_layer.weight") else "saved"
    return key, ExtraKey(disk, {"bias": "bias", "weight": weight}.get(leaf, "raw"), owner)


def _notes(names: Iterable[str], adapter: str | None, extras: Mapping[str, ExtraKey]) -> Iterator[str]:
    if adapter:
        yield f"The adapter's name, {adapter}, was left in the keys; it was taken out."
    if any(PREFIX * 2 in name for name in names):
        yield f"Keys begin with {PREFIX} more than once; it was taken off."
    if raw := [key for key, extra in extras.items() if extra.kind == "raw"]:
        yield f"{len(raw)} tensors are of no known kind and carried as they are: {', '.join(raw[:3])}."
