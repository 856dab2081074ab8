from __future__ import annotations

import math

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods.merge.nuslerp import METHOD, Options, place

VARIANTS = [({"by": by}, METHOD.breaks) for by in ("row", "column")]


def matrix(rows):
    """An update that is this 2×2 matrix."""
    return LowRank(b=torch.eye(2, dtype=torch.float64), a=torch.tensor(rows, dtype=torch.float64))


def merged(x, y, weights=(0.5, 0.5), **options):
    return apply(METHOD, [x, y], Options(**options), Context("layer.0", weights)).dense()


def test_each_row_goes_along_its_own_arc():
    x, y = matrix([[2.0, 0.0], [0.0, 1.0]]), matrix([[0.0, 2.0], [0.0, 3.0]])

    found = merged(x, y, by="row").tolist()

    # The first rows are at a right angle, half-way is 45°; the second ones have one direction.
    assert found[0] == pytest.approx([math.sqrt(2), math.sqrt(2)])
    assert found[1] == pytest.approx([0.0, 2.0])


def test_columns_are_rows_of_the_transpose():
    x, y = matrix([[2.0, 1.0], [0.0, 1.0]]), matrix([[0.0, 2.0], [5.0, 3.0]])

    by_column = merged(x, y, (0.3, 0.9), by="column")

    turned = [matrix(one.dense().T.tolist()) for one in (x, y)]
    torch.testing.assert_close(by_column, merged(*turned, (0.3, 0.9), by="row").T)


@pytest.mark.parametrize(("dim", "by"), [(None, "whole"), (1, "row"), (0, "column")])
def test_it_is_the_dense_formula(draw, dim, by):
    x, y = draw(3, scale=0.5), draw(5)
    dense = [one.dense() for one in (x, y)]
    sizes = [one.norm(dim=dim, keepdim=dim is not None) for one in dense]
    cosine = (dense[0] * dense[1]).sum(dim=dim, keepdim=dim is not None) / (sizes[0] * sizes[1])
    theta, t = cosine.acos(), 0.75

    want = (((1 - t) * theta).sin() * dense[0] + (t * theta).sin() * dense[1]) / theta.sin()

    torch.testing.assert_close(merged(x, y, (0.1, 0.3), by=by), want)


def test_weights_say_where_on_the_arc():
    assert [place(weights) for weights in [(1, 1), (3, 1), (1, 0), (1, -1)]] == [0.5, 0.25, 0.0, 0.5]


def test_biases_are_weighed_like_the_ends(draw):
    x, y = draw(2, bias=True, scale=2.0), draw(3, bias=True)

    found = apply(METHOD, [x, y], Options(), Context("layer.0", (1.0, 3.0))).delta

    torch.testing.assert_close(found.bias, 0.25 * 2.0 * x.bias + 0.75 * y.bias)
