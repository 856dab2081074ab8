from __future__ import annotations

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.errors import BadOption
from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods.merge.np import METHOD, Options

VARIANTS = [
    ({"mu": "hard"}, {"permutation", "linearity"}),
    ({"k": 2, "energy": 0.9}, {"identity", "idempotence", "permutation"}),
]


def along(*entries):
    """A 1×n update."""
    return LowRank(b=torch.ones(1, 1, dtype=torch.float64), a=torch.tensor([entries], dtype=torch.float64))


def diagonal(*entries):
    a = torch.diag(torch.tensor(entries, dtype=torch.float64))
    return LowRank(b=torch.eye(len(entries), dtype=torch.float64), a=a)


def merged(*updates, weights=None, **options):
    return apply(METHOD, updates, Options(**options), Context("layer.0", weights or (1.0,) * len(updates))).dense()


def test_softly_a_third_of_what_is_shared_is_taken_out():
    assert merged(along(1.0, 0.0), along(3.0, 5.0)).flatten().tolist() == pytest.approx([3.0, 5.0])


def test_hard_all_of_it_is():
    assert merged(along(1.0, 0.0), along(3.0, 5.0), mu="hard").flatten().tolist() == pytest.approx([1.0, 5.0])


def test_at_mu_zero_it_is_the_sum(draw):
    x, y = draw(4, scale=2.0), draw(7)

    torch.testing.assert_close(merged(x, y, mu=0.0, weights=(0.5, 2.0)), 0.5 * x.dense() + 2.0 * y.dense())


def test_only_the_leading_directions_are_protected():
    x, y = diagonal(4.0, 2.0, 1.0), diagonal(10.0, 10.0, 10.0)

    assert merged(x, y, mu="hard", k=1).diagonal().tolist() == pytest.approx([4.0, 12.0, 11.0])
    # 16 and 4 of 21 are 95 per cent.
    assert merged(x, y, mu="hard", energy=0.9).diagonal().tolist() == pytest.approx([4.0, 2.0, 11.0])


def test_a_third_is_kept_out_of_both_before_it():
    updates = [along(1.0, 0.0, 0.0), along(0.0, 2.0, 0.0), along(3.0, 3.0, 3.0)]

    assert merged(*updates, mu="hard").flatten().tolist() == pytest.approx([1.0, 2.0, 3.0])


def test_what_several_adapters_share_is_protected_once(draw):
    x, y, z = draw(4), draw(6), draw(3)
    # Two copies of x, and one that holds x's directions among others; together 10 directions.
    joint = LowRank(b=torch.cat([x.b, y.b], 1), a=torch.cat([x.a, y.a]))
    rows = torch.linalg.svd(joint.a)[2][:10]

    found = merged(x, x, joint, z, mu="hard", weights=(0.0, 0.0, 0.0, 1.0))

    torch.testing.assert_close(found, z.dense() @ (torch.eye(40) - rows.T @ rows))


def test_nothing_is_left_where_the_earlier_ones_fill_all_inputs(draw):
    updates = [draw(30), draw(30), draw(5)]

    found = merged(*updates, mu="hard", weights=(0.0, 0.0, 1.0))

    assert float(found.norm()) < 1e-12 * float(updates[2].dense().norm())


def test_it_is_the_dense_formula(draw):
    x, y = draw(4, scale=2.0), draw(7, scale=1e-2)
    rows = torch.linalg.svd(x.dense())[2][:4]

    found = merged(x, y, mu=2.0)

    torch.testing.assert_close(found, x.dense() + y.dense() @ (torch.eye(40) - 2 / 3 * rows.T @ rows))


def test_what_is_zero_protects_nothing():
    assert merged(along(0.0, 0.0), along(3.0, 5.0), mu="hard").flatten().tolist() == pytest.approx([3.0, 5.0])


@pytest.mark.parametrize("bad", [{"mu": -1.0}, {"mu": float("inf")}, {"k": -1}, {"energy": 0.0}], ids=str)
def test_options_out_of_range_are_refused(bad):
    with pytest.raises(BadOption):
        Options(**bad)
