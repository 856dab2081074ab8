"""Perplexity is the exponential of the model's own mean loss over whole blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loramerge.errors import BadOption, FormatError
from loramerge.evaluation.metrics import perplexity, score

TEXT = "the cat sat on the mat\n\na dog ran far\nit was sad under a tree\x0band then away\n" * 6


@pytest.mark.parametrize("activations", [1, 40, None])
@pytest.mark.parametrize("block", [8, 13])
def test_scores_are_those_of_the_models_own_loss(causal, block, activations):
    found = causal.observed("perplexity", TEXT, block=block, activations=activations)

    tokenizer = causal.model.tokenizer
    ids = [
        token
        for line in TEXT.splitlines(keepends=True)
        for token in tokenizer(line, add_special_tokens=False)["input_ids"]
    ]
    blocks = torch.tensor(ids[: len(ids) // block * block]).view(-1, block)
    for at, model in enumerate(causal.one_at_a_time()):
        with torch.inference_mode():
            losses = [float(model(input_ids=one[None], labels=one[None]).loss) for one in blocks]
        np.testing.assert_allclose(found[at, :, 0] / found[at, :, 1], losses, rtol=1e-5)
        np.testing.assert_allclose(score(found, perplexity())[at], np.exp(np.mean(losses)), rtol=1e-5)
    assert (found[..., 1] == block - 1).all()


def test_chars_are_those_of_the_text_before_it_is_cut_into_lines(causal):
    whole = causal.prepared("perplexity", TEXT[:100], block=4)
    part = causal.prepared("perplexity", TEXT, block=4, chars=100)

    assert part.items == whole.items < causal.prepared("perplexity", TEXT, block=4).items
    assert part.lots[0].inputs["input_ids"].equal(whole.lots[0].inputs["input_ids"])


def test_a_text_shorter_than_a_block_is_an_error(causal):
    with pytest.raises(FormatError, match="has 6 tokens, and a block 64"):
        causal.prepared("perplexity", "the cat sat on the mat", block=128)


@pytest.mark.parametrize("options", [{"block": 1}, {"chars": 0}])
def test_nothing_to_predict_is_an_error(causal, options):
    with pytest.raises(BadOption):
        causal.prepared("perplexity", TEXT, **options)
