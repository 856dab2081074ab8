from __future__ import annotations

import torch
from entries import merged, normal


def test_the_largest_entry_in_size_is_taken():
    updates = torch.tensor([[[1.0, -3.0, 2.0]], [[-2.0, 1.0, -2.0]]])

    assert merged("magmax", updates).tolist() == [[-2.0, -3.0, 2.0]]
    assert merged("magmax", updates, (3.0, 1.0)).tolist() == [[3.0, -9.0, 6.0]]


def test_it_is_the_definition_on_dense_updates():
    updates = normal(5, 30, 40)

    want = updates.gather(0, updates.abs().argmax(0, keepdim=True))[0]

    assert torch.equal(merged("magmax", updates), want)
