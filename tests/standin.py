"""A base model that has nothing but the modules an adapter was made for, so that PEFT can load the adapter."""

from __future__ import annotations

import warnings

import peft
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.pytorch_utils import Conv1D


def stand_in(adapter, names):
    """Modules of the shapes and classes the adapter was trained on, under the same names."""
    base = nn.Module()
    for name in names:
        spec = adapter.modules[name]
        layer = _layer(spec, conv1d=adapter.base == "gpt2")
        *path, leaf = name.split(".")
        parent = base
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(leaf, layer)
    return base


def _layer(spec, *, conv1d):
    with torch.device("meta"):
        if spec.kind == "embedding":
            layer = nn.Embedding(spec.in_, spec.out)
        elif conv1d:
            layer = Conv1D(spec.out, spec.in_)
        else:
            layer = nn.Linear(spec.in_, spec.out, bias=False)
    # One number stands for all of them: the base's own weights do not matter here.
    zeros = {name: torch.zeros(()).expand(value.shape) for name, value in layer.named_parameters()}
    for name, value in zeros.items():
        setattr(layer, name, nn.Parameter(value, requires_grad=False))
    return layer


def peft_layers(folder, base, names):
    """PEFT's layers on `base`, with the adapter's numbers in them, by name."""
    config = peft.LoraConfig.from_pretrained(str(folder))
    config.modules_to_save = config.task_type = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the base has no name
        model = peft.get_peft_model(base, config)
    tensors = load_file(folder / "adapter_model.safetensors")
    # The stand-in has some of the modules and none of the heads and biases.
    prefixes = tuple(f"base_model.model.{name}.lora_" for name in names)
    chosen = {key: tensor.float() for key, tensor in tensors.items() if key.startswith(prefixes)}
    loaded = peft.set_peft_model_state_dict(model, chosen)
    assert not loaded.unexpected_keys
    assert not [key for key in loaded.missing_keys if "lora_" in key]
    return {name: model.base_model.model.get_submodule(name) for name in names}


def peft_delta(layer):
    """PEFT's update, laid out as LowRank lays it out."""
    delta = layer.get_delta_weight("default").detach()
    return delta.T if isinstance(layer, peft.tuners.lora.Embedding) or layer.fan_in_fan_out else delta
