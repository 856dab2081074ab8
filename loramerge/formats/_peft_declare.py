"""The adapter_config.json of what is written: a copy's own, or one made for a result.

PEFT has to find each module and resolve for it the rank that its tensors have and the scale that the
update means. Everything else is as few fields as do that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

from loramerge.core.names import natural
from loramerge.formats._format import Outline
from loramerge.formats._peft_config import Config, scale_of
from loramerge.formats._peft_keys import ancestors
from loramerge.formats._peft_write import Sheet

_HEADED = {"SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"}
_INDEXED = re.compile(r"(?P<head>(?:.*\.)?[0-9]+)\.(?P<tail>.+)")


def declare(sheet: Sheet) -> dict[str, Any]:
    """The config for what `sheet` has written."""
    outline = sheet.outline
    if not outline.verbatim:
        config = {**_made(sheet), **_numbers(sheet, {name: float(rank) for name, rank in sheet.ranks.items()}, False)}
    elif _resolves(sheet):
        config = dict(outline.config)
    else:
        rslora = all(spec.rslora for spec in outline.modules)
        config = {**_made(sheet), **outline.config, **_numbers(sheet, _alphas(sheet, rslora), rslora)}
    if (config.get("base_model_name_or_path") or None) != outline.base:
        config["base_model_name_or_path"] = outline.base
    # The blocks of an old MergedLinear are spread out when they are read.
    config.pop("enable_lora", None)
    return {**config, "peft_type": "LORA"}


def _resolves(sheet: Sheet) -> bool:
    """Whether the original config gives every module the rank and the scale it has."""
    config = Config(sheet.outline.config, "")
    if not {"r", "lora_alpha"} <= config.raw.keys():
        return False
    for name, spec in sheet.specs.items():
        rank, alpha = config.resolve(sheet.owners[name])
        if rank != sheet.ranks[name] or config.scale(rank, alpha) != spec.scale:
            return False
    return True


def _alphas(sheet: Sheet, rslora: bool) -> dict[str, float]:
    """The alpha of each module that gives it its scale: the declared one where that does."""
    found = {}
    for name, spec in sheet.specs.items():
        rank = sheet.ranks[name]
        kept = scale_of(rank, spec.alpha, rslora) == spec.scale
        found[name] = spec.alpha if kept else spec.scale * (rank**0.5 if rslora else rank)
    return found


def _numbers(sheet: Sheet, alphas: Mapping[str, float], rslora: bool) -> dict[str, Any]:
    """Ranks and alphas: the most common ones for all, patterns for the rest."""
    names = sorted(set(sheet.owners.values()), key=natural)
    rank = _most_common(sheet.ranks[name] for name in names)
    alpha = _most_common(alphas[name] for name in names)
    return {
        "r": rank,
        "lora_alpha": _whole(alpha),
        "use_rslora": rslora,
        "rank_pattern": {_pattern(name): sheet.ranks[name] for name in names if sheet.ranks[name] != rank},
        "alpha_pattern": {_pattern(name): _whole(alphas[name]) for name in names if alphas[name] != alpha},
    }


def _most_common(values: Iterable[Any]) -> Any:
    counts = Counter(values)
    return max(counts, key=lambda value: (counts[value], value))


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() else value


def _pattern(name: str) -> str:
    """A pattern that takes this module and no other, wherever it stands in the table."""
    return f"^{re.escape(name)}"


def _made(sheet: Sheet) -> dict[str, Any]:
    """All of a config but its numbers."""
    outline = sheet.outline
    optional = {
        "revision": outline.config.get("revision"),
        "layer_replication": outline.config.get("layer_replication"),
        "ensure_weight_tying": outline.config.get("ensure_weight_tying"),
        "trainable_token_indices": {s.module: list(s.indices) for s, _ in outline.extras if s.kind == "tokens"},
        "lora_bias": sheet.has_bias,
        "use_dora": bool(sheet.dora),
    }
    to_save = _to_save(outline)
    task = outline.config.get("task_type")
    return {
        "base_model_name_or_path": outline.base,
        # PEFT asks an adapter with one of these tasks for its head, and fails where there is none.
        "task_type": None if task in _HEADED and not to_save else task,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "bias": _bias(outline, sheet),
        "fan_in_fan_out": bool(outline.config.get("fan_in_fan_out")),
        "modules_to_save": to_save or None,
        "target_modules": _targets(sheet),
        **{field: value for field, value in optional.items() if value},
    }


def _to_save(outline: Outline) -> list[str]:
    """The modules_to_save that have something saved: PEFT fails where one of them has not."""
    keys = [spec.key for spec, _ in outline.extras if spec.kind == "saved"]
    paths = {path for key in keys for path in ancestors(key)}
    return [name for name in outline.config.get("modules_to_save") or () if any(path.endswith(name) for path in paths)]


def _bias(outline: Outline, sheet: Sheet) -> str:
    trained = {spec.module for spec, _ in outline.extras if spec.kind == "bias"}
    if not trained:
        return "none"
    return "lora_only" if trained <= sheet.specs.keys() else "all"


def _targets(sheet: Sheet) -> list[str]:
    """The shortest endings of module names that select all of ours and no other module known to exist.

    What exists is known from the names at hand: what one layer has, the others are taken to have too.
    Endings that the original config states are tried first, then the path behind the layer's number,
    then the whole path.
    """
    ours = set(sheet.owners.values())
    known = _known({*sheet.specs, *(spec.module for spec, _ in sheet.outline.extras)}) - (sheet.specs.keys() - ours)
    original = sheet.outline.config.get("target_modules")
    stated = sorted(original, key=lambda ending: (len(ending), ending)) if isinstance(original, list) else []

    @cache
    def exact(ending: str) -> bool:
        return all(name in ours for name in known if _selects(ending, name))

    chosen = set()
    for name in ours:
        tail = found["tail"] if (found := _INDEXED.fullmatch(name)) else name
        endings = [ending for ending in [*stated, tail] if _selects(ending, name)]
        chosen.add(next((ending for ending in endings if exact(ending)), name))
    return sorted(chosen, key=natural)


def _selects(ending: str, name: str) -> bool:
    return name == ending or name.endswith(f".{ending}")


def _known(names: Collection[str]) -> set[str]:
    """Names, and those that follow when all layers of a stack have the same modules."""
    heads: dict[str, set[str]] = {}
    tails: dict[str, set[str]] = {}
    for name in names:
        if found := _INDEXED.fullmatch(name):
            stack = re.sub(r"[0-9]+", "#", found["head"])
            heads.setdefault(stack, set()).add(found["head"])
            tails.setdefault(stack, set()).add(found["tail"])
    return {*names, *(f"{head}.{tail}" for stack in heads for head in heads[stack] for tail in tails[stack])}
