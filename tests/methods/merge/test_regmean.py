from __future__ import annotations

import pytest
import torch
from entries import normal

from loramerge.core.lowrank import LowRank
from loramerge.errors import BadOption
from loramerge.methods._grains import apply
from loramerge.methods._method import MERGE, Context

VARIANTS = [({"alpha": 1.0}, {"linearity", "zero"}), ({"alpha": 0.0}, {"linearity", "zero"})]


def inputs(count, width, seed):
    """(count, width) inputs of very different size and some correlation."""
    mixed = normal(count, width, seed=seed) @ (torch.eye(width) + 0.3 * normal(width, width, seed=9))
    return mixed * normal(width, seed=8).exp()


def gram(x):
    return x.T @ x / len(x)


def merged(updates, grams, weights=None, **options):
    method = MERGE["regmean"]
    weights = (1.0,) * len(updates) if weights is None else weights
    return apply(method, updates, method.options(**options), Context("layer.0", weights, data={"grams": grams}))


def test_two_updates_of_one_number_are_merged_by_hand():
    updates = [LowRank(b=torch.tensor([[v]]).double(), a=torch.ones(1, 1).double()) for v in (1.0, 4.0)]
    grams = [torch.tensor([[2.0]]).double(), torch.tensor([[1.0]]).double()]

    # (1·2 + 4·1) / (2 + 1); with the second weighing twice (1·2 + 4·2) / 4.
    assert merged(updates, grams).dense().item() == pytest.approx(2.0)
    assert merged(updates, grams, (1.0, 2.0)).dense().item() == pytest.approx(2.5)


def test_outputs_are_as_close_as_least_squares_on_the_inputs_themselves(draw):
    updates = [draw(3, (10, 16)), draw(5, (10, 16), scale=2.0)]
    xs = [inputs(50, 16, seed=1), inputs(50, 16, seed=2)]
    x, y = torch.cat(xs), torch.cat([x @ u.dense().T for x, u in zip(xs, updates, strict=True)])

    found = merged(updates, [gram(x) for x in xs], alpha=1.0).dense()

    torch.testing.assert_close(found, torch.linalg.lstsq(x, y).solution.T)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.9])
def test_it_is_the_formula_on_dense_updates(draw, alpha):
    updates, weights = [draw(3, scale=3.0), draw(5, scale=-1.0), draw(30)], (0.5, 1.0, 2.0)
    grams = [gram(inputs(60, 40, seed)) for seed in range(3)]
    shrunk = [w * (alpha * g + (1 - alpha) * g.diagonal().diag()) for w, g in zip(weights, grams, strict=True)]

    found = merged(updates, grams, weights, alpha=alpha).dense()

    right = sum(update.dense() @ g for update, g in zip(updates, shrunk, strict=True))
    torch.testing.assert_close(found, right @ torch.linalg.inv(sum(shrunk)))


def test_what_no_input_shows_is_the_weighted_mean(draw):
    updates = [draw(3, (10, 16)), draw(5, (10, 16))]
    xs = [inputs(4, 16, seed=1), inputs(5, 16, seed=2)]
    # Distances count inputs by their size.
    size = (gram(xs[0]) + 3 * gram(xs[1])).diagonal().sqrt()
    seen = torch.linalg.qr((torch.cat(xs) / size).T).Q

    found = merged(updates, [gram(x) for x in xs], (1.0, 3.0), alpha=1.0).dense()

    mean = (updates[0].dense() + 3 * updates[1].dense()) / 4
    unseen = torch.eye(16) - seen @ seen.T
    torch.testing.assert_close(found * size @ unseen, mean * size @ unseen)
    # Nine inputs in sixteen dimensions: all outputs can be as they were.
    for x, update in zip(xs, updates, strict=True):
        torch.testing.assert_close(x @ found.T, x @ update.dense().T)


@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_an_input_that_never_came_is_no_trouble(draw, alpha):
    updates = [draw(3, (10, 16)), draw(5, (10, 16))]
    xs = [inputs(50, 16, seed=1), inputs(50, 16, seed=2)]
    for x in xs:
        x[:, 5] = 0.0

    found = merged(updates, [gram(x) for x in xs], alpha=alpha).dense()

    torch.testing.assert_close(found[:, 5], (updates[0].dense() + updates[1].dense())[:, 5] / 2)


def test_biases_are_averaged(draw):
    updates = [draw(3, scale=2.0, bias=True), draw(3), draw(4, bias=True)]

    found = merged(updates, [torch.eye(40).double()] * 3, (1.0, 1.0, 2.0))

    torch.testing.assert_close(found.bias, (2.0 * updates[0].bias + 2.0 * updates[2].bias) / 4)


def test_memory_does_not_grow_with_the_number_of_updates(draw):
    fold, gram = MERGE["regmean"].apply, torch.eye(40).double()

    def held(n):
        context = Context("layer.0", (1.0,) * n, data={"grams": [gram] * n})
        state = fold.init((24, 40), MERGE["regmean"].options(), context)
        for at in range(n):
            state = fold.step(state, at, draw(3, bias=True))
        return sum(value.nbytes for value in vars(state).values() if isinstance(value, torch.Tensor))

    assert held(12) == held(2) <= 8 * (2 * 24 * 40 + 40 * 40 + 24)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, float("nan")])
def test_alpha_is_a_share(alpha):
    with pytest.raises(BadOption, match="alpha"):
        MERGE["regmean"].options(alpha=alpha)
