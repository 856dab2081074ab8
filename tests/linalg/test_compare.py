"""Likeness from factors, against dense matrices and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from loramerge.core.lowrank import LowRank, cat
from loramerge.linalg import compare
from loramerge.linalg.compare import add, figures, likeness, linkage, norms

SHAPES = [(24, 40), (40, 24), (5, 9), (1, 7)]
LARGE = (96, 128)
"""Has more entries than are sampled."""


def rows(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def unit(column, row, scale=1.0):
    """scale · column rowᵀ."""
    return LowRank(b=rows(*column)[:, None], a=rows(*row)[None], scale=scale)


def dense_overlap(x, y):
    """Mean squared cosine of the principal angles between the row spaces of two matrices."""
    spaces = [torch.linalg.svd(m, full_matrices=False) for m in (x, y)]
    kept = [s.Vh[1e-9 * s.S.max() < s.S] for s in spaces]
    cosines = torch.linalg.svdvals(kept[0] @ kept[1].T)
    return float(cosines.square().sum() / min(len(basis) for basis in kept))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_figures_are_those_of_the_dense_updates(draw, shape):
    updates = [draw(7, shape, scale=2.0), draw(3, shape, scale=-0.1), draw(12, shape)]
    x, y = updates[0].dense(), updates[1].dense()

    found = {name: float(matrix[0, 1]) for name, matrix in figures(likeness(updates)).items()}

    differ = x.sign() != y.sign()
    assert found["cosine"] == pytest.approx(float((x * y).sum() / x.norm() / y.norm()))
    assert found["row_overlap"] == pytest.approx(dense_overlap(x, y))
    assert found["column_overlap"] == pytest.approx(dense_overlap(x.T, y.T))
    assert found["sign_conflict"] == pytest.approx(float(differ.double().mean()))
    assert found["weighted_conflict"] == pytest.approx(float((x * y).abs()[differ].sum() / (x * y).abs().sum()))
    assert found["norm_ratio"] == pytest.approx(float(x.norm() / y.norm()))
    assert found["sign_conflict_error"] == found["weighted_conflict_error"] == 0


def test_two_units_by_hand():
    x = unit([1, 0], [3, 4, 0])  # [[3, 4, 0], [0, 0, 0]]
    y = unit([1, 1], [1, -1, 0])  # [[1, -1, 0], [1, -1, 0]]

    found = {name: float(matrix[0, 1]) for name, matrix in figures(likeness([x, y])).items()}

    assert found["cosine"] == pytest.approx((3 - 4) / (5 * 2))
    assert found["row_overlap"] == pytest.approx((-1 / (5 * math.sqrt(2))) ** 2)
    assert found["column_overlap"] == pytest.approx(1 / 2)
    assert (found["row_chance"], found["column_chance"]) == pytest.approx((1 / 3, 1 / 2))
    assert found["sign_conflict"] == 1 / 2
    assert found["weighted_conflict"] == pytest.approx(4 / 7)
    assert found["norm_ratio"] == pytest.approx(5 / 2)


def test_an_update_is_like_itself_and_unlike_its_opposite(draw):
    update = draw(4)

    found = figures(likeness([update, update, update.times(-3.0)]))

    torch.testing.assert_close(found["cosine"][0], rows(1, 1, -1))
    torch.testing.assert_close(found["row_overlap"], torch.ones(3, 3, dtype=torch.float64))
    torch.testing.assert_close(found["sign_conflict"][0], rows(0, 0, 1))
    torch.testing.assert_close(found["weighted_conflict"][0], rows(0, 0, 1))
    torch.testing.assert_close(found["norm_ratio"][0], rows(1, 1, 1 / 3))


def test_figures_do_not_depend_on_how_factors_are_written(draw):
    x, y = draw(4, LARGE, scale=0.5), draw(6, LARGE)
    mix = draw(4, (4, 4)).dense()
    other = LowRank(b=x.b @ mix, a=torch.linalg.solve(mix, x.a), scale=x.scale)

    found, again = figures(likeness([x, y])), figures(likeness([other, y]))

    for name, matrix in found.items():
        torch.testing.assert_close(again[name], matrix, msg=name)


def test_dead_and_repeated_units_have_no_angles(draw):
    x, y = draw(3), draw(5)
    padded = cat([x, x.times(0.25), x.times(0.0)])

    found, again = figures(likeness([x, y])), figures(likeness([padded, y]))

    torch.testing.assert_close(again["row_overlap"], found["row_overlap"])
    torch.testing.assert_close(again["row_chance"], found["row_chance"])


def test_random_subspaces_overlap_by_chance(draw):
    found = figures(likeness([draw(6, (60, 80)) for _ in range(12)]))

    apart = ~torch.eye(12, dtype=torch.bool)
    assert float(found["row_overlap"][apart].mean()) == pytest.approx(6 / 80, rel=0.1)
    assert float(found["row_chance"][0, 1]) == pytest.approx(6 / 80)
    assert float(found["column_chance"][0, 1]) == pytest.approx(6 / 60)


@pytest.mark.parametrize("figure", ["sign_conflict", "weighted_conflict"])
def test_a_sample_is_right_within_its_standard_errors(draw, figure):
    common = draw(4, LARGE)
    updates = [cat([common, draw(2, LARGE).times(size)]) for size in (0.3, 0.6, 1.0, 1.5, 2.0)]
    signs = [update.dense() for update in updates]
    pairs = [(i, j) for i in range(5) for j in range(i)]

    found = figures(likeness(updates))

    off = []
    for i, j in pairs:
        differ, size = signs[i] * signs[j] < 0, (signs[i] * signs[j]).abs()
        want = differ.double().mean() if figure == "sign_conflict" else size[differ].sum() / size.sum()
        off.append(float((found[figure][i, j] - want) / found[f"{figure}_error"][i, j]))
    assert max(map(abs, off)) < 4
    assert 0.3 < math.sqrt(sum(z * z for z in off) / len(off)) < 2


def test_the_plain_shares_error_is_that_of_a_proportion(draw):
    found = figures(likeness([draw(4, LARGE), draw(4, LARGE)]))

    share = float(found["sign_conflict"][0, 1])
    want = math.sqrt(share * (1 - share) / compare.SAMPLE)
    assert float(found["sign_conflict_error"][0, 1]) == pytest.approx(want)


def test_a_pairs_figures_do_not_depend_on_who_else_is_compared(draw):
    x, y, z = (draw(4, LARGE) for _ in range(3))

    both, three = figures(likeness([x, y])), figures(likeness([z, y, x]))

    for name, matrix in both.items():
        torch.testing.assert_close(three[name][2, 1], matrix[0, 1], msg=name)


def test_modules_add_up_to_one_block_diagonal_update(draw):
    first, second = [draw(3, (6, 8)) for _ in range(3)], [draw(2, (9, 5)) for _ in range(2)]
    total = {}

    add(total, likeness(first), [0, 1, 2], 3)
    add(total, likeness(second), [2, 0], 3)

    lacking = torch.zeros(9, 5)
    parts = zip(first, (second[1].dense(), lacking, second[0].dense()), strict=True)
    x, y, z = (torch.block_diag(update.dense(), other) for update, other in parts)
    found = figures(total)
    torch.testing.assert_close(norms(total), torch.stack([m.norm() for m in (x, y, z)]))
    assert float(found["cosine"][0, 1]) == pytest.approx(float((x * y).sum() / x.norm() / y.norm()))
    assert float(found["cosine"][0, 2]) == pytest.approx(float((x * z).sum() / x.norm() / z.norm()))
    assert float(found["row_overlap"][0, 1]) == pytest.approx(dense_overlap(first[0].dense(), first[1].dense()))
    assert float(found["row_overlap"][0, 2]) == pytest.approx(dense_overlap(x, z))
    both = (x != 0) & (z != 0)
    assert float(found["sign_conflict"][0, 2]) == pytest.approx(float((x.sign() != z.sign())[both].double().mean()))


def test_a_zero_update_has_cosine_zero_and_nothing_to_compare(draw):
    zero = draw(3).times(0.0)

    found = figures(likeness([draw(3), zero]))

    assert found["cosine"][1].tolist() == [0, 0]
    assert all(math.isnan(found[name][0, 1]) for name in ("row_overlap", "column_overlap", "sign_conflict"))


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_sizes_do_not_change_what_is_alike(draw, size):
    x, y = draw(4, LARGE), draw(4, LARGE)

    found, scaled = figures(likeness([x, y])), figures(likeness([x.times(size), y]))

    for name in ("cosine", "row_overlap", "column_overlap", "sign_conflict", "weighted_conflict"):
        torch.testing.assert_close(scaled[name], found[name], msg=name)


def test_the_nearest_two_are_joined_first():
    cosine = torch.tensor([[1.0, 0.1, 0.8], [0.1, 1.0, 0.3], [0.8, 0.3, 1.0]], dtype=torch.float64)

    tree = linkage(cosine)

    assert tree[0, :3].tolist() == pytest.approx([0, 2, 0.2])
    assert tree[1, 2] == pytest.approx((0.9 + 0.7) / 2)
