from __future__ import annotations

import math

import pytest

from loramerge.api.weights import given, resolve
from loramerge.errors import BadOption

NAMES = ["math-lora", "code-lora", "chat"]


def test_numbers_are_taken_in_order():
    assert given(["0.3", "-1", "1e-3"], NAMES) == [0.3, -1.0, 0.001]


def test_names_may_come_in_any_order_and_leave_some_out():
    assert given(["chat=2", "math-lora=0.5"], NAMES) == [0.5, None, 2.0]


def test_the_last_sign_of_equality_counts():
    assert given(["a=b=0.5"], ["a=b"]) == [0.5]


def test_nothing_given_is_nothing_known():
    assert given([], NAMES) == [None, None, None]


@pytest.mark.parametrize(
    ("texts", "complaint", "hint"),
    [
        (["0.5", "0.5"], "2 weights for 3 adapters", "one -w each"),
        (["0.5", "chat=0.5", "1"], "Some weights name their adapter", "-w a=0.3 -w b=0.7"),
        (["math-lore=1"], "named 'math-lore'", "math-lora"),
        (["zzz=1"], "named 'zzz'", "math-lora, code-lora, chat"),
        (["=1"], "named ''", "math-lora, code-lora, chat"),
        (["chat=1", "chat=2"], "chat has two weights", ""),
        (["chat=much"], "'much' is not a weight", "-w 0.3"),
        (["chat="], "'' is not a weight", "-w 0.3"),
    ],
)
def test_what_is_no_weight_of_these_is_refused(texts, complaint, hint):
    with pytest.raises(BadOption, match=complaint) as caught:
        given(texts, NAMES)

    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(("default", "share"), [("mean", 1 / 4), ("sqrt", 1 / 2), ("sum", 1.0)])
def test_a_default_counts_all_adapters(default, share):
    assert resolve([None] * 4, default) == (share,) * 4


def test_what_is_given_stands_beside_the_default():
    assert resolve([0.75, None], "mean") == (0.75, 0.5)


def test_weights_may_be_negative_and_are_not_normalised_unless_asked():
    assert resolve([3.0, -1.0], "mean") == (3.0, -1.0)
    assert resolve([3.0, -1.0], "mean", normalize=True) == (1.5, -0.5)


def test_normalised_weights_sum_to_one():
    assert math.isclose(sum(resolve([None, None, 5.0], "sqrt", normalize=True)), 1.0)


def test_weights_that_sum_to_zero_cannot_be_normalised():
    assert resolve([1.0, -1.0], "sum") == (1.0, -1.0)
    with pytest.raises(BadOption, match="sum to zero"):
        resolve([1.0, -1.0], "sum", normalize=True)
