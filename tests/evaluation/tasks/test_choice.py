"""A choice's likelihood is that of whole forward passes, one text after another, however prompts are shared."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import Linear

from loramerge.errors import BadOption, FormatError
from loramerge.evaluation.applied import Applied
from loramerge.evaluation.candidate import scaled
from loramerge.evaluation.harness import Bench
from loramerge.evaluation.passes import Passes
from loramerge.evaluation.sharing import first_stack
from loramerge.evaluation.tasks._likelihood import continued
from loramerge.evaluation.tasks.choice import continuations

ROWS = [
    {"prompt": "the cat sat on", "choices": [" the mat", " a dog under a tree and then away", " tree"], "label": 0},
    {"prompt": "a dog ran far", "choices": [" away", " the cat", " sad and"], "label": 2},
    {"prompt": "it was very  ", "choices": ["sad", "far away"], "label": 1},
    {"prompt": "", "choices": ["the dog", "cat"], "label": 0},
    {"prompt": "   ", "choices": ["mat", "the cat sat on the mat"], "label": 1},
    {"prompt": "the mat sat on", "choices": [" the cat", " a", " sad dog"], "label": 1},
    {"prompt": "cat", "choices": [" ran"], "label": 0},
]


def whole_passes(desk, model, row):
    """Σ log p of every choice, each from one pass over prompt and choice."""
    if model.config.is_encoder_decoder:
        return whole_passes_of_two_texts(desk, model, row)
    tokenizer, totals = desk.model.tokenizer, []
    prompt = tokenizer(row["prompt"].rstrip())["input_ids"]
    for choice in row["choices"]:
        ids = torch.tensor([tokenizer(row["prompt"] + choice)["input_ids"]])
        with torch.inference_mode():
            logs = model(input_ids=ids).logits.double().log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        totals.append(float(logs[len(prompt) - 1 :].sum()))
    return totals


def whole_passes_of_two_texts(desk, model, row):
    """The prompt is a text for the encoder, the choice are labels, neither begun nor ended by a token."""
    tokenizer, totals = desk.model.tokenizer, []
    prompt = row["prompt"].rstrip()
    ids = torch.tensor([tokenizer(prompt)["input_ids"] if prompt else [tokenizer.bos_token_id]])
    for choice in row["choices"]:
        labels = torch.tensor([tokenizer(row["prompt"][len(prompt) :] + choice, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            logs = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).logits.double()
        totals.append(float(logs.log_softmax(-1)[0].gather(1, labels[0, :, None]).sum()))
    return totals


@pytest.mark.parametrize("activations", [1, 60, 10_000])
def test_likelihoods_with_shared_prompts_are_those_of_whole_passes(speaker, activations):
    ready = speaker.prepared("choice", ROWS)
    passes = Passes(Applied(speaker.model.module, speaker.candidates), ready.run, activations)
    found = {}
    for lot in ready.lots:
        for one in passes.over(lot, range(len(speaker.candidates))):
            for i, at in enumerate(one.candidates):
                found |= {(at, item): one.raw[i, j].tolist() for j, item in enumerate(one.items)}

    for at, model in enumerate(speaker.one_at_a_time()):
        for item, row in enumerate(ROWS):
            np.testing.assert_allclose(found[at, item], whole_passes(speaker, model, row), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("normalize", ["none", "bytes"])
def test_the_likeliest_choice_is_the_answer(speaker, normalize):
    found = speaker.observed("choice", ROWS, normalize=normalize)

    for at, model in enumerate(speaker.one_at_a_time()):
        totals = [np.array(whole_passes(speaker, model, row)) for row in ROWS]
        if normalize == "bytes":
            totals = [t / [len(c.encode()) for c in row["choices"]] for t, row in zip(totals, ROWS, strict=True)]
        right = [float(t.argmax() == row["label"]) for t, row in zip(totals, ROWS, strict=True)]
        assert found[at, :, 0].tolist() == right


def test_prompts_run_once_for_all_their_choices(causal):
    """Two prompts of one length with three choices: 2 · 3 candidates rows of prompts, thrice as many of choices."""
    rows, module = [], causal.model.module
    hook = module.register_forward_pre_hook(
        lambda _, __, given: rows.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )

    with hook:
        ready = causal.prepared("choice", [ROWS[0], ROWS[5]])
        Bench(module, rows=10_000).observe(causal.candidates, ready, check=False)

    assert rows == [(6, 5), (18, 7)]


def test_an_encoder_runs_once_for_all_choices_and_what_candidates_share_once_for_all_of_them(seq2seq):
    """Candidates of the decoder alone: the encoder's first block runs for one of them, its last for every one."""
    decoders = [scaled(seq2seq.candidates[1], size, f"{size}") for size in (0.5, 1.0, 2.0)]
    _, blocks = first_stack(seq2seq.model.module)
    inner = [next(one for one in block.modules() if isinstance(one, Linear)) for block in blocks]
    rows = [[], []]
    hooks = [
        one.register_forward_hook(lambda _, given, __, seen=seen: seen.append(len(given[0])))
        for one, seen in zip(inner, rows, strict=True)
    ]

    ready = seq2seq.prepared("choice", [ROWS[0], ROWS[5]])
    found = Bench(seq2seq.model.module, rows=10_000).observe(decoders, ready, check=False).observed
    for hook in hooks:
        hook.remove()

    assert rows == [[2], [6]]
    for at, one in enumerate(decoders):
        alone = Bench(seq2seq.model.module, rows=10_000).observe([one], ready, check=False).observed
        np.testing.assert_allclose(found[at], alone[0], rtol=1e-5)


def test_what_fills_up_a_shorter_choice_does_not_count_even_where_it_is_impossible(causal):
    def impossible(module, given, output):
        output.logits[..., 0] = -torch.inf

    module = causal.model.module
    with torch.inference_mode(), module.register_forward_hook(impossible):
        long, short = ([[3, 4, 5]], [[6]])
        alone = [
            float(continued(module, torch.tensor([[1, 2]]), torch.tensor([one]), torch.tensor([[len(one[0])]]))[0])
            for one in (long, short)
        ]

        together = continued(
            module, torch.tensor([[1, 2]]), torch.tensor([[[3, 4, 5], [6, 0, 0]]]), torch.tensor([[3, 1]])
        )[0]

    assert np.isfinite(alone).all()
    np.testing.assert_allclose(together[0], alone, rtol=1e-6)


class Joining:
    """A tokenizer that joins letters where it can, and may end every text with a token."""

    bos_token_id, eos_token_id = 90, 91

    def __init__(self, pieces, ends=()):
        self.pieces, self.ends = pieces, ends

    def __call__(self, text, **_):
        ids = []
        while text:
            piece = next(piece for piece in sorted(self.pieces, key=len, reverse=True) if text.startswith(piece))
            ids.append(self.pieces.index(piece))
            text = text[len(piece) :]
        return {"input_ids": [*ids, *self.ends]}


@pytest.mark.parametrize(
    ("pieces", "ends", "prompt", "choices", "wanted"),
    [
        (["a", "b", " c", " d"], (), "ab", [" c", " d c"], ([0, 1], [[2], [3, 2]])),
        (["a", "b", " c", " "], (), "ab ", ["a", " c"], ([0, 1], [[3, 0], [3, 2]])),
        # "b" and "c" become one token: of the prompt only "a" is left, for both choices.
        (["a", "b", "bc", "d"], (), "ab", ["c", "d"], ([0], [[2], [1, 3]])),
        (["a", "b", "bc", "d"], (), "ab", ["cd", "d"], ([0], [[2, 3], [1, 3]])),
        # All of the prompt is joined.
        (["b", "bc", "d"], (), "b", ["c", "d"], ([90], [[1], [0, 2]])),
        # A token that ends every text is no prompt's.
        (["a", "b", "c"], (91,), "ab", ["c", "a"], ([0, 1], [[2, 91], [0, 91]])),
        (["a", "b"], (), "", ["a", "ab"], ([90], [[0], [0, 1]])),
    ],
)
def test_a_choice_has_the_tokens_that_the_prompt_alone_does_not_give(pieces, ends, prompt, choices, wanted):
    model = SimpleNamespace(tokenizer=Joining(pieces, ends), task="CAUSAL_LM")

    assert continuations(model, prompt, choices) == wanted


def test_a_prompt_that_is_too_long_loses_its_beginning(causal):
    long = {"prompt": "the cat " * 40, "choices": [" sat", " ran away"], "label": 0}

    ready = causal.prepared("choice", [long])

    assert ready.lots[0].inputs["prompt"].shape == (1, 62)
    assert ready.notes == ("task: 1 prompts lost their beginning, for the model takes 64 tokens",)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "cat", "choices": ["dog " * 70], "label": 0}, "A choice has 70 tokens, and the model takes 64"),
        ({"prompt": "cat", "choices": [], "label": 0}, "A row has choices"),
        ({"prompt": "cat", "choices": ["a", ""], "label": 0}, "A row has choices"),
        ({"prompt": "cat", "choices": ["a", "dog"], "label": 2}, "There is no choice 2"),
        ({"prompt": "cat", "label": 0}, "has 'choices'"),
    ],
)
def test_a_row_that_is_no_choice_is_an_error_with_its_line(causal, row, said):
    with pytest.raises(FormatError, match=said) as caught:
        causal.prepared("choice", [ROWS[0], row])

    assert caught.value.where.endswith("task.jsonl:2")


def test_lengths_are_divided_by_bytes_or_not_at_all(causal):
    with pytest.raises(BadOption, match="'words'"):
        causal.prepared("choice", ROWS, normalize="words")
