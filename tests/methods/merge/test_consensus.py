from __future__ import annotations

import pytest
import torch
from entries import merged, normal

from loramerge.errors import BadOption
from loramerge.methods._method import MERGE

# One mask is enough for a lone adapter; masks of copies are empty from λ = 1 / (n − 1) on.
VARIANTS = [({"k": 1}, set()), ({"lam": 0.9}, {"identity", "idempotence"})]


def test_entries_that_too_few_find_themselves_in_are_dropped():
    updates = torch.tensor([[[5.0, 2.0, 1.0]], [[0.25, 2.0, -1.0]]])

    # Masks at λ = 0.5: |5| ≥ 0.125 but |0.25| < 2.5; both 2 ≥ 1; both 1 ≥ 0.5, and what they add up to is 0.
    assert merged("consensus", updates, k=2, lam=0.5).tolist() == [[0.0, 4.0, 0.0]]
    assert merged("consensus", updates, k=1, lam=0.5).tolist() == [[5.25, 4.0, 0.0]]


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("lam", [0.2, 1.0])
def test_it_is_the_definition_on_dense_updates(k, lam):
    updates, weights = normal(4, 30, 40), (0.25, 0.5, -1.0, 1.0)
    users = sum((u.abs() >= lam * (updates.sum(0) - u).abs()).int() for u in updates)

    found = merged("consensus", updates, weights, k=k, lam=lam)

    want = torch.where(users >= k, torch.einsum("n,noi->oi", torch.tensor(weights, dtype=updates.dtype), updates), 0.0)
    torch.testing.assert_close(found, want)


@pytest.mark.parametrize("options", [{"k": 0}, {"lam": -1.0}, {"lam": float("nan")}])
def test_options_are_checked(options):
    with pytest.raises(BadOption):
        MERGE["consensus"].options(**options)
