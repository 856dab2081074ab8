"""What is seen of a text that transformers decodes says whether all of it was made of numbers."""

from __future__ import annotations

import pytest
import torch

from loramerge.evaluation.tasks._answers import Text, answers


def told(desk, tokens):
    """The tokens made after a prompt, so many at most, and whether all they were made of is finite."""
    tokenizer = desk.model.tokenizer
    tokenizer.pad_token = tokenizer.unk_token
    prompt = tuple(tokenizer("the cat sat")["input_ids"])
    with torch.inference_mode():
        [one] = answers(desk.model.module, [Text(prompt, len(prompt) + tokens, (), "{}")], 1, tokenizer, 64).values()
    return one.said[0], bool(one.seen.isfinite().all())


@pytest.mark.parametrize(("tokens", "finite"), [(2, True), (3, False), (6, False)])
def test_a_text_is_finite_where_the_model_breaks_after_its_end_and_not_before(causal, monkeypatch, tokens, finite):
    monkeypatch.setattr(causal.model.module.generation_config, "eos_token_id", None)
    whole, _ = told(causal, tokens)

    with causal.broken_from(3):
        _, found = told(causal, tokens)

    assert len(whole) == tokens
    assert found == finite


def test_a_text_that_has_ended_beside_others_is_finite_whatever_the_model_says_then(causal, monkeypatch):
    tokenizer, prompts = causal.model.tokenizer, ["the cat sat", "a dog ran", "it was sad"]
    tokenizer.pad_token = tokenizer.unk_token
    asks = [Text((ids := tuple(tokenizer(prompt)["input_ids"])), len(ids) + 6, (), "{}") for prompt in prompts]
    with torch.inference_mode():
        free = answers(causal.model.module, asks, 1, tokenizer, 64)
    stop = free[asks[0]].said[0][0]
    monkeypatch.setattr(causal.model.module.generation_config, "eos_token_id", stop)

    with torch.inference_mode(), causal.broken_from(2):
        found = answers(causal.model.module, asks, 1, tokenizer, 64)

    finite = [bool(found[ask].seen.isfinite().all()) for ask in asks]
    assert finite == [free[ask].said[0][0] == stop for ask in asks]
    assert False in finite
