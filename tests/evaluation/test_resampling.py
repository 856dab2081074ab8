import math

import numpy as np
import pytest
from guesses import classes
from scipy import stats

from loramerge.evaluation.metrics import (
    accuracy,
    f1,
    labelled,
    macro_f1,
    mcc,
    mean,
    perplexity,
    score,
    scored,
    spearman,
)
from loramerge.evaluation.resampling import average, behind, bootstrap, interval, ratio


@pytest.mark.parametrize("metric", [accuracy(), macro_f1(3), mcc(3)], ids=lambda m: m.name)
def test_each_draw_is_the_score_of_the_items_drawn(metric, monkeypatch):
    monkeypatch.setattr("loramerge.evaluation.resampling._COUNTS", 700)
    monkeypatch.setattr("loramerge.evaluation.resampling._COLUMNS", 10)
    predicted, truth = classes(3, items=90)
    observed = labelled(predicted, truth)
    chosen = np.random.default_rng((5, 0)).integers(90, size=(7, 90))

    samples = bootstrap(observed, metric, draws=20, seed=5)

    expected = np.stack([score(observed[:, rows], metric) for rows in chosen], axis=1)
    np.testing.assert_allclose(samples.draws[:, :7], expected)


def test_the_interval_is_that_of_scipys_bootstrap():
    right = (np.random.default_rng(1).random(300) < 0.8).astype(float)

    low, high = interval(bootstrap(scored(right[None]), mean("acc"), draws=20_000))

    other = stats.bootstrap((right,), np.mean, n_resamples=20_000, method="percentile", rng=2).confidence_interval
    assert low[0] == pytest.approx(other.low, abs=0.004)
    assert high[0] == pytest.approx(other.high, abs=0.004)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    random = np.random.default_rng(3)
    right = random.random((400, 200)) < 0.7

    low, high = interval(bootstrap(scored(right), mean("acc"), draws=500, seed=1), 0.9)

    covered = ((low <= 0.7) & (high >= 0.7)).mean()
    assert 0.85 < covered < 0.95


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_where_all_items_agree_the_interval_is_clopper_and_pearsons(right):
    samples = bootstrap(scored(np.full((1, 40), right)), mean("acc"), draws=50)

    low, high = interval(samples)

    exact = stats.binomtest(int(right * 40), 40).proportion_ci(0.95, method="exact")
    assert (low[0], high[0]) == pytest.approx((exact.low, exact.high))


def test_one_block_of_text_does_not_bound_the_perplexity():
    low, high = interval(bootstrap(scored([[20.0]], [10]), perplexity(), draws=50))

    assert 1 < low[0] < math.exp(2)
    assert high[0] == math.inf


def test_what_is_not_a_number_is_the_score_of_that_candidate_alone():
    predicted, truth = classes(2)
    observed = labelled(predicted, truth)
    observed[1, 3, 0] = np.nan

    for metric in (accuracy(), macro_f1(2), f1(), mcc(2), spearman()):
        samples = bootstrap(observed, metric, draws=50)
        low, high = interval(samples)
        for found in (samples.value, low, high):
            assert np.isnan(found).tolist() == [False, True, False, False]


def test_candidates_are_compared_on_the_same_draws():
    random = np.random.default_rng(0)
    a = random.random((1, 200)) < 0.6
    b = a.copy()
    b[0, :12] = False
    samples = bootstrap(scored(np.concatenate([b, a])), mean("acc"), draws=2000)

    best, gap = behind(samples, [0, 1])

    low, high = interval(samples)
    least, most = interval(gap)
    assert best == 1
    assert gap.value.tolist() == pytest.approx([(a.sum() - b.sum()) / 200, 0])
    assert 0 < least[0] < gap.value[0] < most[0]
    assert most[0] - least[0] < (high - low)[0] / 2


def test_where_less_is_better_the_lower_score_leads_and_the_higher_is_behind():
    samples = bootstrap(scored([[3.0, 4.0, 3.5], [1.0, 2.0, 1.5]]), perplexity(), draws=50)

    best, gap = behind(samples, [0, 1])

    assert best == 1
    assert gap.value[0] > 0
    assert (gap.draws[0] > 0).all()


def test_only_some_may_lead_and_a_better_one_is_not_behind():
    samples = bootstrap(scored([[1.0] * 4, [1.0, 0, 1, 0], [np.nan] * 4]), mean("acc"), draws=50)

    best, gap = behind(samples, [1, 2])

    assert best == 1
    assert gap.value[0] == -0.5
    assert behind(samples, [2]) is behind(samples, []) is None


def test_equal_candidates_tie_and_their_difference_has_a_width():
    samples = bootstrap(scored([[1.0, 0, 1, 1]] * 2), mean("acc"), draws=50)

    _, gap = behind(samples, [0, 1])

    low, high = interval(gap)
    assert gap.value.tolist() == [0, 0]
    assert (low < 0).all()
    assert (high > 0).all()


def test_a_source_is_all_of_itself_on_every_draw():
    own = bootstrap(scored([[1.0, 0, 1, 1, 0, 1]]), mean("acc"), draws=50)

    share = ratio(own, own)

    assert share.value[0] == 1
    assert (share.draws == 1).all()


def test_a_ratio_of_perplexities_is_above_one_where_the_candidate_is_better():
    nll = np.array([[1.0, 2.0, 1.5], [2.0, 3.0, 2.5]])
    samples = bootstrap(scored(nll), perplexity(), draws=50)

    share = ratio(samples, samples.take([1]))

    np.testing.assert_allclose(share.value, [math.e, 1])
    assert share.higher


def test_a_ratio_to_nothing_is_not_a_number():
    zero = bootstrap(scored(np.zeros((1, 9))), mean("acc"), draws=50)

    share = ratio(zero, zero)

    assert np.isnan([share.value[0], *(side[0] for side in interval(share))]).all()


def test_the_mean_over_tasks_is_taken_draw_by_draw():
    random = np.random.default_rng(0)
    tasks = [bootstrap(scored(random.random((3, n)) < 0.7), mean("acc"), draws=400, stream=str(n)) for n in (100, 60)]

    both = average(tasks)

    np.testing.assert_allclose(both.value, (tasks[0].value + tasks[1].value) / 2)
    np.testing.assert_allclose(both.draws, (tasks[0].draws + tasks[1].draws) / 2)
    assert both.items == 60


def test_two_tasks_of_one_size_are_drawn_independently():
    observed = scored(np.random.default_rng(0).random((1, 80)))

    one, other = (bootstrap(observed, mean("x"), draws=500, stream=name).draws[0] for name in ("sst2", "trec"))

    assert abs(np.corrcoef(one, other)[0, 1]) < 0.2


def test_a_loss_of_nothing_is_no_ratio_and_bounds_none():
    loss = mean("loss", higher=False, bounds=(0.0, math.inf))
    samples = bootstrap(scored([[1.0, 2.0], [0.0, 0.0]]), loss, draws=50)

    share = ratio(samples, samples.take([0]))

    assert share.value[0] == 1
    assert math.isnan(share.value[1])
    assert share.bounds == (0, math.inf)


def test_what_is_too_large_for_a_number_is_infinite_and_warns_of_nothing():
    samples = bootstrap(scored([[900.0, 1.0, 1.0]]), perplexity(), draws=50)

    low, high = interval(samples)

    assert low[0] < high[0] == math.inf
