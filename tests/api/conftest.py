"""A workspace, and a model small enough to compare every number of."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from loramerge.api.session import Session


@pytest.fixture
def session(tmp_path):
    """A workspace of one worker, with a cache of its own."""
    (tmp_path / "work").mkdir()
    return Session(tmp_path / "work", workers=1, cache=tmp_path / "cache")


class Toy(nn.Module):
    """The base that `make_adapter` makes its adapters for, with a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.ModuleDict({"q": nn.Linear(8, 8), "v": nn.Linear(8, 6)}) for _ in range(2))
        self.classifier = nn.Linear(6, 3)

    def forward(self, x):
        for layer in self.layers:
            v = layer["v"](torch.tanh(layer["q"](x)))
            x = torch.nn.functional.pad(v, (0, 2))
        return self.classifier(v)


@pytest.fixture
def toy():
    """The base, always with the same numbers."""
    return Toy()


@pytest.fixture
def peft_loads():
    """peft_loads(model, folder) -> the model with the adapter; fails where a key of either is not used."""
    import peft

    def load(model, folder):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of PEFT and transformers about each other
            warnings.filterwarnings("error", message=".*adapter keys")
            return peft.PeftModel.from_pretrained(model, str(folder)).eval()

    return load
