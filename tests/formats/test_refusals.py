"""Every adapter that is no LoRA of a known base, and every one that contradicts itself, has its own error."""

from __future__ import annotations

import json

import peft
import pytest
import torch
from peft.utils import PeftType
from safetensors.torch import save_file

from loramerge.errors import BadConfig, BadTensor, FormatError, UnsupportedAdapter
from loramerge.formats._format import open_adapter
from loramerge.formats._peft_refusals import KINDS, REFUSALS

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}
A, B = "base_model.model.q.lora_A.weight", "base_model.model.q.lora_B.weight"
TENSORS = {A: torch.ones(2, 3), B: torch.ones(4, 2)}


def written(folder, config=None, tensors=None):
    """A small adapter with some config fields and tensors changed; None takes one away."""
    for given, changes in (
        (config := {**CONFIG, **(config or {})}, config),
        (tensors := {**TENSORS, **(tensors or {})}, tensors),
    ):
        for key in [key for key, value in changes.items() if value is None and key in given]:
            del given[key]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_the_small_adapter_is_fine_as_it_is(tmp_path):
    assert open_adapter(written(tmp_path)).modules["q"].scale == 2.0


CONFIGS = {
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, UnsupportedAdapter, "PiSSA adapters change the base"),
    "olora": ({"init_lora_weights": "olora"}, UnsupportedAdapter, "OLoRA adapters change the base"),
    "corda": ({"init_lora_weights": "corda"}, UnsupportedAdapter, "CorDA adapters change the base"),
    "lora-ga": ({"init_lora_weights": "lora_ga"}, UnsupportedAdapter, "LoRA-GA adapters change the base"),
    "loftq": ({"init_lora_weights": "loftq"}, UnsupportedAdapter, "LoftQ adapters make up for the rounding"),
    "kasa": ({"kasa_config": {"beta": 1e-4}}, UnsupportedAdapter, "KaSA adapters remove singular values"),
    "alora": ({"alora_invocation_tokens": [1, 2]}, UnsupportedAdapter, "aLoRA adapters act only after"),
    "qalora": ({"use_qalora": True}, UnsupportedAdapter, "QALoRA adapters pool their inputs"),
    "megatron": ({"megatron_config": {"a": 1}}, UnsupportedAdapter, "Megatron adapters are split"),
    "bd-lora": ({"use_bdlora": {"nblocks": 2}}, UnsupportedAdapter, "BD-LoRA adapters have block-diagonal"),
    "arrow": ({"arrow_config": {"top_k": 2}}, UnsupportedAdapter, "Arrow adapters route each token"),
    "monteclora": ({"monteclora_config": {"a": 1}}, UnsupportedAdapter, "MonteCLoRA adapters draw"),
    "fused experts": ({"target_parameters": ["experts.down"]}, UnsupportedAdapter, "fused expert parameters"),
    "mlx": ({"fine_tune_type": "lora", "num_layers": 16}, UnsupportedAdapter, "an adapter of MLX"),
    "old mlx": ({"peft_type": None, "lora_parameters": {"rank": 8}}, UnsupportedAdapter, "an adapter of MLX"),
    "a kind nobody knows": ({"peft_type": "LORAX"}, UnsupportedAdapter, "peft_type 'LORAX' is unknown"),
    "a kind in small letters": ({"peft_type": "lora"}, UnsupportedAdapter, "peft_type 'lora' is unknown"),
    "a kind that is a number": ({"peft_type": 3}, BadConfig, "peft_type is missing"),
    "no kind, and no targets": ({"peft_type": None, "target_modules": None}, BadConfig, "peft_type is missing"),
    "no rank": ({"r": None}, BadConfig, "r is missing"),
    "no alpha": ({"lora_alpha": None}, BadConfig, "lora_alpha is missing"),
    "a rank that is a text": ({"r": "2"}, BadConfig, "r is '2', which is not a whole number above 0"),
    "rank 0": ({"r": 0}, BadConfig, "r is 0, which"),
    "a negative rank": ({"r": -2}, BadConfig, "r is -2, which"),
    "a rank that is true": ({"r": True}, BadConfig, "r is True, which"),
    "half a rank": ({"r": 2.0}, BadConfig, "r is 2.0, which"),
    "an alpha that is a text": ({"lora_alpha": "16"}, BadConfig, "lora_alpha is '16', which is not a number"),
    "an alpha without end": ({"lora_alpha": 10**400}, BadConfig, "lora_alpha is 1000"),
    "rank_pattern as a list": ({"rank_pattern": [1]}, BadConfig, r"rank_pattern is \[1\]"),
    "a pattern of rank 0": ({"rank_pattern": {"q": 0}}, BadConfig, "rank_pattern is {'q': 0}"),
    "a pattern of 2000 characters": (
        {"alpha_pattern": {"q" * 2000: 1}},
        BadConfig,
        "no regular expression that PEFT takes",
    ),
    "a pattern that is none": ({"rank_pattern": {"(q": 2}}, BadConfig, "no regular expression that PEFT takes"),
    "a flag that is a text": ({"use_rslora": "yes"}, BadConfig, "use_rslora is 'yes', which is not true or false"),
    "a bias nobody knows": ({"bias": "some"}, BadConfig, "bias is 'some', which is not none, all or lora_only"),
    "targets as a number": ({"target_modules": 3}, BadConfig, "target_modules is 3"),
    "saved modules as a text": ({"modules_to_save": "head"}, BadConfig, "modules_to_save is 'head'"),
    "negative tokens": ({"trainable_token_indices": [-1]}, BadConfig, r"trainable_token_indices is \[-1\]"),
    "a base that is a list": ({"base_model_name_or_path": []}, BadConfig, r"base_model_name_or_path is \[\]"),
    "another rank than the tensors": ({"r": 4}, BadConfig, "q has rank 2, and the config says 4"),
    "another pattern than the tensors": ({"rank_pattern": {"q": 3}}, BadConfig, "q has rank 2, and the config says 3"),
    "dora without magnitudes": ({"use_dora": True}, BadTensor, "q has no DoRA magnitude"),
    "megabytes of config": ({"comment": "x" * 10**6}, BadConfig, "longer than 1,000,000 bytes"),
    "an abyss": ({"comment": json.loads("[" * 40 + "]" * 40)}, BadConfig, "at most 16 levels"),
}

FACTORS = {
    "A without B": ({B: None}, BadTensor, "q has one factor without the other"),
    "B without A": ({A: None}, BadTensor, "q has one factor without the other"),
    "factors of different ranks": ({B: torch.ones(4, 3)}, BadTensor, r"do not multiply: B \(4, 3\), A \(2, 3\)"),
    "a flat factor": ({A: torch.ones(6)}, BadTensor, r"lora_A\.weight is flat: \(6,\)"),
    "an empty factor": ({A: torch.ones(0)}, BadTensor, r"lora_A\.weight is empty"),
    "a factor of integers": ({A: torch.ones(2, 3).int()}, BadTensor, "is stored as I32, which is not read"),
    "a factor in eight bits": ({A: torch.ones(2, 3).to(torch.float8_e4m3fn)}, BadTensor, "is stored as F8_E4M3"),
    "a convolution and a matrix": ({A: torch.ones(2, 3, 1, 1)}, BadTensor, "do not multiply"),
    "a kernel in B": ({A: torch.ones(2, 3, 3), B: torch.ones(4, 2, 3)}, BadTensor, "do not multiply"),
    "a grouped convolution": (
        {A: torch.ones(2, 3, 3), B: torch.ones(4, 1, 1)},
        UnsupportedAdapter,
        r"grouped convolution \(2",
    ),
    "an undeclared bias": ({B.replace("weight", "bias"): torch.ones(4)}, BadConfig, "lora_bias is not set"),
    "an undeclared magnitude": (
        {"base_model.model.q.lora_magnitude_vector": torch.ones(4)},
        BadConfig,
        "use_dora is not set",
    ),
    "fused experts": (
        {"base_model.model.e.base_layer.lora_A.weight": torch.ones(2, 3)},
        UnsupportedAdapter,
        "fused expert",
    ),
    "AdaLoRA's diagonal": ({"base_model.model.q.lora_E": torch.ones(2, 1)}, UnsupportedAdapter, "a tensor of AdaLoRA"),
    "LoHa's factors": ({"base_model.model.q.hada_w1_a": torch.ones(2, 1)}, UnsupportedAdapter, "a tensor of LoHa"),
    "a full model": (
        {A: None, B: None, "model.q.weight": torch.ones(3, 3)},
        UnsupportedAdapter,
        "None of its 1 tensors",
    ),
    "tokens nobody names": (
        {"base_model.model.e.token_adapter.trainable_tokens_delta": torch.ones(2, 3)},
        BadConfig,
        "names 0 tokens of e, and 2 are stored",
    ),
}


@pytest.mark.parametrize(("changes", "error", "message"), CONFIGS.values(), ids=CONFIGS.keys())
def test_a_config_is_refused_with_its_reason(changes, error, message, tmp_path):
    folder = written(tmp_path, config=changes)

    with pytest.raises(error, match=message) as refused:
        open_adapter(folder)

    assert type(refused.value) is error
    assert str(folder) in refused.value.where


@pytest.mark.parametrize(("changes", "error", "message"), FACTORS.values(), ids=FACTORS.keys())
def test_tensors_are_refused_with_their_reason(changes, error, message, tmp_path):
    folder = written(tmp_path, tensors=changes)

    with pytest.raises(error, match=message) as refused:
        open_adapter(folder)

    assert type(refused.value) is error
    assert str(folder) in refused.value.where


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"r": 2, "r": 4}', "'r' stands there twice"),
        (b'{"peft_type": "LORA", "r": 2, "lora_alpha": NaN}', "NaN is not a number"),
        (b'{"peft_type": "LORA", "r": 2, "lora_alpha": -Infinity}', "-Infinity is not a number"),
        (b'{"r": ' + b"[" * 100_000, "not a JSON object"),
    ],
)
def test_a_config_that_is_no_json_is_refused(text, message, tmp_path):
    folder = written(tmp_path)
    (folder / "adapter_config.json").write_bytes(text)

    with pytest.raises(BadConfig, match=message):
        open_adapter(folder)


def test_every_other_kind_that_peft_knows_is_refused_by_its_name(tmp_path):
    messages = {}
    for kind in [kind.value for kind in PeftType if kind is not PeftType.LORA]:
        with pytest.raises(UnsupportedAdapter) as refused:
            open_adapter(written(tmp_path, config={"peft_type": kind}))
        messages[kind] = refused.value.message

    assert messages == {kind: messages[kind] for kind in KINDS if kind in messages}
    assert all(message.startswith(KINDS[kind][0]) for kind, message in messages.items())


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.what[:20])
def test_every_refusal_of_a_field_is_in_the_table(refusal):
    tried = [row for row in CONFIGS.values() if refusal.holds(row[0].get(refusal.field))]

    assert tried


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (peft.AdaLoraConfig(target_modules=["q"], total_step=10), "AdaLoRA"),
        (peft.VeraConfig(target_modules=["q"], r=2), "VeRA"),
        (peft.LoHaConfig(target_modules=["q"], r=2), "LoHa"),
        (peft.LoKrConfig(target_modules=["q"], r=2), "LoKr"),
        (peft.MissConfig(target_modules=["q"], r=2), "MiSS"),
        (peft.OFTConfig(target_modules=["q"], oft_block_size=4), "OFT"),
        (peft.BOFTConfig(target_modules=["q"], boft_block_size=4), "BOFT"),
        (peft.HRAConfig(target_modules=["q"], r=2), "HRA"),
        (peft.IA3Config(target_modules=["q"], feedforward_modules=[]), "IA³"),
        (peft.LoraConfig(target_modules=["q"], r=2, init_lora_weights="pissa"), "PiSSA"),
        (peft.LoraConfig(target_modules=["q"], r=2, init_lora_weights="olora"), "OLoRA"),
        (peft.LoraConfig(target_modules=["q"], r=2, kasa_config=peft.KasaConfig()), "KaSA"),
        (peft.LoraConfig(target_modules=["grouped"], r=2), "grouped convolution"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_peft_makes_of_other_kinds_is_refused_by_name(config, name, make):
    folder = make("plain", config=config)

    with pytest.raises(FormatError, match=name) as refused:
        open_adapter(folder)

    assert type(refused.value) is UnsupportedAdapter
