import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as theirs

from loramerge.evaluation.metrics import (
    accuracy,
    average,
    bootstrap,
    f1,
    interval,
    labelled,
    macro_f1,
    mcc,
    mean,
    paired,
    paired_values,
    perplexity,
    ratio,
    score,
    scored,
    spearman,
)


def classes(labels, items=120, candidates=4, seed=0):
    """Predictions that are right about half of the time."""
    random = np.random.default_rng(seed)
    truth = random.integers(labels, size=items)
    guess = random.integers(labels, size=(candidates, items))
    return np.where(random.random(guess.shape) < 0.5, truth, guess), truth


@pytest.mark.parametrize("labels", [2, 3, 77])
def test_scores_of_classes_are_those_of_scikit_learn(labels):
    predicted, truth = classes(labels)

    found = {m.name: score(labelled(predicted, truth), m) for m in (accuracy(), macro_f1(labels), mcc(labels))}

    np.testing.assert_allclose(found["accuracy"], [theirs.accuracy_score(truth, p) for p in predicted])
    np.testing.assert_allclose(found["macro F1"], [theirs.f1_score(truth, p, average="macro") for p in predicted])
    np.testing.assert_allclose(found["MCC"], [theirs.matthews_corrcoef(truth, p) for p in predicted])


@pytest.mark.parametrize("positive", [0, 1])
def test_f1_of_one_class_is_that_of_scikit_learn(positive):
    predicted, truth = classes(2)

    found = score(labelled(predicted, truth), f1(positive=positive))

    np.testing.assert_allclose(found, [theirs.f1_score(truth, p, pos_label=positive) for p in predicted])


def test_a_prediction_that_is_no_class_is_a_class_that_is_never_true():
    predicted, truth = classes(3)
    predicted[:, ::7] = -1

    found = score(labelled(predicted, truth), mcc(3))

    np.testing.assert_allclose(found, [theirs.matthews_corrcoef(truth, p) for p in predicted])


@pytest.mark.parametrize("constant", [0, 1])
def test_a_classifier_of_one_answer_has_no_correlation(constant):
    observed = labelled(np.full((1, 10), constant), np.arange(10) % 2)

    assert score(observed, mcc(2)) == [0]


def test_perplexity_weighs_blocks_by_their_tokens():
    observed = scored([[3.0, 10.0]], [1, 4])

    found = score(observed, perplexity())

    assert found == pytest.approx(math.exp(13 / 5))


def test_the_correlation_of_ranks_is_scipys_with_ties():
    random = np.random.default_rng(0)
    x, y = random.integers(9, size=(3, 50)), random.integers(9, size=50)

    found = score(paired_values(x, y), spearman())

    np.testing.assert_allclose(found, [stats.spearmanr(row, y).statistic for row in x])


@pytest.mark.parametrize("metric", [accuracy(), macro_f1(3), mcc(3)], ids=lambda m: m.name)
def test_each_draw_is_the_score_of_the_items_drawn(metric, monkeypatch):
    monkeypatch.setattr("loramerge.evaluation.metrics._COUNTS", 700)
    monkeypatch.setattr("loramerge.evaluation.metrics._COLUMNS", 10)
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
    samples = bootstrap(scored(np.concatenate([a, b])), mean("acc"), draws=2000)

    gap = paired(samples.take([0]), samples.take([1]))

    low, high = interval(samples)
    assert gap.value[0] == pytest.approx((a.sum() - b.sum()) / 200)
    assert 0 < gap.low[0] < gap.value[0] < gap.high[0]
    assert gap.high[0] - gap.low[0] < (high - low)[0] / 2
    assert gap.better[0] > 0.98


def test_where_less_is_better_the_lower_score_wins_its_draws():
    samples = bootstrap(scored([[1.0, 2.0, 1.5], [3.0, 4.0, 3.5]]), perplexity(), draws=50)

    gap = paired(samples.take([0]), samples.take([1]))

    assert gap.value[0] < 0
    assert gap.better[0] == 1


def test_equal_candidates_tie_and_their_difference_has_a_width():
    samples = bootstrap(scored([[1.0, 0, 1, 1]] * 2), mean("acc"), draws=50)

    gap = paired(samples.take([0]), samples.take([1]))

    assert (gap.value[0], gap.better[0]) == (0, 0.5)
    assert gap.low[0] < 0 < gap.high[0]


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
