"""PEFT adapters that are no LoRA update of a known base, each refused with its own reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from loramerge.errors import BadConfig, UnsupportedAdapter
from loramerge.registry import near

_EXTRACT = "apply it to its base with PEFT's merge_and_unload, and take a LoRA of the difference"
_TRAIN = "train a LoRA instead"
_CONVERT = "save it again with save_pretrained(..., path_initial_model_for_weight_conversion=...)"

_VIRTUAL = "learns virtual tokens, keys or values, not an update of weights"
_ROTATES = "rotates the base's weights, so its update depends on them"
_SCALES = "multiplies the base's weights or activations, so its update depends on them"
_SHARED = "makes its factors from shared or random ones that need not all be in the file"
_SPARSE = "changes single entries of a weight, or a transform of it, of full rank in general"
_INSIDE = "works inside a decomposition of the base's weights"
_TOKENWISE = "acts differently on each input, so there is no one update"
_BLOCKS = "gives the blocks of a weight updates of their own, or repeats one"

KINDS: Mapping[str, tuple[str, str]] = {
    "ADALORA": ("AdaLoRA", "has a learnt diagonal between its factors"),
    "LOHA": ("LoHa", "is an elementwise product of two low-rank updates"),
    "LOKR": ("LoKr", "is a Kronecker product, of full rank in general"),
    "VERA": ("VeRA", _SHARED),
    "PVERA": ("PVeRA", _SHARED),
    "FROD": ("FRoD", _SHARED),
    "RANDLORA": ("RandLoRA", _SHARED),
    "VBLORA": ("VB-LoRA", _SHARED),
    "UNILORA": ("Uni-LoRA", _SHARED),
    "TINYLORA": ("TinyLoRA", _SHARED),
    "MISS": ("MiSS", _BLOCKS),
    "BONE": ("Bone", _BLOCKS),
    "GRALORA": ("GraLoRA", _BLOCKS),
    "XLORA": ("X-LoRA", _TOKENWISE),
    "POLY": ("Poly", _TOKENWISE),
    "LILY": ("Lily", _TOKENWISE),
    "PEANUT": ("PEANuT", _TOKENWISE),
    "SHADOW": ("ShadowPEFT", _TOKENWISE),
    "IA3": ("IA³", _SCALES),
    "HIRA": ("HiRA", _SCALES),
    "GLORA": ("GLoRA", _SCALES),
    "DELORA": ("DeLoRA", "normalises its factors and scales by the base's norm"),
    "OFT": ("OFT", _ROTATES),
    "BOFT": ("BOFT", _ROTATES),
    "HRA": ("HRA", _ROTATES),
    "ROAD": ("RoAd", _ROTATES),
    "PSOFT": ("PSOFT", _INSIDE),
    "DEFT": ("DEFT", _INSIDE),
    "OSF": ("OSF", _INSIDE),
    "ADAMSS": ("AdaMSS", _INSIDE),
    "FOURIERFT": ("FourierFT", _SPARSE),
    "WAVEFT": ("WaveFT", _SPARSE),
    "C3A": ("C3A", _SPARSE),
    "SHIRA": ("SHiRA", _SPARSE),
    "SUPERTUNING": ("Super-Tuning", _SPARSE),
    "LN_TUNING": ("LN tuning", "trains normalisation layers, not an update of weights"),
    "BEFT": ("BEFT", "trains biases, not an update of weights"),
    "TRAINABLE_TOKENS": ("Trainable-token", "replaces rows of an embedding and updates nothing else"),
    "PROMPT_TUNING": ("Prompt-tuning", _VIRTUAL),
    "MULTITASK_PROMPT_TUNING": ("Multitask prompt-tuning", _VIRTUAL),
    "P_TUNING": ("P-tuning", _VIRTUAL),
    "PREFIX_TUNING": ("Prefix-tuning", _VIRTUAL),
    "ADAPTION_PROMPT": ("LLaMA-Adapter", _VIRTUAL),
    "CPT": ("CPT", _VIRTUAL),
    "CARTRIDGE": ("Cartridge", _VIRTUAL),
}
"""Every other kind PEFT knows: peft_type → its name and why it is no LoRA."""


class Refusal(NamedTuple):
    """A config field, the values of it that make an adapter something else, what, and what to try."""

    field: str
    holds: Callable[[Any], bool]
    what: str
    hint: str


def _given(value: Any) -> bool:
    return value not in (None, False, {}, [])


def _init(*names: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value.lower().startswith(names)


REFUSALS = (
    Refusal("init_lora_weights", _init("pissa"), "PiSSA adapters change the base before they add to it", _CONVERT),
    Refusal("init_lora_weights", _init("olora"), "OLoRA adapters change the base before they add to it", _CONVERT),
    Refusal("init_lora_weights", _init("corda"), "CorDA adapters change the base before they add to it", _CONVERT),
    Refusal("init_lora_weights", _init("lora_ga"), "LoRA-GA adapters change the base before they add to it", _CONVERT),
    Refusal(
        "init_lora_weights", _init("loftq"), "LoftQ adapters make up for the rounding of one quantised base", _EXTRACT
    ),
    Refusal("kasa_config", _given, "KaSA adapters remove singular values of the base before they add to it", _EXTRACT),
    Refusal(
        "alora_invocation_tokens",
        _given,
        "aLoRA adapters act only after their invocation tokens, so there is no one update",
        "serve it as it is",
    ),
    Refusal("use_qalora", _given, "QALoRA adapters pool their inputs in groups before the first factor", _EXTRACT),
    Refusal(
        "megatron_config", _given, "Megatron adapters are split over devices", "gather it with Megatron, then save"
    ),
    Refusal("use_bdlora", _given, "BD-LoRA adapters have block-diagonal factors stored as blocks", _EXTRACT),
    Refusal("arrow_config", _given, "Arrow adapters route each token to other experts", "merge its experts"),
    Refusal("monteclora_config", _given, "MonteCLoRA adapters draw their factors from a distribution", _EXTRACT),
    Refusal(
        "target_parameters",
        _given,
        "LoRA on fused expert parameters (target_parameters) is not supported: the layout depends on the base",
        "train with target_modules on single experts",
    ),
)

_MARKS = {
    "lora_E": "AdaLoRA",
    "lora_diag": "KaSA",
    "hada_w": "LoHa",
    "lokr_w": "LoKr",
    "vera_lambda_": "VeRA",
    "miss_block": "MiSS",
    "bone_block": "Bone",
    "oft_R": "OFT",
    "boft_R": "BOFT",
    "hra_u": "HRA",
    "ia3_l": "IA³",
    "prompt_embeddings": "Prompt-tuning",
}
"""How the names of other methods' tensors begin, for files whose config calls them LoRA."""


def refuse_config(config: Mapping[str, Any], where: str) -> None:
    """Raises UnsupportedAdapter for a config of another kind, BadConfig where the kind is missing or unclear."""
    if "fine_tune_type" in config or "lora_parameters" in config:
        raise UnsupportedAdapter(
            "This is an adapter of MLX (fine_tune_type), which is not supported.",
            where=where,
            hint="convert it to PEFT's format, with tensors transposed and lora_alpha = scale · rank",
        )
    _refuse_kind(config.get("peft_type"), config, where)
    for refusal in REFUSALS:
        if refusal.holds(config.get(refusal.field)):
            raise UnsupportedAdapter(f"{refusal.what}.", where=where, hint=refusal.hint)


def _refuse_kind(kind: Any, config: Mapping[str, Any], where: str) -> None:
    if kind is None and {"r", "lora_alpha", "target_modules"} <= config.keys():
        return
    if not isinstance(kind, str):
        raise BadConfig("peft_type is missing.", where=where, hint='"peft_type": "LORA", if that is what it is')
    if kind in KINDS:
        name, why = KINDS[kind]
        hint = _TRAIN if why == _VIRTUAL else _EXTRACT
        raise UnsupportedAdapter(f"{name} adapters are not supported: the method {why}.", where=where, hint=hint)
    if kind != "LORA":
        known = ["LORA", *KINDS]
        hint = ", ".join(near(kind.upper(), known) or ["LORA"])
        raise UnsupportedAdapter(f"peft_type {kind[:40]!r} is unknown.", where=where, hint=hint)


def refuse_keys(names: Iterable[str], where: str) -> None:
    """Raises UnsupportedAdapter where a tensor is named as another method names its own."""
    for name in names:
        for mark, method in _MARKS.items():
            if f".{mark}" in f".{name}":
                raise UnsupportedAdapter(
                    f"{name} is a tensor of {method}, which is not supported.", where=where, hint=_EXTRACT
                )
