"""Every layer is a matrix product of rows: W times those that go in is what comes out."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from loramerge.models.layers import base_of, kind_of, rows_in, rows_out, shape_of

LAYERS = {
    "linear": (nn.Linear(6, 4), (2, 3, 6)),
    "linear of a pooled input": (nn.Linear(6, 4), (2, 6)),
    "GPT-2's Conv1D": (Conv1D(4, 6), (2, 3, 6)),
    "a convolution": (nn.Conv2d(3, 4, 3), (2, 3, 7, 5)),
    "a convolution with everything": (nn.Conv2d(3, 4, (3, 2), (2, 1), (1, 2), (1, 2)), (2, 3, 7, 8)),
    "a convolution of lines": (nn.Conv1d(3, 4, 3, stride=2, padding=1, dilation=2), (2, 3, 9)),
}


@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS.keys())
def test_what_goes_in_times_the_matrix_is_what_comes_out(layer, shape):
    x = torch.randn(shape)
    weight = layer.weight.T if isinstance(layer, Conv1D) else layer.weight.flatten(1)

    rows = rows_in(layer, x)

    assert shape_of(layer) == tuple(weight.shape)
    torch.testing.assert_close(rows @ weight.T + layer.bias, rows_out(layer, layer(x)), rtol=1e-4, atol=1e-5)


def test_an_embeddings_rows_are_its_tokens():
    layer = nn.Embedding(5, 3)
    tokens = torch.tensor([[1, 4], [0, 1]])

    assert rows_in(layer, tokens).tolist() == [1, 4, 0, 1]
    assert shape_of(layer) == (3, 5)
    assert rows_out(layer, layer(tokens)).shape == (4, 3)


@pytest.mark.parametrize(
    "layer",
    [nn.LayerNorm(3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv1d(3, 4, 3, padding="same"), nn.Conv3d(3, 4, 3)],
    ids=str,
)
def test_other_layers_are_none(layer):
    assert kind_of(layer) is None


def test_an_adapted_layer_is_what_peft_has_put_the_update_around():
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(nn.Sequential(nn.Linear(6, 4)), LoraConfig(target_modules=["0"]))
    adapted = model.base_model.model[0]

    assert kind_of(adapted) == "plain"
    assert shape_of(adapted) == (4, 6)
    assert type(base_of(adapted)) is nn.Linear
