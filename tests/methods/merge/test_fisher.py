from __future__ import annotations

import pytest
import torch
from entries import merged, normal

from loramerge.linalg.tiles import Stack
from loramerge.methods._method import MERGE, Context

VARIANTS = [({"normalize": True}, {"linearity", "zero"})]


def measured(n, shape):
    """Positive numbers of very different size, as squared gradients are."""
    outs, ins = normal(n, shape[0], seed=1).mul(3).exp(), normal(n, shape[1], seed=2).mul(3).exp()
    return {"fisher_out": list(outs), "fisher_in": list(ins)}


def test_an_entry_is_a_mean_weighted_by_fishers_information():
    updates = torch.tensor([[[1.0, 1.0]], [[3.0, 3.0]]])
    data = {
        "fisher_out": [torch.tensor([2.0]).double(), torch.tensor([1.0]).double()],
        "fisher_in": [torch.tensor([1.0, 0.0]).double(), torch.tensor([2.0, 5.0]).double()],
    }

    # Information 2·1 and 1·2 at the first place, 0 and 5 at the second.
    assert merged("fisher", updates, data=data).tolist() == [[2.0, 3.0]]
    assert merged("fisher", updates, (1.0, 3.0), data=data).tolist() == [[2.5, 3.0]]


def test_it_is_the_definition_on_dense_updates():
    updates, weights, data = normal(3, 20, 30), (0.5, 1.0, 2.0), measured(3, (20, 30))
    fishers = torch.stack([torch.outer(o, i) for o, i in zip(data["fisher_out"], data["fisher_in"], strict=True)])
    shares = torch.tensor(weights, dtype=torch.float64)[:, None, None] * fishers

    found = merged("fisher", updates, weights, data=data)

    torch.testing.assert_close(found, (shares * updates).sum(0) / shares.sum(0))


def test_where_nothing_depends_on_an_entry_it_is_the_weighted_mean():
    updates = torch.tensor([[[1.0]], [[4.0]]])
    data = {"fisher_out": [torch.zeros(1).double()] * 2, "fisher_in": [torch.ones(1).double()] * 2}

    assert merged("fisher", updates, (1.0, 2.0), data=data).tolist() == [[3.0]]


def test_larger_gradients_count_for_nothing_once_normalized():
    updates, data = normal(2, 20, 30), measured(2, (20, 30))
    larger = {**data, "fisher_out": [data["fisher_out"][0] * 1e6, data["fisher_out"][1]]}

    found = merged("fisher", updates, data=larger, normalize=True)

    torch.testing.assert_close(found, merged("fisher", updates, data=data, normalize=True))
    assert not torch.allclose(merged("fisher", updates, data=larger), merged("fisher", updates, data=data))


def test_tiny_information_does_not_underflow():
    updates, data = normal(2, 20, 30), measured(2, (20, 30))
    tiny = {"fisher_out": [out * 1e-40 for out in data["fisher_out"]], "fisher_in": data["fisher_in"]}

    found = merged("fisher", updates.float(), data=tiny)

    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), merged("fisher", updates, data=data), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("start", [0, 7])
def test_rows_are_weighted_by_their_own_information(start):
    updates, data = normal(2, 20, 30), measured(2, (20, 30))
    method, context = MERGE["fisher"], Context("layer.0", (1.0, 1.0), data=data)
    state = method.survey(Stack(updates), method.options(), context)

    found = method.apply(updates[:, start : start + 5].clone(), state, method.options(), context, start)

    assert torch.equal(found, merged("fisher", updates, data=data)[start : start + 5])
