from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from spaces import matrix, merged, outcome, rotation, ties

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

VARIANTS = [
    ({"inner": "linear"}, {"idempotence"}),
    ({"density": 1.0}, {"linearity"}),
    ({"inner": "dare", "density": 0.5}, {"gauge", "idempotence", "identity", "linearity"}),
    ({"inner": "dare-ties", "density": 0.5}, {"gauge", "idempotence", "identity", "linearity"}),
]


# The rows of [X Y] are at right angles and X's come first: U is the identity.
X, Y = matrix((4.0, 0.0), (0.0, 1.0)), matrix((2.0, 0.0), (0.0, -2.0))


def test_what_disagrees_in_a_shared_direction_is_settled_there():
    got = merged("knots", [X, Y], density=1.0)

    torch.testing.assert_close(got, torch.tensor([[3.0, 0.0], [0.0, -2.0]]).double())


def test_turned_outputs_are_merged_alike():
    turn = rotation(2)
    turned = [replace(update, b=turn @ update.b) for update in (X, Y)]

    torch.testing.assert_close(merged("knots", turned, density=1.0), turn @ merged("knots", [X, Y], density=1.0))


def test_weights_multiply_before_the_vote():
    got = merged("knots", [X, Y], (1.0, -2.0), density=1.0)

    # 4 and −4 cancel, and a tie is +; 1 and 4 agree.
    torch.testing.assert_close(got, torch.tensor([[4.0, 0.0], [0.0, 2.5]]).double())


def test_weak_directions_can_be_dropped():
    # Singular values are √20 and √5.
    assert merged("knots", [X, Y], density=1.0, drop=0.4).tolist()[1] == pytest.approx([0.0, -2.0])
    assert merged("knots", [X, Y], density=1.0, drop=0.6).tolist()[1] == pytest.approx([0.0, 0.0])


@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
@pytest.mark.parametrize(("shape", "ranks"), [((24, 40), (3, 8, 5)), ((40, 24), (2, 2)), ((6, 30), (5, 8, 4))])
def test_it_is_the_dense_formula(draw, density, shape, ranks):
    updates = [draw(rank, shape, scale=2.0**i) for i, rank in enumerate(ranks)]
    u, s, vh = torch.linalg.svd(torch.cat([update.dense() for update in updates], dim=1), full_matrices=False)
    kept = s > 1e-9 * s[0]
    parts = torch.stack((s[kept, None] * vh[kept]).split(shape[1], dim=1))

    got = merged("knots", updates, density=density)

    torch.testing.assert_close(got, u[:, kept] @ ties(parts, density))


def test_linear_is_the_sum(draw):
    x, y = draw(3), draw(5, scale=-0.5)

    torch.testing.assert_close(merged("knots", [x, y], (2.0, 3.0), inner="linear"), 2 * x.dense() + 3 * y.dense())


@pytest.mark.parametrize("inner", ["dare", "dare-ties"])
def test_what_dare_keeps_of_a_lone_adapter_is_divided_by_its_probability(inner):
    results = [merged("knots", [X], inner=inner, density=0.5, seed=seed).diagonal() for seed in range(12)]

    assert {round(float(result[0]), 9) for result in results} == {0.0, 8.0}
    assert {round(float(result[1]), 9) for result in results} == {0.0, 2.0}


def test_float32_comes_out_as_float64_does(draw):
    updates = [draw(4, (30, 50)) for _ in range(3)]
    single = [update.to(dtype=torch.float32) for update in updates]

    got = merged("knots", single, density=1.0)

    assert float((got - merged("knots", updates, density=1.0)).norm() / got.norm()) < 1e-4


def test_more_entries_than_are_held_pass_by_in_tiles(draw, monkeypatch):
    updates = [draw(5, (30, 50)) for _ in range(3)]
    held = merged("knots", updates, density=0.3)

    monkeypatch.setattr("loramerge.methods._inner._HELD", 0)

    torch.testing.assert_close(merged("knots", updates, density=0.3), held)


def test_biases_are_added_with_their_weights(draw):
    x, y = draw(3, bias=True), draw(3, bias=True, scale=2.0)

    got = outcome("knots", [x, y], (0.5, 3.0)).delta.bias

    torch.testing.assert_close(got, 0.5 * x.bias + 6.0 * y.bias)


@pytest.mark.parametrize(("name", "value"), [("density", 0.0), ("density", 1.5), ("drop", -0.1), ("drop", 1.0)])
def test_shares_are_shares(name, value):
    with pytest.raises(BadOption, match=name):
        MERGE["knots"].options(**{name: value})
