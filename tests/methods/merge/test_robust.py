from __future__ import annotations

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.errors import BadOption
from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods.merge.robust import METHOD, Options, prune, ratios


def tensor(rows):
    return torch.tensor(rows, dtype=torch.float64)


def merged(*updates, weights=None, **options):
    return apply(METHOD, updates, Options(**options), Context("layer.0", weights or (1.0,) * len(updates))).dense()


def test_one_adapter_worked_out_by_hand():
    update = LowRank(b=tensor([[4.0, 0.0], [1.0, 2.0]]), a=tensor([[4.0, 1.0], [3.0, 0.0]]))

    # Of four entries those from the second smallest on stay: of A 4, 1, 3; of B 4, 1, 2. B / S · S is B.
    assert merged(update, density=0.5, factor=1.0).tolist() == [[16.0, 4.0], [10.0, 1.0]]


def test_two_adapters_worked_out_by_hand():
    x = LowRank(b=tensor([[1.0]]), a=tensor([[2.0, 2.0, 1.0, 1.0]]))
    y = LowRank(b=tensor([[5.0]]), a=tensor([[3.0, 0.0, 0.0, 0.0]]))

    # A keeps 2, 2 of x, whose S is 6/4, and all of y, whose S is 1; B = (1.5·1 + 1·5) / 2.5.
    found = merged(x, y, density=0.25, factor=1.0)

    assert found.flatten().tolist() == pytest.approx([5 * 2.6, 2 * 2.6, 0.0, 0.0])


def test_the_factor_goes_into_both_halves(draw):
    updates = [draw(3), draw(3)]

    torch.testing.assert_close(merged(*updates), 4 * merged(*updates, factor=1.0))


def test_weak_ratios_are_raised_to_the_quantile():
    a = tensor([[2.0], [3.0], [4.0], [5.0], [6.0]])

    assert ratios(a, torch.ones_like(a), 0.2).tolist() == [6.0] * 5
    assert ratios(a, torch.ones_like(a), 0.6).tolist() == [4.0, 4.0, 4.0, 5.0, 6.0]
    assert ratios(a, torch.ones_like(a), 1.0).tolist() == [2.0, 3.0, 4.0, 5.0, 6.0]


def test_a_row_of_which_nothing_is_left_gets_no_more_than_its_place():
    assert ratios(tensor([[2.0, 2.0], [1.0, 1.0]]), tensor([[2.0, 0.0], [0.0, 0.0]]), 1.0).tolist() == [2.0, 1.0]


def test_pruning_keeps_the_largest_in_size():
    assert prune(tensor([[1.0, -5.0, 3.0, 0.5, 2.0]]), 0.4).tolist() == [[0.0, -5.0, 3.0, 0.0, 2.0]]


def test_it_is_the_authors_computation(draw):
    updates = [draw(4, (10, 12)), draw(4, (10, 12)), draw(4, (10, 12))]
    trimmed = {}
    for side in "ab":
        stacked = torch.stack([getattr(update, side) for update in updates])
        flat = stacked.reshape(3, -1).abs()
        least = flat.kthvalue(int(flat.shape[1] * (1 - 0.2)), dim=1, keepdim=True).values
        trimmed[side] = stacked * (flat >= least).reshape(stacked.shape)
    whole = torch.stack([update.a for update in updates]).abs().sum(-1)
    strength = whole / trimmed["a"].abs().sum(-1)
    strength = strength.clamp(strength.sort(dim=1).values[:, int(4 * 0.8)].unsqueeze(1))
    b = (2 * strength.unsqueeze(1) * trimmed["b"]).sum(0) / strength.unsqueeze(1).sum(0)

    torch.testing.assert_close(merged(*updates), b @ (2 * trimmed["a"]).sum(0))


def test_units_that_an_adapter_lacks_count_nowhere(draw):
    x, y = draw(2), draw(3)

    found = apply(METHOD, [x, y], Options(1.0, 1.0, 1.0), Context("layer.0", (1.0, 1.0))).delta

    torch.testing.assert_close(found.b[:, 2], y.b[:, 2])


def test_what_is_zero_changes_nothing_and_alone_is_zero(draw):
    x = draw(3)
    dead = LowRank(b=torch.zeros_like(x.b), a=x.a)

    torch.testing.assert_close(merged(x, dead), merged(x))
    assert float(merged(dead).norm()) == 0.0


@pytest.mark.parametrize("bad", [{"density": 0.0}, {"lift": 1.5}, {"factor": float("nan")}], ids=str)
def test_options_out_of_range_are_refused(bad):
    with pytest.raises(BadOption):
        Options(**bad)
