from __future__ import annotations

import pytest
import torch

from loramerge.errors import BadOption
from loramerge.linalg.truncate import truncate_sum
from loramerge.methods._grains import apply
from loramerge.methods._method import MERGE, Context
from loramerge.methods.merge.interpolate import METHOD, Options

VARIANTS = [({"t": 0.3}, {"permutation"})]


def merged(x, y, t, weights=(1.0, 1.0)):
    return apply(METHOD, [x, y], Options(t), Context("layer.0", weights))


def test_the_middle_is_the_mean_of_the_updates(draw):
    x, y = draw(4, scale=2.0), draw(7, scale=1e-3)

    torch.testing.assert_close(merged(x, y, 0.5).dense(), (x.dense() + y.dense()) / 2)


def test_a_quarter_of_the_way_worked_out_by_hand():
    assert METHOD.apply(None, Options(0.25), Context("layer.0", (1.0, 2.0))) == (0.75, 0.5)


@pytest.mark.parametrize("t", [0.0, 1.0])
def test_at_the_ends_nothing_of_the_other_is_left_and_no_bit_is_changed(draw, t):
    ends = [draw(4, dtype=torch.float32), draw(7, dtype=torch.float32)]

    found = truncate_sum(merged(*ends, t).parts, 7).delta

    assert torch.equal(found.a, ends[int(t)].a.double())
    assert torch.equal(found.b, ends[int(t)].b.double())


def test_biases_go_the_same_way(draw):
    x, y = draw(2, bias=True, scale=2.0), draw(3, bias=True)

    torch.testing.assert_close(merged(x, y, 0.25).delta.bias, 1.5 * x.bias + 0.25 * y.bias)


@pytest.mark.parametrize("t", [-0.1, 1.5, float("nan"), float("inf")])
def test_beyond_the_ends_is_refused_with_the_way_there(t):
    with pytest.raises(BadOption, match="outside") as caught:
        Options(t)

    assert "linear" in caught.value.hint


def test_it_takes_two_in_their_order():
    assert (METHOD.least, METHOD.most, METHOD.ordered) == (2, 2, True)
    assert MERGE["interpolate"] is METHOD
