"""Adapters that PEFT itself makes, of every kind it can, on a base small enough to read through."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from adapters import CONFIG, WEIGHTS
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from loramerge.core.names import canonical


class Toy(nn.Module):
    """One module of each class that LoRA takes, and a stack of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(8, 8), "v": nn.Linear(8, 6)}) for _ in range(2))
        self.c_attn = Conv1D(12, 8)
        self.conv1 = nn.Conv1d(4, 6, 1)
        self.conv2 = nn.Conv2d(4, 8, 3)
        self.conv3 = nn.Conv3d(2, 4, 2)
        self.grouped = nn.Conv2d(4, 8, 3, groups=2)
        self.emb = nn.Embedding(10, 8)
        self.mha = nn.MultiheadAttention(8, 2)
        self.pre_head = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x)


def llama(tied: bool) -> LlamaForCausalLM:
    sizes = {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_key_value_heads": 1}
    return LlamaForCausalLM(LlamaConfig(vocab_size=16, num_hidden_layers=2, tie_word_embeddings=tied, **sizes))


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"target_modules": ["q", "v"]},
    "alpha": {"target_modules": ["q"], "lora_alpha": 5},
    "rslora": {"target_modules": ["q", "v"], "use_rslora": True, "lora_alpha": 3},
    "regex-targets": {"target_modules": r"layers\.[01]\.q"},
    "patterns": {
        "target_modules": ["q", "v"],
        # In alphabetical order: PEFT sorts them when it saves, and the first that matches wins.
        "rank_pattern": {"layers.0.v": 5, r"layers\.0\..*": 3, "v": 4},
        "alpha_pattern": {r"^layers\.(0|1)\.v": 7, "q": 9.5},
    },
    "patterns-rslora": {"target_modules": ["q"], "use_rslora": True, "rank_pattern": {"layers.1.q": 3}},
    "lora-bias": {"target_modules": ["q", "conv2"], "lora_bias": True},
    "bias-all": {"target_modules": ["q", "mha"], "bias": "all", "modules_to_save": ["head"]},
    "bias-lora-only": {"target_modules": ["q"], "bias": "lora_only"},
    "conv1d-class": {"target_modules": ["c_attn"]},
    "convolutions": {"target_modules": ["conv1", "conv2", "conv3"], "lora_alpha": 3},
    "embedding": {"target_modules": ["emb", "q"], "lora_alpha": 3},
    "attention": {"target_modules": ["mha", "q"], "rank_pattern": {"mha": 3}, "alpha_pattern": {"out_proj": 99}},
    "saved": {"target_modules": ["q"], "modules_to_save": ["head"]},
    "tokens": {"target_modules": ["q"], "trainable_token_indices": {"emb": [4, 1]}},
    "dora": {"target_modules": ["q", "conv2", "conv1", "emb"], "use_dora": True, "lora_alpha": 3},
    "mica": {"target_modules": ["q"], "init_lora_weights": "mica"},
    "bfloat16": {"target_modules": ["q", "conv2"], "lora_alpha": 3},
    "llama-tied": {"target_modules": ["embed_tokens", "lm_head", "q_proj"], "task_type": "CAUSAL_LM"},
    "llama-untied": {"target_modules": ["embed_tokens", "lm_head", "q_proj"], "task_type": "CAUSAL_LM"},
    "llama-tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 1], "task_type": "CAUSAL_LM"},
    "llama-replicated": {"target_modules": ["q_proj"], "layer_replication": [(0, 2), (1, 2)], "task_type": "CAUSAL_LM"},
}


def base(kind: str) -> nn.Module:
    """The untouched model an adapter of that kind goes on."""
    torch.manual_seed(0)
    model = llama(tied=kind != "llama-untied") if kind.startswith("llama") else Toy()
    return model.to(torch.bfloat16) if kind == "bfloat16" else model


@contextmanager
def quietly() -> Iterator[None]:
    """PEFT warns of much that is meant; only what the tests assert counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fill(model: nn.Module) -> None:
    """Random numbers in everything an adapter would have trained."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of adapter in turn."""
    return str(request.param)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """make(kind, **changes) -> the folder where PEFT saved an adapter of that kind."""

    def make(kind: str, *, config: peft.PeftConfig | None = None, **changes: Any) -> Path:
        folder = tmp_path / f"made-{kind}"
        with quietly():
            config = config or peft.LoraConfig(**{"r": 2, "lora_alpha": 4, **KINDS[kind], **changes})
            model = peft.get_peft_model(base(kind), config)
            fill(model)
            model.save_pretrained(str(folder))
        return folder

    return make


class Loaded:
    """What PEFT makes of a folder: the update and the scale of each module, and the keys that did not fit."""

    def __init__(self, folder: Path, model: nn.Module) -> None:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            self.model = peft.PeftModel.from_pretrained(model, str(folder))
        self.complaints = [str(w.message) for w in said if "adapter keys" in str(w.message)]
        layers = {
            canonical(name).replace(".base_layer.", "."): layer
            for name, layer in self.model.named_modules()
            if isinstance(layer, peft.tuners.lora.LoraLayer)
        }
        self.scales = {name: layer.scaling["default"] for name, layer in layers.items()}
        self.layers = layers

    def delta(self, name: str) -> torch.Tensor:
        """PEFT's update of a module, laid out as LowRank lays it out: (out, in)."""
        layer = self.layers[name]
        delta = layer.get_delta_weight("default").detach().float()
        transposed = isinstance(layer, peft.tuners.lora.Embedding) or getattr(layer, "fan_in_fan_out", False)
        return delta.T if transposed else delta.flatten(1)


@pytest.fixture
def peft_loads() -> Callable[[Path, str], Loaded]:
    """peft_loads(folder, kind) -> what PEFT makes of the adapter in a folder."""
    return lambda folder, kind: Loaded(folder, base(kind))


@pytest.fixture
def merged_linear(tmp_path: Path) -> Path:
    """The folder of an adapter of q and v as PEFT's MergedLinear, long gone, saved them."""
    folder = tmp_path / "merged-linear"
    folder.mkdir()
    known = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["qkv"]}
    (folder / CONFIG).write_text(json.dumps({**known, "enable_lora": [True, False, True]}))
    tensors = {"h.0.qkv.lora_A.weight": torch.randn(4, 5), "h.0.qkv.lora_B.weight": torch.randn(12, 2, 1)}
    save_file(tensors, folder / WEIGHTS)
    return folder
