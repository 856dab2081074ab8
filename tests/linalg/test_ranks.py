from __future__ import annotations

import pytest

from loramerge.errors import BadOption
from loramerge.linalg.ranks import RankRule, parse

RANKS = [4, 16, 8]
SPECTRUM = [10.0, 9.0, 8.0, 0.1, 0.09, 0.08]


@pytest.mark.parametrize("text", ["16", "max", "sum", "energy:0.95", "sv-fro:0.97", "sv-ratio:100", "elbow"])
def test_a_rules_text_is_read_back(text):
    assert str(parse(text)) == text


NO_RANKS = """0 -3 2.5 maximum energy energy: energy:0 energy:1.5 energy:nan sv-ratio:1 sv-fro:x max:3 sum:1
elbow:0.5 fixed fixed:3 16:2"""


@pytest.mark.parametrize("text", ["", *NO_RANKS.split()])
def test_what_is_not_a_rank_is_refused(text):
    with pytest.raises(BadOption) as refusal:
        parse(text)

    assert "energy:0.95" in refusal.value.hint


@pytest.mark.parametrize(("text", "asked"), [("5", 5), ("max", 16), ("sum", 28), ("energy:0.9", None), ("elbow", None)])
def test_only_some_rules_need_a_spectrum(text, asked):
    assert parse(text).asked(RANKS) == asked


@pytest.mark.parametrize(
    ("text", "bound"), [("5", 5), ("99", 28), ("max", 16), ("sum", 28), ("energy:0.9", 12), ("elbow", 12)]
)
def test_the_bound_is_known_from_headers(text, bound):
    assert parse(text).bound(RANKS, out=12, in_=40) == bound


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("2", 2),
        ("max", 6),  # there are no more than six
        ("energy:0.5", 2),  # 100 + 81 of 245
        ("energy:0.999", 3),
        ("energy:1", 6),
        ("sv-fro:0.5", 1),  # √(100 / 245) = 0.64
        ("sv-ratio:1.2", 2),  # above 8.33
        ("sv-ratio:110", 4),  # above 0.0909
        ("elbow", 3),
    ],
)
def test_a_spectrum_settles_the_rank(text, kept):
    assert parse(text).choose(SPECTRUM, RANKS) == kept


def test_the_last_value_before_a_drop_is_kept():
    assert parse("elbow").choose([10.0, 10.0, 10.0, 10.0, 0.1], RANKS) == 4


@pytest.mark.parametrize("spectrum", [[1.0, 1.0, 1.0], [3.0, 2.0, 1.0], [5.0, 1.0], [5.0]])
def test_a_spectrum_without_a_bend_is_kept_whole(spectrum):
    assert parse("elbow").choose(spectrum, RANKS) == len(spectrum)


@pytest.mark.parametrize("text", ["1", "max", "energy:0.9", "sv-fro:0.9", "sv-ratio:10", "elbow"])
def test_at_least_one_direction_is_kept(text):
    assert parse(text).choose([], RANKS) == 1


def test_numbers_are_rules_too():
    assert parse(16) == RankRule("fixed", 16)
