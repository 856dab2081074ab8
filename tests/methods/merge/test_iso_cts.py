from __future__ import annotations

import pytest
import torch
from spaces import diagonal, merged, outcome, polar

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE
from loramerge.methods.merge.iso_cts import split

VARIANTS = [
    ({"k": 6, "common": 0.5}, {"idempotence", "identity", "linearity"}),
]


def test_common_and_own_directions_get_the_mean_of_all():
    x, y = diagonal(4.0, 1.0, 0.0), diagonal(3.0, 0.0, 1.0)

    # Common: 7 along the first axis; own: 1 along the second for x, 1 along the third for y.
    torch.testing.assert_close(merged("iso-cts", [x, y], k=3, common=0.34), diagonal(3.0, 3.0, 3.0).dense())


def test_all_common_is_iso_c(draw):
    updates = [draw(3), draw(5)]

    torch.testing.assert_close(merged("iso-cts", updates, k=4, common=1.0), merged("iso-c", updates, k=4))


@pytest.mark.parametrize(
    ("k", "tasks", "common", "own"), [(16, 4, 0.8, 1), (3, 2, 0.34, 1), (2, 5, 0.1, 0), (8, 2, 0.5, 2), (8, 0, 0.5, 0)]
)
def test_what_is_not_common_is_shared_out(k, tasks, common, own):
    assert split(k, tasks, common) == own


@pytest.mark.parametrize(("k", "common"), [(9, 0.5), (10, 0.8), (4, 0.2)])
def test_it_is_the_dense_formula(draw, k, common):
    updates = [draw(5), draw(8, scale=2.0), draw(4, scale=0.5)]
    own = split(k, 3, common)
    c = k - 3 * own
    u, s, vh = torch.linalg.svd(sum(update.dense() for update in updates))
    us, ss, vs = [], [], []
    for update in updates:
        rest = update.dense() - u[:, :c] @ u[:, :c].T @ update.dense()
        task = torch.linalg.svd(rest)
        us, ss, vs = [*us, task.U[:, :own]], [*ss, task.S[:own]], [*vs, task.Vh[:own].T]
    values = torch.cat([*ss, s[:c]])

    got = merged("iso-cts", updates, k=k, common=common)

    want = values.mean() * polar(torch.cat([*us, u[:, :c]], 1)) @ polar(torch.cat([*vs, vh[:c].T], 1)).T
    torch.testing.assert_close(got, want)


def test_a_task_with_nothing_of_its_own_gives_nothing():
    # All of y lies along the common axis.
    got = outcome("iso-cts", [diagonal(4.0, 1.0, 0.0), diagonal(3.0, 0.0, 0.0)], k=3, common=0.34)

    assert got.report == {"k": 2, "common": 1}
    torch.testing.assert_close(got.dense(), diagonal(4.0, 4.0, 0.0).dense())


@pytest.mark.parametrize(("name", "value"), [("k", 0), ("common", 0.0), ("common", 1.1)])
def test_bad_numbers_are_refused(name, value):
    with pytest.raises(BadOption, match=name):
        MERGE["iso-cts"].options(**{name: value})
