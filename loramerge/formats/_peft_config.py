"""adapter_config.json: read, checked, and resolved to one rank and one scale per module.

r     = the first rank_pattern that takes the module's name, else `r`
alpha = the first alpha_pattern that takes it, else `lora_alpha`
scale = alpha / r, or alpha / √r with use_rslora
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from loramerge.errors import BadConfig
from loramerge.formats import _json, _pattern
from loramerge.formats._pattern import first_match
from loramerge.formats._peft_refusals import refuse_config

NAME = "adapter_config.json"
MAX_BYTES = 1_000_000
_MAX_PATTERNS = 100_000


@dataclass(frozen=True)
class Config:
    """A checked LoRA config. `raw` is the file's own content, all of it."""

    raw: Mapping[str, Any]
    where: str

    @cached_property
    def rank_pattern(self) -> Mapping[str, int]:
        """Pattern → rank, in the file's order."""
        return self.raw.get("rank_pattern") or {}

    @cached_property
    def alpha_pattern(self) -> Mapping[str, float]:
        """Pattern → alpha, in the file's order."""
        return self.raw.get("alpha_pattern") or {}

    @property
    def rslora(self) -> bool:
        """Whether scale is alpha / √r."""
        return bool(self.raw.get("use_rslora"))

    @property
    def blocks(self) -> tuple[bool, ...]:
        """`enable_lora` of the old MergedLinear: which of the fused blocks of an output have an update."""
        return tuple(self.raw.get("enable_lora") or ())

    def resolve(self, module: str) -> tuple[int, float]:
        """(rank, alpha) of a module, as PEFT resolves them."""
        rank = first_match(self.rank_pattern, module, self.raw["r"])
        return rank, float(first_match(self.alpha_pattern, module, self.raw["lora_alpha"]))

    def scale(self, rank: int, alpha: float) -> float:
        """alpha / rank, or alpha / √rank with rsLoRA."""
        return scale_of(rank, alpha, self.rslora)

    def notes(self) -> list[str]:
        """What is odd about it, one sentence each."""
        found = []
        if "peft_type" not in self.raw:
            found.append("The config does not say peft_type; it was read as LORA.")
        if unknown := sorted(self.raw.keys() - FIELDS.keys() - _RECORDED):
            found.append(f"The config has unknown fields, kept as they are: {', '.join(unknown)[:200]}.")
        if self.raw.get("layer_replication"):
            found.append("Layers of the base are replicated (layer_replication); names are those of the copies.")
        return found


def scale_of(rank: int, alpha: float, rslora: bool) -> float:
    """The factor PEFT multiplies a module's update with."""
    return float(alpha / rank**0.5 if rslora else alpha / rank)


def read(path: Path) -> Config:
    """The config in a file; raises BadConfig, and UnsupportedAdapter for other kinds."""
    return check(_json.read(path, limit=MAX_BYTES, error=BadConfig), str(path))


def check(raw: Mapping[str, Any], where: str) -> Config:
    """A config from its parsed content; raises BadConfig, and UnsupportedAdapter for other kinds."""
    refuse_config(raw, where)
    for field in ("r", "lora_alpha"):
        if raw.get(field) is None:
            raise BadConfig(f"{field} is missing, and without it no scale is known.", where=where)
    for field, (holds, what) in FIELDS.items():
        if raw.get(field) is not None and not holds(raw[field]):
            raise BadConfig(f"{field} is {_short(raw[field])}, which is not {what}.", where=where)
    config = Config(raw, where)
    for pattern in (*config.rank_pattern, *config.alpha_pattern):
        _pattern.check(pattern, where)
    return config


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _rank(value: Any) -> bool:
    return type(value) is int and 0 < value <= 10**6


def _number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= 10**9


def _flag(value: Any) -> bool:
    return type(value) is bool


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _indices(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _tokens(value: Any) -> bool:
    return _indices(value) or (isinstance(value, dict) and all(map(_indices, value.values())))


def _pattern_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check_pattern(value: Any) -> bool:
        return isinstance(value, dict) and len(value) <= _MAX_PATTERNS and all(map(holds, value.values()))

    return check_pattern


_RANK, _NUMBER = "a whole number above 0", "a number"
FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "r": (_rank, _RANK),
    "lora_alpha": (_number, _NUMBER),
    "rank_pattern": (_pattern_of(_rank), "a table of names and whole numbers above 0"),
    "alpha_pattern": (_pattern_of(_number), "a table of names and numbers"),
    "bias": (lambda value: value in ("none", "all", "lora_only"), "none, all or lora_only"),
    "target_modules": (lambda value: _text(value) or _texts(value), "a text or a list of texts"),
    "trainable_token_indices": (_tokens, "a list of token numbers, or a table of such lists"),
    "layer_replication": (
        lambda value: isinstance(value, list) and all(_indices(pair) and len(pair) == 2 for pair in value),
        "a list of pairs of layer numbers",
    ),
    "init_lora_weights": (lambda value: _flag(value) or _text(value), "true, false or a name"),
    "enable_lora": (lambda value: isinstance(value, list) and all(map(_flag, value)), "a list of true and false"),
    "modules_to_save": (_texts, "a list of texts"),
    **dict.fromkeys(
        ("use_rslora", "use_dora", "lora_bias", "fan_in_fan_out", "inference_mode"), (_flag, "true or false")
    ),
    **dict.fromkeys(
        ("base_model_name_or_path", "revision", "task_type", "peft_type", "peft_version"), (_text, "a text")
    ),
}
"""The fields that are interpreted, and what each may be (null stands for its absence)."""

_RECORDED = {
    *("auto_mapping", "exclude_modules", "layers_to_transform", "layers_pattern", "lora_dropout", "loftq_config"),
    *("eva_config", "corda_config", "lora_ga_config", "velora_config", "qalora_group_size", "megatron_core"),
    *("alora_invocation_tokens", "arrow_config", "kasa_config", "megatron_config", "monteclora_config"),
    *("target_parameters", "use_bdlora", "use_qalora", "ensure_weight_tying", "merge_weights", "runtime_config"),
}
