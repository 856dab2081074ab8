"""Cosines of embeddings are those of one adapter and one text at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loramerge.errors import FormatError

PAIRS = [
    ("the cat sat", "a dog ran"),
    ("it was sad", "it was sad"),
    ("far", "the tree away"),
    ("a", "the mat on a mat"),
]
ROWS = [{"text": a, "other": b, "score": at / 2} for at, (a, b) in enumerate(PAIRS)]


def mean_of_tokens(desk, model, text):
    inputs = desk.model.tokenizer(text, return_tensors="pt")
    inner = getattr(model, "base_model", model) if "Llama" in desk.kind else model
    with torch.inference_mode():
        out = inner(**{k: v for k, v in inputs.items() if k in desk.model.takes}, output_hidden_states=True)
    return out.hidden_states[-1].mean(1)[0]


@pytest.mark.parametrize("activations", [1, None])
@pytest.mark.parametrize("which", ["encoder", "causal"])
def test_cosines_are_those_of_means_over_tokens(request, which, activations):
    desk = request.getfixturevalue(which)

    found = desk.observed("similarity", ROWS, activations=activations)

    for at, model in enumerate(desk.one_at_a_time()):
        means = [[mean_of_tokens(desk, model, text) for text in pair] for pair in PAIRS]
        wanted = [float(torch.cosine_similarity(a, b, dim=0)) for a, b in means]
        np.testing.assert_allclose(found[at, :, 0], wanted, rtol=0, atol=1e-5)
    assert found[0, :, 1].tolist() == [0, 0.5, 1, 1.5]
    np.testing.assert_allclose(found[:, 1, 0], 1, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "which", "row"),
    [
        ("similarity", "encoder", {"text": "cat", "other": "", "score": 1}),
        ("classification", "classifier", {"text": "", "label": 0}),
        ("generation", "causal", {"prompt": "", "answer": "cat"}),
    ],
)
def test_a_text_without_a_token_is_an_error_with_its_line(request, kind, which, row):
    desk = request.getfixturevalue(which).without_special_tokens()
    good = {name: "cat" if value == "" else value for name, value in row.items()}

    with pytest.raises(FormatError, match="A text has no token") as caught:
        desk.prepared(kind, [good, row], **({"tokens": 4} if kind == "generation" else {}))

    assert caught.value.where.endswith("task.jsonl:2")
