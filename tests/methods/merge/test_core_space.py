from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from spaces import matrix, merged, rotation, ties

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

VARIANTS = [
    ({"inner": "linear"}, {"idempotence"}),
    ({"inner": "dare", "density": 0.5}, {"gauge", "idempotence", "identity", "linearity"}),
    ({"inner": "dare-ties", "density": 0.5}, {"gauge", "idempotence", "identity", "linearity"}),
    ({"inner": "tsv"}, {"linearity"}),
    ({"inner": "iso"}, {"idempotence", "identity", "linearity"}),
    ({"basis": "factors"}, {"gauge", "idempotence", "identity", "linearity"}),
]


# Rows of [X Y] and columns of [X; Y] are at right angles: both bases are the identity.
X, Y = matrix((4.0, 0.0), (0.0, 1.0)), matrix((2.0, 0.0), (0.0, -2.0))


def test_what_disagrees_in_a_shared_direction_is_settled_there():
    got = merged("core-space", [X, Y], density=1.0)

    torch.testing.assert_close(got, torch.tensor([[3.0, 0.0], [0.0, -2.0]]).double())


def test_turned_inputs_and_outputs_are_merged_alike():
    left, right = rotation(2, 1), rotation(2, 2)
    turned = [replace(update, b=left @ update.b, a=update.a @ right) for update in (X, Y)]

    got = merged("core-space", turned, density=1.0)

    torch.testing.assert_close(got, left @ merged("core-space", [X, Y], density=1.0) @ right)


def directions(stacked):
    """The left singular vectors, less those of rounding."""
    u, s, _ = torch.linalg.svd(stacked, full_matrices=False)
    return u[:, s > 1e-9 * s[0]]


@pytest.mark.parametrize("density", [0.2, 1.0])
@pytest.mark.parametrize("basis", ["updates", "factors"])
@pytest.mark.parametrize(("shape", "ranks"), [((24, 40), (3, 8, 5)), ((40, 24), (2, 2)), ((6, 30), (5, 8, 4))])
def test_it_is_the_dense_formula(draw, density, basis, shape, ranks):
    updates = [draw(rank, shape, scale=2.0**i) for i, rank in enumerate(ranks)]
    if basis == "updates":
        lefts, rights = ([update.dense() for update in updates],) * 2
    else:
        lefts, rights = [f.b * f.scale**0.5 for f in updates], [f.a * f.scale**0.5 for f in updates]
    u, vh = directions(torch.cat(lefts, dim=1)), directions(torch.cat(rights).T).T
    cores = torch.stack([u.T @ update.dense() @ vh.T for update in updates])

    got = merged("core-space", updates, density=density, basis=basis)

    torch.testing.assert_close(got, u @ ties(cores, density) @ vh)


def test_tsv_and_iso_are_the_methods_of_that_name(draw):
    updates = [draw(3), draw(5, scale=3.0)]

    torch.testing.assert_close(merged("core-space", updates, inner="tsv", k=2), merged("tsv", updates, k=2))
    torch.testing.assert_close(merged("core-space", updates, inner="iso", k=4), merged("iso-c", updates, k=4))


def test_dare_keeps_entries_in_the_shared_directions_and_divides_them():
    # It has one entry in the shared basis, so it is dropped or doubled as a whole.
    lone = [matrix((1.0, 0.0), (0.0, 0.0))]

    sizes = [float(merged("core-space", lone, inner="dare", density=0.5, seed=seed)[0, 0]) for seed in range(40)]

    assert set(sizes) == {0.0, 2.0}
    assert 10 <= sizes.count(2.0) <= 30


def test_linear_is_the_sum(draw):
    x, y = draw(3), draw(5)

    torch.testing.assert_close(merged("core-space", [x, y], (2.0, -3.0), inner="linear"), 2 * x.dense() - 3 * y.dense())


@pytest.mark.parametrize(("name", "value"), [("density", 0.0), ("density", 1.5), ("k", 0)])
def test_bad_numbers_are_refused(name, value):
    with pytest.raises(BadOption, match=name):
        MERGE["core-space"].options(**{name: value})
