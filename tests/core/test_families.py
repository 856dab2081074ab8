"""Each family catalog against the models of transformers, built from shrunk configs on the meta device."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from loramerge.core.catalog import architectures, family_of
from loramerge.core.names import matches

transformers = pytest.importorskip("transformers", reason="builds models: pip install loramerge[models]")

_LAYERS = {"num_hidden_layers": 2}
_BOTH_SIDES = {"encoder_layers": 2, "decoder_layers": 2}
_VISION = {"num_hidden_layers": 2, "image_size": 16, "patch_size": 8}
SHRUNK = {
    "bart": [_BOTH_SIDES],
    "bert": [_LAYERS],
    "bloom": [{"n_layer": 2}],
    "camembert": [_LAYERS],
    "clip": [{"text_config": _LAYERS, "vision_config": _VISION}],
    "clip_text_model": [_LAYERS],
    "clip_vision_model": [_VISION],
    "distilbert": [{"n_layers": 2}],
    "gemma": [_LAYERS],
    "gemma2": [_LAYERS],
    "gemma3": [{"text_config": _LAYERS, "vision_config": {**_VISION, "vision_use_head": False}}],
    "gemma3_text": [_LAYERS],
    "gpt2": [{"n_layer": 2}],
    "gpt_neo": [{"num_layers": 2, "attention_types": [[["global", "local"], 1]]}],
    "gpt_neox": [_LAYERS],
    "llama": [_LAYERS],
    "marian": [_BOTH_SIDES],
    "mbart": [_BOTH_SIDES],
    "mistral": [_LAYERS],
    "mt5": [{"num_layers": 2}],
    "opt": [{**_LAYERS, "word_embed_proj_dim": 512}],
    "phi": [_LAYERS],
    "phi3": [_LAYERS],
    "qwen2": [_LAYERS],
    "qwen3": [_LAYERS],
    "roberta": [_LAYERS],
    "t5": [{"num_layers": 2}, {"num_layers": 2, "feed_forward_proj": "gated-gelu"}],
    "vit": [_VISION],
    "whisper": [_BOTH_SIDES],
    "xlm-roberta": [_LAYERS],
}
"""What makes a default config small, for each model_type; sizes cost nothing on the meta device, layers do."""

UPDATABLE = (
    torch.nn.Linear,
    torch.nn.Embedding,
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    transformers.pytorch_utils.Conv1D,
)

verified = pytest.mark.parametrize("scheme", list(architectures().values()), ids=lambda scheme: scheme.name)


@cache
def layers(model_type: str) -> frozenset[str]:
    """Names of all layers that could carry an update, in every model of a type: bare and with each of its heads."""
    return frozenset(
        name
        for shrunk in SHRUNK[model_type]
        for model in models(transformers.AutoConfig.for_model(model_type, **shrunk))
        for name, module in model.named_modules()
        if isinstance(module, UPDATABLE)
    )


def models(config) -> list[torch.nn.Module]:
    autos = [getattr(transformers, name) for name in dir(transformers) if name.startswith("AutoModel")]
    mapped = [
        auto._model_mapping[type(config)] for auto in autos if type(config) in getattr(auto, "_model_mapping", {})
    ]
    # Some auto classes map a type to a foreign architecture that wraps it.
    own = [kind for kind in dict.fromkeys(mapped) if kind.__module__.split(".")[2] == package(config)]
    with torch.device("meta"):
        return [kind(config) for kind in own]


def package(config) -> str:
    return type(config).__module__.split(".")[2]


def built(scheme) -> frozenset[str]:
    if not scheme.verified:
        pytest.skip(f"{scheme.name} is unverified: {scheme.reason}")
    return frozenset().union(*(layers(model_type) for model_type in scheme.model_types))


@verified
def test_every_pattern_hits_a_module(scheme):
    names = built(scheme)

    idle = [p for patterns in scheme.modules.values() for p in patterns if not any(matches(p, n) for n in names)]

    assert idle == []


@verified
def test_every_layer_falls_in_exactly_one_family(scheme):
    names = built(scheme)

    families = {n: {f for f, patterns in scheme.modules.items() if any(matches(p, n) for p in patterns)} for n in names}

    assert names
    assert {name: found for name, found in families.items() if len(found) != 1} == {}


@verified
def test_a_name_has_one_family_whichever_scheme_is_asked(scheme):
    names = built(scheme)

    found = {n: {f for other in architectures().values() for p, f in other.patterns if matches(p, n)} for n in names}

    assert {name: families for name, families in found.items() if len(families) != 1} == {}


def test_names_from_before_the_renaming_keep_their_family():
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    renamings = [new.reverse_transform() for new in reversed(get_checkpoint_conversion_mapping("ViTModel"))]
    renamed = {}
    for name in layers("vit"):
        old = f"{name}.weight"
        for renaming in renamings:
            old, _ = renaming.rename_source_key(old)
        renamed[old.removesuffix(".weight")] = name
    former = [pattern for patterns in architectures()["vit"].former.values() for pattern in patterns]

    families = {old: (family_of(old, "vit"), family_of(new, "vit")) for old, new in renamed.items()}

    assert {old: pair for old, pair in families.items() if pair[0] != pair[1]} == {}
    assert [pattern for pattern in former if not any(matches(pattern, old) for old in renamed)] == []


def test_what_cannot_be_built_says_why():
    unverified = {scheme.name: scheme.reason for scheme in architectures().values() if not scheme.verified}

    assert set(unverified) == {"flux", "unet"}
    assert all(unverified.values())
