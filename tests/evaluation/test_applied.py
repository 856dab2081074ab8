"""What a candidate gives on a model beside any others is what PEFT gives with its adapter alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from peft_models import VOCABULARY, base, load_adapter, save_adapter

from loramerge.errors import IncompatibleError, ShapeMismatch
from loramerge.evaluation.applied import Applied
from loramerge.evaluation.candidate import Candidate, Rows, combined, of_adapter, scaled
from loramerge.evaluation.passes import repeated
from loramerge.formats._format import open_adapter

ITEMS, LENGTH = 3, 7
TOLERANCE = 2**9 * torch.finfo(torch.float32).eps
"""Of the largest number: some roundings in each of a few dozen products of up to 64 terms."""


def tokens(**more: Any) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)
    return {"input_ids": torch.randint(3, VOCABULARY, (ITEMS, LENGTH), generator=draw), **more}


def pictures() -> dict[str, Any]:
    return {"pixel_values": torch.randn(ITEMS, 3, 8, 8, generator=torch.Generator().manual_seed(1))}


def sounds() -> dict[str, Any]:
    features = torch.randn(ITEMS, 8, 20, generator=torch.Generator().manual_seed(1))
    return {"input_features": features, "decoder_input_ids": tokens()["input_ids"][:, :4]}


INPUTS = {
    "T5ForConditionalGeneration": lambda: tokens(decoder_input_ids=tokens()["input_ids"][:, 2:6]),
    "ViTForImageClassification": pictures,
    "WhisperForConditionalGeneration": sounds,
}


@dataclass(frozen=True)
class Case:
    """A model's class, its settings, and the adapters that run on it together."""

    name: str
    kind: str
    adapters: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any] = field(default_factory=dict)


QV = ["q_proj", "v_proj"]
ALL = "all-linear"
CASES = [
    Case(
        "bert",
        "BertForSequenceClassification",
        [
            {"r": 4, "target_modules": ["query", "value"], "task_type": "SEQ_CLS"},
            {"r": 8, "lora_alpha": 3, "target_modules": ["key", "dense"], "task_type": "SEQ_CLS"},
            {"r": 2, "target_modules": ["query"], "bias": "all", "task_type": "SEQ_CLS"},
            {"r": 2, "target_modules": ["query"], "bias": "lora_only", "task_type": "SEQ_CLS"},
        ],
    ),
    Case(
        "llama",
        "LlamaForCausalLM",
        [
            {"r": 4, "target_modules": QV},
            {"r": 8, "target_modules": ALL, "use_rslora": True},
            {"r": 1, "target_modules": ["down_proj"], "lora_alpha": 5},
            {"r": 3, "target_modules": ["lm_head", "o_proj"]},
        ],
    ),
    Case(
        "llama, patterns",
        "LlamaForCausalLM",
        [
            {"r": 4, "target_modules": QV, "rank_pattern": {"q_proj": 7}, "alpha_pattern": {"layers.1.*": 30}},
            {"r": 2, "target_modules": QV, "layers_to_transform": [2]},
        ],
    ),
    Case(
        "llama, saved",
        "LlamaForCausalLM",
        [
            {"r": 4, "target_modules": QV, "modules_to_save": ["lm_head"]},
            {"r": 4, "target_modules": QV, "modules_to_save": ["embed_tokens", "norm"]},
            {"r": 4, "target_modules": QV},
        ],
    ),
    Case(
        "llama, tied and saved",
        "LlamaForCausalLM",
        [
            {"r": 4, "target_modules": QV, "modules_to_save": ["embed_tokens"]},
            {"r": 4, "target_modules": QV},
        ],
        {"tie_word_embeddings": True},
    ),
    Case(
        "llama, dora",
        "LlamaForCausalLM",
        [
            {"r": 4, "target_modules": QV, "use_dora": True},
            {"r": 4, "target_modules": QV},
            {"r": 2, "target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
        ],
    ),
    Case(
        "llama, embeddings",
        "LlamaForCausalLM",
        [
            {"r": 4, "target_modules": ["embed_tokens", "q_proj"]},
            {"r": 2, "target_modules": ["embed_tokens"]},
            {"r": 4, "target_modules": ["v_proj"]},
        ],
    ),
    Case(
        "llama, tokens",
        "LlamaForCausalLM",
        [
            {"r": 4, "target_modules": QV, "trainable_token_indices": [4, 5, 9, 11, 20, 30]},
            {"r": 4, "target_modules": QV},
        ],
    ),
    Case(
        "llama, tied and tokens",
        "LlamaForCausalLM",
        [
            {"r": 4, "target_modules": QV, "trainable_token_indices": [4, 5, 9, 11, 20, 30]},
            {"r": 4, "target_modules": QV},
        ],
        {"tie_word_embeddings": True},
    ),
    Case(
        "llama, biases of lora",
        "LlamaForCausalLM",
        [
            {"r": 4, "target_modules": QV, "lora_bias": True},
            {"r": 4, "target_modules": [*QV, "o_proj"]},
            {"r": 2, "target_modules": QV, "lora_bias": True, "lora_alpha": 1},
        ],
    ),
    Case(
        "llama, biases",
        "LlamaForCausalLM",
        [
            {"r": 4, "target_modules": QV, "bias": "all"},
            {"r": 4, "target_modules": QV},
            {"r": 4, "target_modules": QV, "bias": "all", "use_dora": True},
        ],
        {"attention_bias": True},
    ),
    Case(
        "gpt2",
        "GPT2LMHeadModel",
        [
            {"r": 4, "target_modules": ["c_attn"], "fan_in_fan_out": True},
            {"r": 8, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
            {"r": 2, "target_modules": ["c_fc"], "fan_in_fan_out": True, "use_dora": True},
            {"r": 2, "target_modules": ["wte"]},
        ],
    ),
    Case(
        "gpt2, places",
        "GPT2LMHeadModel",
        [
            {"r": 2, "target_modules": ["wpe"]},
            {"r": 4, "target_modules": ["c_attn"], "fan_in_fan_out": True},
            {"r": 3, "target_modules": ["wpe", "wte"]},
        ],
    ),
    Case(
        "bloom",
        "BloomForCausalLM",
        [
            {"r": 4, "target_modules": ["query_key_value"]},
            {"r": 2, "target_modules": ["h.2.mlp.dense_h_to_4h"]},
        ],
    ),
    Case(
        "gemma",
        "Gemma3ForCausalLM",
        [
            {"r": 4, "target_modules": ["embed_tokens", "q_proj"]},
            {"r": 2, "target_modules": ["embed_tokens"], "use_dora": True},
            {"r": 2, "target_modules": ["down_proj"]},
        ],
    ),
    Case(
        "t5",
        "T5ForConditionalGeneration",
        [
            {"r": 4, "target_modules": ["q", "v"]},
            {"r": 3, "target_modules": ["wi", "wo", "k"]},
            {"r": 2, "target_modules": ["decoder.block.1.layer.0.SelfAttention.o"]},
            {"r": 2, "target_modules": ["q"], "bias": "all"},
        ],
    ),
    Case(
        "vit",
        "ViTForImageClassification",
        [
            {"r": 4, "target_modules": ["q_proj", "v_proj"]},
            {"r": 4, "target_modules": ["projection"]},
            {"r": 2, "target_modules": ["projection", "q_proj"], "use_dora": True},
            {"r": 2, "target_modules": ["projection"], "use_dora": True, "bias": "all"},
            {"r": 2, "target_modules": ["q_proj"], "modules_to_save": ["classifier"], "bias": "all"},
        ],
    ),
    Case(
        "whisper",
        "WhisperForConditionalGeneration",
        [
            {"r": 4, "target_modules": QV},
            {"r": 3, "target_modules": ["conv1", "conv2"]},
            {"r": 2, "target_modules": ["conv1", "fc1"], "use_dora": True},
            {"r": 2, "target_modules": ["conv1"], "use_dora": True, "bias": "all"},
            {"r": 2, "target_modules": ["decoder.embed_tokens"]},
        ],
    ),
]


@dataclass(frozen=True)
class Made:
    """A case as it is run: the model, the candidates, and what PEFT gives with each of them alone."""

    model: Any
    inputs: Mapping[str, torch.Tensor]
    candidates: Sequence[Candidate]
    wanted: Sequence[torch.Tensor]

    def together(self, applied: Applied, chosen: Sequence[int]) -> Sequence[torch.Tensor]:
        """(items, …) logits of each chosen candidate, from one pass."""
        inputs = {name: repeated(value, len(chosen)) for name, value in self.inputs.items()}
        with torch.inference_mode(), applied.on(chosen):
            return applied.module(**inputs).logits.chunk(len(chosen))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """made(case) -> the adapters of a case, saved by PEFT and read again, and what PEFT gives with each."""
    found = {}

    def make(case):
        if case.name not in found:
            folder = tmp_path_factory.mktemp("adapters")
            inputs = INPUTS.get(case.kind, tokens)()
            candidates, wanted = [], []
            for seed, config in enumerate(case.adapters):
                path = save_adapter(lambda: base(case.kind, **case.config), folder / str(seed), seed=seed, **config)
                candidates.append(of_adapter(open_adapter(path)))
                with torch.inference_mode():
                    wanted.append(load_adapter(base(case.kind, **case.config), path)(**inputs).logits)
            model = base(case.kind, **case.config)
            with torch.inference_mode():
                wanted.append(model(**inputs).logits)
            found[case.name] = Made(model, inputs, [*candidates, Candidate("base")], wanted)
        return found[case.name]

    return make


def assert_near(found, wanted):
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= TOLERANCE * wanted.abs().max()


each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each_case
def test_every_adapter_of_a_case_differs_from_the_base_and_from_the_others(made, case):
    found = made(case).wanted

    for one, other in itertools.combinations(found, 2):
        assert (one - other).abs().max() > 100 * TOLERANCE * other.abs().max()


@each_case
def test_candidates_together_give_what_peft_gives_with_each_alone(made, case):
    it = made(case)
    applied = Applied(it.model, it.candidates)

    found = it.together(applied, range(len(it.candidates)))

    for one, wanted in zip(found, it.wanted, strict=True):
        assert_near(one, wanted)


BITS = ["bert", "llama", "gpt2", "t5", "vit"]


@pytest.mark.parametrize("name", BITS)
def test_linear_layers_with_a_power_of_two_for_a_scale_give_the_bits_of_peft(made, name):
    it = made(next(case for case in CASES if case.name == name))
    applied = Applied(it.model, it.candidates)

    for at in (0, len(it.candidates) - 1):
        (found,) = it.together(applied, [at])

        assert found.equal(it.wanted[at])


@each_case
def test_neither_order_nor_company_nor_repetition_matters(made, case):
    it = made(case)
    applied = Applied(it.model, it.candidates)
    last = len(it.candidates) - 1

    for chosen in ([*range(last, -1, -1)], [last, 0, last], [0, 0, 1, 0, 0], [1], [last]):
        for at, one in zip(chosen, it.together(applied, chosen), strict=True):
            assert_near(one, it.wanted[at])


@each_case
def test_a_model_is_as_before_when_candidates_are_off_it(made, case):
    it = made(case)
    names = [name for name, _ in it.model.named_modules()]

    it.together(Applied(it.model, it.candidates), range(len(it.candidates)))

    assert [name for name, _ in it.model.named_modules()] == names
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in it.model.modules())
    with torch.inference_mode():
        assert it.model(**it.inputs).logits.equal(it.wanted[-1])


# Coefficients


def by_hand(made, weights):
    """The base with Σ w · ΔW of some candidates added to its weights, in float64."""
    import copy

    model = copy.deepcopy(made.model).double()
    modules = dict(model.named_modules())
    for candidate, weight in weights:
        for name, terms in candidate.terms.items():
            for unit, own in terms:
                delta = unit.update.exact().dense() * own * weight
                layer = modules[name]
                is_turned = isinstance(layer, torch.nn.Embedding) or type(layer).__name__ == "Conv1D"
                added = (delta.T if is_turned else delta).view(layer.weight.shape)
                # A new one, lest a head that is tied to an embedding changes with it.
                layer.weight = torch.nn.Parameter(layer.weight + added, requires_grad=False)
    with torch.inference_mode():
        return model(**{k: v.double() if v.is_floating_point() else v for k, v in made.inputs.items()}).logits.float()


SUMS = [[(0, 0.5), (1, 0.5)], [(0, 1.0), (1, -2.0)], [(1, 0.25)], [(2, 1.0), (0, 0.125), (1, 1.0)], [(0, 0.0)]]


@pytest.mark.parametrize("name", ["llama", "llama, embeddings", "gpt2", "t5", "vit", "whisper"])
def test_rows_of_coefficients_are_sums_of_updates(made, name):
    it = made(next(case for case in CASES if case.name == name))
    plain = [one for one in it.candidates[:-1] if not one.magnitudes and not one.replaced]
    sums = [[(at % len(plain), weight) for at, weight in some] for some in SUMS]
    candidates = [
        combined(str(some), [plain[at] for at, _ in some], [dict.fromkeys(plain[at].terms, w) for at, w in some])
        for some in sums
    ]
    candidates += [scaled(plain[0], factor, f"×{factor}") for factor in (0.5, 2.0, -1.0)]
    wanted = [by_hand(it, [(plain[at], weight) for at, weight in some]) for some in sums]
    wanted += [by_hand(it, [(plain[0], factor)]) for factor in (0.5, 2.0, -1.0)]
    applied = Applied(it.model, [*candidates, *plain, Candidate("base")])

    chosen = [0, 5, 6, 7, 1, len(candidates), 2, len(candidates) + len(plain), 3, 4]
    found = it.together(applied, chosen)

    for at, one in zip(chosen, found, strict=True):
        known = wanted[at] if at < len(wanted) else it.wanted[-1] if at == len(candidates) + len(plain) else None
        if known is None:
            known = by_hand(it, [(plain[at - len(candidates)], 1.0)])
        assert_near(one, known)


def test_an_update_of_zero_coefficients_is_the_base(made):
    it = made(CASES[1])
    nothing = scaled(it.candidates[0], 0.0, "nothing")

    (found,) = it.together(Applied(it.model, [nothing]), [0])

    assert found.equal(it.wanted[-1])


# What does not go with a model


def test_modules_that_a_model_lacks_are_listed(made):
    it = made(CASES[0])
    stranger = made(CASES[1]).candidates[0]

    with pytest.raises(
        IncompatibleError, match=r"lacks 6 of the modules of 0: model.layers.0.self_attn.q_proj, .* 1 m"
    ):
        Applied(it.model, [stranger])


def test_another_width_is_refused(made):
    it = made(CASES[1])

    with pytest.raises(ShapeMismatch, match="16×32 and 16×16"):
        Applied(base("LlamaForCausalLM", hidden_size=32, head_dim=4), it.candidates[:1])


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (Candidate("x", replaced={"lm_head.bias": torch.zeros(VOCABULARY)}), "The base has no weight lm_head.bias"),
        (Candidate("x", replaced={"lm_head.weight": torch.zeros(VOCABULARY, 8)}), "lm_head.weight is 40×16 and 40×8"),
        (
            Candidate("x", rows={"model.embed_tokens.weight": Rows((1, 40), torch.zeros(2, 16))}),
            "trained token 40, and",
        ),
        (Candidate("x", rows={"model.embed_tokens.weight": Rows((1,), torch.zeros(1, 8))}), "40×16 and 1×8"),
    ],
)
def test_weights_that_the_base_has_not_are_an_error(candidate, said):
    with pytest.raises(IncompatibleError, match=said):
        Applied(base("LlamaForCausalLM"), [candidate])
