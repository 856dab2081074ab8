import math

import numpy as np
import pytest
from guesses import classes
from scipy import stats
from sklearn import metrics as theirs

from loramerge.evaluation.metrics import (
    accuracy,
    f1,
    labelled,
    macro_f1,
    mcc,
    paired_values,
    perplexity,
    score,
    scored,
    spearman,
)


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
