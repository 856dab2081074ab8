"""Tiny models of transformers with random weights, and adapters for them that PEFT itself makes, saves and runs."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

VOCABULARY = 40
SMALL = {
    "BertForSequenceClassification": {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "num_labels": 3,
    },
    "LlamaForCausalLM": {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 3,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
    },
    "GPT2LMHeadModel": {"vocab_size": VOCABULARY, "n_embd": 16, "n_head": 2, "n_layer": 3, "n_positions": 64},
    "BloomForCausalLM": {"vocab_size": VOCABULARY, "hidden_size": 16, "n_head": 2, "n_layer": 3},
    "Gemma3ForCausalLM": {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "num_hidden_layers": 3,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "head_dim": 8,
        "sliding_window": 4,
        "pad_token_id": 0,
    },
    "MptForCausalLM": {"vocab_size": VOCABULARY, "d_model": 16, "n_heads": 2, "n_layers": 3, "max_seq_len": 64},
    "DebertaV2ForSequenceClassification": {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "position_biased_input": False,
        "num_labels": 3,
    },
    "T5ForConditionalGeneration": {
        "vocab_size": VOCABULARY,
        "d_model": 16,
        "d_kv": 8,
        "d_ff": 32,
        "num_heads": 2,
        "num_layers": 3,
        "decoder_start_token_id": 0,
    },
    "ViTForImageClassification": {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 3,
        "intermediate_size": 32,
        "image_size": 8,
        "patch_size": 4,
        "num_labels": 3,
    },
    "WhisperForConditionalGeneration": {
        "vocab_size": VOCABULARY,
        "d_model": 16,
        "encoder_layers": 3,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "num_mel_bins": 8,
        "max_source_positions": 10,
        "max_target_positions": 16,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
    },
}
"""Classes of models with the sizes of a tiny one."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without what PEFT and transformers warn of each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def _base(kind: str, config: tuple[tuple[str, Any], ...]) -> Any:
    import transformers

    family = kind.partition("For")[0].removesuffix("LMHeadModel").removesuffix("Model")
    family = {"Gemma3": "Gemma3Text"}.get(family, family)
    torch.manual_seed(0)
    settings = {**SMALL.get(kind, {}), **dict(config), "attn_implementation": "eager"}
    with quiet():
        model = getattr(transformers, kind)(getattr(transformers, f"{family}Config")(**settings)).eval()
    # Fresh weights are so small that a layer more or less would hardly be seen.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.3)
    return model.requires_grad_(False)


def base(kind: str, **config: Any) -> Any:
    """A model of that class of its own, always with the same numbers."""
    return copy.deepcopy(_base(kind, tuple(sorted(config.items()))))


def save_adapter(make: Callable[[], Any], folder: Path, *, seed: int = 0, size: float = 0.3, **config: Any) -> Path:
    """An adapter with random numbers everywhere for what `make` gives, made and saved by PEFT; returns its folder."""
    from peft import LoraConfig, get_peft_model

    with quiet():
        model = get_peft_model(make(), LoraConfig(**config))
        draw = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=draw)
                parameter.data = parameter + size * noise if _is_absolute(name) else size * noise
        model.save_pretrained(str(folder))
    return folder


def _is_absolute(name: str) -> bool:
    """Whether a trained number stands for a weight itself, and so has to stay near what it was."""
    return "lora_A" not in name and "lora_B" not in name and "lora_embedding" not in name


def load_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter of a folder on it, as PEFT loads it."""
    from peft import PeftModel

    with quiet():
        found = PeftModel.from_pretrained(model, str(folder)).eval()
    for module in found.modules():
        if isinstance(layer := getattr(module, "base_layer", None), torch.nn.Conv1d):
            module.stride = layer.stride  # Whisper asks for it, and PEFT does not pass it on
    return found
