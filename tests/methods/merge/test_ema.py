from __future__ import annotations

import pytest
import torch

from loramerge.errors import BadOption
from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods.merge.ema import METHOD, Options, decay, shares

VARIANTS = [
    ({"beta": 0.5}, {"permutation", "zero"}),
    ({"warmup": "ramp"}, {"permutation", "zero"}),
    ({"beta": 0.9, "warmup": "none"}, {"permutation", "zero"}),
]


def test_two_checkpoints_worked_out_by_hand():
    assert shares(Options(0.75, "none"), [1.0, 1.0]) == [0.75, 0.25]


def test_three_checkpoints_worked_out_by_hand():
    # θ₁ = ½x + ½y; θ₂ = ½θ₁ + ½z.
    assert shares(Options(0.5, "none"), [1.0, 1.0, 2.0]) == [0.25, 0.25, 1.0]


@pytest.mark.parametrize("options", [Options(), Options(0.5), Options(0.9, "ramp"), Options(0.7, "none")], ids=str)
def test_the_closed_form_is_the_recurrence(draw, options):
    checkpoints = [draw(rank) for rank in (3, 1, 4, 5, 2, 6)]
    state = checkpoints[0].dense()
    for k, checkpoint in enumerate(checkpoints[1:], 1):
        beta = decay(options, k)
        state = beta * state + (1 - beta) * checkpoint.dense()

    found = apply(METHOD, checkpoints, options, Context("layer.0", (1.0,) * 6)).dense()

    torch.testing.assert_close(found, state)


def test_a_constant_sequence_is_constant(draw):
    update = draw(4)

    found = apply(METHOD, [update] * 5, Options(0.9, "ramp"), Context("layer.0", (1.0,) * 5)).dense()

    torch.testing.assert_close(found, update.dense())


def test_by_default_few_checkpoints_count_the_same():
    assert shares(Options(), [1.0] * 4) == pytest.approx([0.25] * 4)


def test_a_ramp_favours_the_late_at_first():
    assert shares(Options(warmup="ramp"), [1.0] * 3) == pytest.approx([2 / 11 * 3 / 12, 9 / 11 * 3 / 12, 9 / 12])


def test_at_beta_zero_only_the_last_is_left(draw):
    checkpoints = [draw(3), draw(4), draw(2)]

    found = apply(METHOD, checkpoints, Options(0.0), Context("layer.0", (1.0,) * 3))

    assert [part.rank for part in found.parts] == [2]


@pytest.mark.parametrize("beta", [-0.1, 1.1, float("nan")])
def test_beta_is_a_share(beta):
    with pytest.raises(BadOption, match="beta"):
        Options(beta)


def test_one_checkpoint_is_no_sequence():
    assert METHOD.least == 2
    assert METHOD.ordered
