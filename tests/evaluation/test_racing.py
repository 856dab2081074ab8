import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramerge.errors import BadOption
from loramerge.evaluation.metrics import mean, perplexity, score, scored
from loramerge.evaluation.racing import Rules, race
from loramerge.evaluation.resampling import Samples, average, bootstrap


def outcomes(chances, rows=400, tasks=2, seed=0):
    """(candidates, tasks, rows): right with a candidate's chance."""
    random = np.random.default_rng(seed)
    return random.random((len(chances), tasks, rows)) < np.array(chances)[:, None, None]


def scorer(right, asked=None, draws=300):
    """The mean accuracy over tasks of some candidates on the first rows; notes what was asked."""

    def score(candidates, rows) -> Samples:
        if asked is not None:
            asked.append((tuple(candidates), rows))
        seen = right[list(candidates), :, :rows].astype(float)
        tasks = range(right.shape[1])
        return average([bootstrap(scored(seen[:, t]), mean("acc"), draws=draws, stream=str(t)) for t in tasks])

    return score


CHANCES = (*(0.5 + 0.01 * i for i in range(31)), 0.95)


def test_the_best_of_many_wins_at_a_quarter_of_the_cost():
    right = outcomes(CHANCES)

    result = race(32, 400, Rules(), scorer(right))

    assert result.winner == 31
    assert result.cost <= 0.25
    assert result.value == pytest.approx(right[31].mean())
    assert result.low < result.value < result.high


def test_the_cost_is_what_was_asked_for():
    asked: list = []
    right = outcomes(CHANCES)

    result = race(32, 400, Rules(), scorer(right, asked))

    rows = np.diff([0, *(rows for _, rows in asked)])
    spent = sum(len(who) * more for (who, _), more in zip(asked, rows, strict=True))
    assert result.cost == pytest.approx(spent / (32 * 400))


@given(st.integers(1, 40), st.integers(5, 200), st.sampled_from([0.1, 0.25, 0.5]), st.sampled_from([0.25, 0.5, 0.8]))
@settings(max_examples=40, deadline=None)
def test_the_cap_is_kept_but_for_the_first_rung_and_one_candidate(count, rows, most, keep):
    right = outcomes(np.linspace(0.4, 0.8, count), rows=rows, tasks=1)

    result = race(count, rows, Rules(most=most, keep=keep), scorer(right, draws=30))

    first = result.rungs[0].rows / rows
    assert result.cost * count <= max(most, first) * count + 1


def test_without_a_cap_nobody_stops_who_is_not_proven_worse():
    right = outcomes((0.70, 0.71, 0.72, 0.73))

    result = race(4, 400, Rules(rungs=(0.1, 1), keep=0.25, most=1.0), scorer(right))

    assert len(result.rungs[0].kept) == 4


def test_what_is_far_behind_stops_even_where_the_cap_leaves_room():
    right = outcomes((0.9, 0.3, 0.3, 0.3))

    result = race(4, 400, Rules(rungs=(0.25, 1), keep=0.25, most=1.0), scorer(right))

    first = result.rungs[0]
    assert first.kept == (0,)
    assert all(one.gap_low > 0 and one.gap > 0.3 for one in first.dropped)


def test_equal_candidates_are_not_told_apart_more_often_than_the_level_says():
    stopped = 0
    for seed in range(60):
        result = race(8, 400, Rules(rungs=(0.5, 1), keep=0.125, most=1.0), scorer(outcomes([0.7] * 8, seed=seed)))
        stopped += len(result.rungs[0].kept) < 8

    # The leader is whoever was luckiest, so the level is not kept exactly: it is the best of eight.
    assert stopped / 60 < 0.3


def test_one_candidate_runs_to_the_end():
    result = race(1, 400, Rules(), scorer(outcomes((0.7,))))

    assert (result.winner, result.cost) == (0, 1)


def test_who_has_been_run_before_costs_nothing_and_can_win():
    right = outcomes((0.9, 0.4, 0.4, 0.4))

    result = race(4, 400, Rules(most=1.0), scorer(right), known={0})

    assert result.winner == 0
    assert result.cost < 0.5


def test_where_less_is_better_the_least_wins():
    nll = np.random.default_rng(0).normal((3.0, 2.0, 4.0), 0.1, (64, 3)).T

    result = race(
        3, 64, Rules(most=1.0), lambda some, rows: bootstrap(scored(nll[list(some), :rows]), perplexity(), draws=200)
    )

    assert result.winner == 1
    assert all(one.gap >= 0 for rung in result.rungs for one in rung.standing)


def test_a_score_that_is_no_number_never_wins_and_stops_at_once():
    right = outcomes((0.5, 0.9, 0.6)).astype(float)
    right[1, 0, 0] = np.nan

    result = race(3, 400, Rules(keep=1.0, most=1.0), scorer(right))

    assert result.winner == 2
    assert 1 not in result.rungs[0].kept


def test_where_none_is_a_number_the_result_says_so():
    result = race(2, 40, Rules(), scorer(np.full((2, 1, 40), np.nan)))

    assert math.isnan(result.value)
    assert math.isnan(result.low)


@pytest.mark.parametrize(
    "wrong", [{"rungs": ()}, {"rungs": (0.5,)}, {"rungs": (0.5, 0.25, 1)}, {"keep": 0}, {"most": 2.0}, {"level": 0.0}]
)
def test_rules_that_cannot_be_are_refused(wrong):
    with pytest.raises(BadOption):
        Rules(**wrong)


def test_a_few_rows_still_make_a_race():
    right = outcomes((0.9, 0.1), rows=3)

    result = race(2, 3, Rules(), scorer(right))

    assert result.rungs[-1].rows == 3
    assert result.value == pytest.approx(score(scored(right.mean(1)), mean("acc"))[result.winner])
