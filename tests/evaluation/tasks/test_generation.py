"""Greedy decoding of all candidates together says what `generate` says with one adapter after another."""

from __future__ import annotations

import pytest
import torch

from loramerge.errors import BadOption, FormatError
from loramerge.evaluation.applied import Applied
from loramerge.evaluation.passes import repeated
from loramerge.evaluation.tasks.generation import found_in, greedy

PROMPTS = ["the cat sat", "a dog ran", "it was sad", "the mat under a tree", "far", "away then cat sat"]
TOKENS = 12


def generated(desk, model, prompt, **options):
    inputs = desk.model.tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        made = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=False,
            max_new_tokens=TOKENS,
            pad_token_id=0,
            **options,
        )
    return made[0, 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1] :].tolist()


def right(said, wanted):
    return float(said.strip() == wanted.strip() != "")


def answered(desk, model, prompt):
    """The text before the token that ends it."""
    tokens, end = generated(desk, model, prompt), model.generation_config.eos_token_id
    return desk.model.tokenizer.decode(
        tokens[: tokens.index(end)] if end in tokens else tokens, skip_special_tokens=True
    )


@pytest.mark.parametrize("prompts", [PROMPTS[:3], PROMPTS[3:4], PROMPTS[4:5]], ids=len)
def test_tokens_are_those_of_generate_with_each_adapter(speaker, prompts):
    ids = speaker.model.tokenizer(prompts, return_tensors="pt")["input_ids"]
    module, count = speaker.model.module, len(speaker.candidates)
    sharing = not speaker.prepared("generation", [{"prompt": "cat", "answer": "a"}], tokens=4).own_way

    with torch.inference_mode(), Applied(module, speaker.candidates).on(range(count), sharing=sharing):
        made, _, _ = greedy(module, repeated(ids, count), TOKENS, set())

    wanted = [
        generated(speaker, model, prompt, eos_token_id=None) for model in speaker.one_at_a_time() for prompt in prompts
    ]
    assert made == wanted
    assert len(set(map(tuple, made))) > 1


@pytest.mark.parametrize("at", [0, 4])
def test_a_row_ends_at_a_token_that_ends_texts_and_others_go_on(speaker, at):
    ids = speaker.model.tokenizer(PROMPTS[:3], return_tensors="pt")["input_ids"]
    model = speaker.one_at_a_time()[-1]
    free = [generated(speaker, model, prompt, eos_token_id=None) for prompt in PROMPTS[:3]]
    stop = free[0][at]

    with torch.inference_mode():
        made, _, _ = greedy(speaker.model.module, ids, TOKENS, {stop})

    assert made == [tokens[: tokens.index(stop)] if stop in tokens else tokens for tokens in free]


@pytest.mark.parametrize("activations", [1, 100, 10_000])
def test_right_is_what_each_adapter_alone_would_say(speaker, activations):
    said = [[answered(speaker, model, prompt) for prompt in PROMPTS] for model in speaker.one_at_a_time()]
    rows = [{"prompt": p, "answer": said[at % len(said)][at]} for at, p in enumerate(PROMPTS)]

    found = speaker.observed("generation", rows, tokens=TOKENS, activations=activations)

    wanted = [[right(one[at], rows[at]["answer"]) for at in range(len(PROMPTS))] for one in said]
    assert found[..., 0].tolist() == wanted
    assert 0 < found[..., 0].mean() < 1


def test_layers_below_a_difference_are_not_shared_by_candidates_that_go_on_differently(desks, tmp_path):
    """Adapters of the last layer only: after one token of its own, a candidate's first layer is its own too."""
    from loramerge.evaluation.candidate import scaled

    causal = desks("LlamaForCausalLM", tmp_path)
    last = scaled(causal.candidates[0], 3.0, "last")
    terms = {name: some for name, some in last.terms.items() if ".1." in name}
    from dataclasses import replace

    causal.candidates = [replace(last, terms=terms), causal.candidates[2]]
    tokenizer, module, said = causal.model.tokenizer, causal.model.module, []
    for at in range(2):
        with torch.inference_mode(), Applied(module, causal.candidates).on([at]):
            ids = [tokenizer(prompt, return_tensors="pt")["input_ids"] for prompt in PROMPTS]
            said.append(
                [tokenizer.decode(greedy(module, one, TOKENS, {2})[0][0], skip_special_tokens=True) for one in ids]
            )
    rows = [{"prompt": p, "answer": said[at % 2][at]} for at, p in enumerate(PROMPTS)]

    found = causal.observed("generation", rows, tokens=TOKENS)

    assert found[..., 0].tolist() == [[right(one[at], rows[at]["answer"]) for at in range(6)] for one in said]
    assert found[..., 0].mean() < 1


def test_a_stop_text_ends_the_answer(causal):
    model = causal.one_at_a_time()[-1]
    texts = {prompt: answered(causal, model, prompt) for prompt in PROMPTS}
    prompt, text = max(texts.items(), key=lambda pair: len(set(pair[1].split())))
    stop = next(word for word in text.split()[2:] if word not in text.split()[:2])

    found = causal.observed(
        "generation", [{"prompt": prompt, "answer": text.partition(stop)[0]}], tokens=TOKENS, stop=stop
    )

    assert found[-1, 0, 0] == 1


def test_a_candidate_that_ends_in_nan_has_no_answer(causal):
    from dataclasses import replace

    broken = dict(causal.candidates[0].replaced) | {"lm_head.weight": causal.model.module.lm_head.weight * float("nan")}
    causal.candidates[0] = replace(causal.candidates[0], replaced=broken)

    found = causal.observed("generation", [{"prompt": p, "answer": "cat"} for p in PROMPTS], tokens=4)

    assert torch.tensor(found[0, :, 0]).isnan().all()
    assert not torch.tensor(found[1:]).isnan().any()


def test_an_answer_has_no_value_where_the_model_breaks_after_its_first_token(causal):
    prompt = PROMPTS[0]
    first = causal.model.tokenizer.decode(generated(causal, causal.one_at_a_time()[-1], prompt)[0])

    with causal.broken_from(2):
        found = causal.observed("generation", [{"prompt": prompt, "answer": first}], tokens=4)

    assert torch.tensor(found[-1, :, 0]).isnan().all()


def test_a_row_that_has_ended_is_not_broken_by_what_the_model_says_later(causal):
    ids = causal.model.tokenizer(PROMPTS[:3], return_tensors="pt")["input_ids"]
    firsts = [generated(causal, causal.one_at_a_time()[-1], prompt)[0] for prompt in PROMPTS[:3]]

    with torch.inference_mode(), causal.broken_from(2):
        _, _, finite = greedy(causal.model.module, ids, TOKENS, {firsts[0]})

    assert finite == [first == firsts[0] for first in firsts]
    assert False in finite


@pytest.mark.parametrize(
    ("text", "pattern", "wanted"),
    [
        (" so 5 + 6 = 11. The answer is 1,100.", r"(-?[\d,.]*\d)", "1100"),
        ("#### -3\n", r"#### (-?[\d,.]+)", "-3"),
        ("none", r"(\d+)", ""),
        ("  as it is \n", "", "as it is"),
        ("A or B", r"\b[AB]\b", "B"),
        ("cat", r"(dog)|a", ""),
    ],
)
def test_what_counts_is_the_last_match(text, pattern, wanted):
    assert found_in(text, pattern) == wanted


@pytest.mark.parametrize(
    "options", [{"pattern": "("}, {"tokens": 0}, {"template": "no place"}], ids=lambda options: next(iter(options))
)
def test_options_that_cannot_be_are_errors(causal, options):
    with pytest.raises(BadOption):
        causal.prepared("generation", [{"prompt": "cat", "answer": "a"}], **options)


def test_what_a_base_would_do_besides_is_told(seq2seq, monkeypatch):
    row = {"prompt": "the cat", "answer": "a"}
    plain = seq2seq.prepared("generation", [row], tokens=4)
    monkeypatch.setattr(seq2seq.model.module.generation_config, "forced_bos_token_id", 5)
    monkeypatch.setattr(seq2seq.model.module.generation_config, "no_repeat_ngram_size", 3)

    forced = seq2seq.prepared("generation", [row], tokens=4)

    assert plain.notes == ()
    assert forced.notes == (
        "task: greedy decoding leaves out forced_bos_token_id, no_repeat_ngram_size of the base's generation config",
    )


def test_a_prompt_and_its_answer_have_a_length_each_where_an_encoder_reads_the_prompt(seq2seq):
    ready = seq2seq.prepared("generation", [{"prompt": "the cat " * 40, "answer": "a"}], tokens=64)

    assert ready.lots[0].inputs["prompt"].shape == (1, 64)
    assert ready.lots[0].inputs["prompt"][0, -1] == seq2seq.model.tokenizer.eos_token_id
    assert ready.notes == ("task: 1 prompts lost their beginning, for the model takes 64 tokens",)
    with pytest.raises(FormatError, match="Answers of 65 tokens are longer than the 64"):
        seq2seq.prepared("generation", [{"prompt": "cat", "answer": "a"}], tokens=65)


def test_answers_without_room_for_a_prompt_are_an_error(causal):
    with pytest.raises(FormatError, match="Answers of 64 tokens are longer than the 64"):
        causal.prepared("generation", [{"prompt": "cat", "answer": "a"}], tokens=64)
