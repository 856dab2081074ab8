import numpy as np
import pytest

from loramerge.evaluation.metrics import accuracy, labelled, perplexity, scored
from loramerge.search.objective import LORAHUB_L1, Measure, Objective, lorahub


def test_a_point_is_the_mean_of_its_shares_of_what_the_sources_get():
    objective = Objective({"a": Measure(accuracy(), own=0.8), "b": Measure(accuracy(), own=0.5)})
    truth = np.array([0, 1, 0, 1])
    observed = {"a": labelled([[0, 1, 0, 0]], truth), "b": labelled([[0, 1, 1, 0]], truth)}

    found = objective.score([{}], observed)

    assert found.value[0] == pytest.approx((0.75 / 0.8 + 0.5 / 0.5) / 2)
    assert found.draws.shape == (1, 1000)


def test_a_lower_perplexity_than_the_sources_own_counts_as_more_than_one():
    objective = Objective({"text": Measure(perplexity(), own=4.0)})

    found = objective.score([{}], {"text": scored([[np.log(2.0)]])})

    assert found.value[0] == pytest.approx(2)


def test_without_a_source_of_its_own_less_of_what_is_bad_is_more():
    objective = Objective({"text": Measure(perplexity())})

    found = objective.score([{}, {}], {"text": scored(np.log([[2.0], [3.0]]))})

    assert found.value.tolist() == pytest.approx([-2, -3])
    assert found.higher


def test_lorahubs_objective_is_minus_loss_minus_the_mean_size_of_the_weights():
    points = [{"weight.a": 1.5, "weight.b": -0.5}, {"weight.a": 0.0, "weight.b": 0.0}]
    observed = {"bbh": scored([[2.0, 4.0], [2.0, 4.0]])}

    found = lorahub(["bbh"]).score(points, observed)

    assert LORAHUB_L1 == 0.05
    assert found.value.tolist() == pytest.approx([-3 - 0.05 * 1.0, -3])
    np.testing.assert_allclose(found.draws[1] - found.draws[0], 0.05)
