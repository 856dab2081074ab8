"""Methods that work in a joint basis, on updates that have little or nothing to say: every result is defined."""

from __future__ import annotations

import pytest
import torch
from spaces import diagonal, merged, outcome

from loramerge.core.lowrank import LowRank
from loramerge.linalg.truncate import truncate_sum
from loramerge.methods._method import MERGE

CASES = [
    ("knots", {"density": 1.0}),
    ("knots", {"inner": "linear"}),
    ("knots", {"inner": "dare"}),
    ("knots", {"inner": "dare-ties"}),
    ("core-space", {"density": 1.0}),
    ("core-space", {"basis": "factors"}),
    ("core-space", {"inner": "tsv"}),
    ("core-space", {"inner": "iso"}),
    ("tsv", {}),
    ("tsv", {"k": 1}),
    ("iso-c", {}),
    ("iso-c", {"k": 100}),
    ("iso-cts", {}),
    ("iso-cts", {"k": 100}),
    ("cart", {}),
    ("ctm", {}),
    ("ctm", {"k": 100, "inner": "ties"}),
    ("wudi", {}),
    ("wudi", {"solver": "adam", "steps": 5}),
    ("pico", {}),
    ("pico", {"stack": "factors"}),
    ("pico", {"inner": "tsv"}),
    ("rank-saliency", {"density": 1.0}),
    ("rank-saliency", {}),
]
SUMS = [
    ("knots", {"inner": "linear"}),
    ("core-space", {"inner": "linear"}),
    ("core-space", {"inner": "iso"}),
    ("iso-c", {}),
    ("iso-cts", {"common": 1.0}),
    ("cart", {"share": 1.0}),
    ("ctm", {}),
    ("pico", {}),
    ("tsv", {}),
    ("wudi", {}),
    ("rank-saliency", {"density": 1.0}),
]
ids = [f"{name} {options}" for name, options in CASES]


def dead(update):
    return LowRank(b=torch.zeros_like(update.b), a=update.a)


@pytest.mark.parametrize(("name", "options"), CASES, ids=ids)
def test_updates_of_zero_merge_to_zero(draw, name, options):
    got = outcome(name, [dead(draw(3)), dead(draw(5))], **options).delta

    assert got.shape == (24, 40)
    assert got.rank >= 1
    assert not got.dense().any()


@pytest.mark.parametrize(("name", "options"), CASES, ids=ids)
def test_a_single_update_of_zero_is_zero(draw, name, options):
    assert not merged(name, [dead(draw(3))], **options).any()


@pytest.mark.parametrize(
    ("name", "options"), [c for c in CASES if "dare" not in str(c[1].get("inner"))], ids=lambda x: str(x)
)
def test_a_lone_update_of_rank_one_keeps_its_direction(name, options):
    got = merged(name, [diagonal(0.0, 3.0, 0.0)], **options)

    # Its core is a single entry, its spectrum a single value: trimmed or flattened it is the same.
    torch.testing.assert_close(got, diagonal(0.0, 3.0, 0.0).dense())


@pytest.mark.parametrize(("name", "options"), SUMS, ids=lambda x: str(x))
def test_updates_that_cancel_leave_nothing_that_counts(draw, name, options):
    x = draw(5, scale=1e3)

    got = outcome(name, [x, x.times(-1.0)], **options).delta.dense()

    assert got.isfinite().all()
    assert float(got.norm()) <= 1e-10 * float(x.dense().norm())


@pytest.mark.parametrize(("name", "options"), CASES, ids=ids)
@pytest.mark.parametrize(
    ("shape", "ranks"), [((24, 40), (1, 1)), ((4, 5), (9, 9, 9)), ((1, 9), (2, 3)), ((9, 1), (2, 3))]
)
def test_any_ranks_and_shapes_give_numbers_that_can_be_cut(draw, name, options, shape, ranks):
    updates = [draw(rank, shape, scale=10.0**i) for i, rank in enumerate(ranks)]

    got = outcome(name, updates, **options)

    assert got.dense().isfinite().all()
    assert truncate_sum(got.parts, 1).delta.rank == 1


@pytest.mark.parametrize(("name", "options"), CASES, ids=ids)
def test_own_ranks_are_within_what_the_planner_was_told(draw, name, options):
    method, updates = MERGE[name], [draw(3), draw(6), draw(1)]

    got = outcome(name, updates, **options).delta.rank

    if method.rank == "own":
        assert got <= method.bound(method.options(**options), [3, 6, 1])
    else:
        assert got <= 10


@pytest.mark.parametrize(("name", "options"), CASES, ids=ids)
def test_bfloat16_is_taken(draw, name, options):
    got = merged(name, [draw(3, dtype=torch.bfloat16), draw(5, dtype=torch.bfloat16)], **options)

    assert got.dtype == torch.float64
    assert got.isfinite().all()
