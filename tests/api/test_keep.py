from __future__ import annotations

import pytest

from loramerge.api.keep import condition
from loramerge.errors import BadOption

ROWS = [
    {"module": "layers.0.query", "unit": 0, "norm": 2.0, "share": 0.8, "nearest": "x#1", "cosine": 0.9},
    {"module": "layers.0.query", "unit": 1, "norm": 1.0, "share": 0.2, "nearest": "x#0", "cosine": -0.1},
    {"module": "layers.1.key", "unit": 0, "norm": 0.5, "share": 1.0},
    {"module": "layers.11.and", "unit": 2, "norm": 0.0, "share": 0.0},
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("share>0.2", [0, 2]),
        ("share>=0.2", [0, 1, 2]),
        ("share<0.2", [3]),
        ("share<=0.2", [1, 3]),
        ("unit=0", [0, 2]),
        ("norm>1e-1", [0, 1, 2]),
        ("norm > 0.7", [0, 1]),
        ("  share>0.1 and unit<1  ", [0, 2]),
        ("not unit=0", [1, 3]),
        ("module~*.query", [0, 1]),
        ("not module~*.query", [2, 3]),
        ("module~layers.[0-1].*", [0, 1, 2]),
        ("module~*.and", [3]),
        ("module~*.and and not unit<2 and share=0", [3]),
        ("share>0.1 and module~*.query and norm<1.5", [1]),
        ("share<inf", [0, 1, 2, 3]),
    ],
)
def test_a_condition_keeps(text, expected):
    test = condition(text)

    assert [index for index, row in enumerate(ROWS) if test(row)] == expected


def test_a_unit_without_a_number_has_it_neither_above_nor_below():
    assert [bool(condition(text)(ROWS[2])) for text in ("cosine>0", "cosine<=0", "not cosine>0")] == [
        False,
        False,
        True,
    ]


def test_a_number_that_somebody_wrote_as_text_is_none():
    assert not condition("share>0")({"module": "q", "unit": 0, "share": "0.5"})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is not a condition"),
        ("share", "is not a condition"),
        ("share>0.1 or unit<3", "is not a condition"),
        ("share>0.1 and", "is not a condition"),
        ("share>0.1, unit<3", "is not a condition"),
        ("share>0.1,", "'0.1,' is not a number"),
        ("share>0.1 and and unit<3", "is not a condition"),
        ("share>much", "'much' is not a number"),
        ("share>nan", "'nan' is not a number"),
        ("shore>0.1", "no 'shore'"),
        ("share~0.1", "no 'share' to test with '~'"),
        ("module=q", "no 'module' to test with '='"),
        ("module~[q", "brackets"),
        ("__import__('os')>0", "is not a condition"),
    ],
)
def test_what_is_no_condition_is_refused_with_examples(text, complaint):
    with pytest.raises(BadOption, match=complaint) as caught:
        condition(text)

    assert caught.value.hint
