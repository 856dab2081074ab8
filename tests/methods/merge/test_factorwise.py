from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from loramerge.core.lowrank import LowRank
from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods.merge.factorwise import METHOD, Options

VARIANTS = [({"formula": "plain"}, {"units", "gauge", "zero", "linearity"})]


def merge(updates, *weights, **options):
    return apply(METHOD, updates, Options(**options), Context("layer.0", weights)).delta


def test_products_of_different_adapters_appear():
    x = LowRank(b=torch.tensor([[1.0], [0.0]]), a=torch.tensor([[1.0, 0.0]]), scale=4.0)
    y = LowRank(b=torch.tensor([[0.0], [1.0]]), a=torch.tensor([[0.0, 1.0]]))

    # A = (2, 1), B = (2, 1): beside 4 and 1 on the diagonal there are two cross terms.
    assert merge([x, y], 1.0, 1.0).dense().tolist() == [[4.0, 2.0], [2.0, 1.0]]


def test_plain_weights_enter_squared():
    x = LowRank(b=torch.tensor([[1.0]]), a=torch.tensor([[1.0, 0.0]]), scale=4.0)
    y = LowRank(b=torch.tensor([[1.0]]), a=torch.tensor([[0.0, 1.0]]), scale=4.0)

    # (½ + ½) · (½, ½) · 4.
    assert merge([x, y], 0.5, 0.5, formula="plain").dense().tolist() == [[2.0, 2.0]]


def test_the_plain_midpoint_misses_the_mean_by_the_product_of_differences(draw):
    x, y = draw(4, scale=0.5), draw(4, scale=0.5)

    found = merge([x, y], 0.5, 0.5, formula="plain").dense()

    bend = 0.5 * (x.b - y.b) @ (x.a - y.a) / 4
    torch.testing.assert_close(found, (x.dense() + y.dense()) / 2 - bend)


@pytest.mark.parametrize("formula", ["sqrt", "plain"])
def test_what_counts_for_nothing_changes_no_bit(draw, formula):
    x, y = draw(4, scale=1 / 3), draw(7)

    (part,) = apply(METHOD, [x, y], Options(formula), Context("layer.0", (1.0, 0.0))).parts

    assert (part.scale, part.rank) == (1 / 3, 4)
    assert torch.equal(part.a, x.a)
    assert torch.equal(part.b, x.b)


def test_other_ranks_are_padded(draw):
    x, y = draw(2), draw(3)

    found = merge([x, y], 1.0, 1.0).dense()

    cross = x.b @ y.a[:2] + y.b[:, :2] @ x.a
    torch.testing.assert_close(found, x.dense() + y.dense() + cross)


def test_biases_are_added_exactly(draw):
    x, y = draw(2, bias=True, scale=2.0), draw(2, bias=True)

    torch.testing.assert_close(merge([x, y], 0.5, -1.0).bias, 1.0 * x.bias - y.bias)


def test_of_nothing_but_zeros_it_is_zero(draw):
    assert float(merge([draw(2), draw(3)], 0.0, 0.0).dense().norm()) == 0.0


@pytest.mark.parametrize("weights", [(1.0, 0.5), (0.3, -0.7)], ids=str)
def test_it_is_pefts_linear(draw, weights):
    import peft

    updates = [draw(4, (5, 6), scale=2.0, dtype=torch.float32), draw(4, (5, 6), scale=0.25, dtype=torch.float32)]
    model = nn.Sequential(nn.Linear(6, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, about merging adapters of other alphas
        for name, update in zip("xy", updates, strict=True):
            config = peft.LoraConfig(r=4, lora_alpha=4 * update.scale, target_modules=["0"])
            if name == "x":
                model = peft.get_peft_model(model, config, adapter_name=name)
            else:
                model.add_adapter(name, config)
            layer = model.base_model.model[0]
            layer.lora_A[name].weight.data.copy_(update.a)
            layer.lora_B[name].weight.data.copy_(update.b)
        model.add_weighted_adapter(["x", "y"], list(weights), "both", combination_type="linear")

    torch.testing.assert_close(merge(updates, *weights).dense().float(), layer.get_delta_weight("both").detach())
