"""Adapters that exist as headers only: whoever reads a number of them fails."""

from __future__ import annotations

import pytest

from loramerge.core.adapter import Adapter, ModuleSpec
from loramerge.core.statistics import Statistics


def _unread(name):
    raise AssertionError(f"{name} was read")


@pytest.fixture
def header():
    """header("a", q=(8, 4, 2)) -> an adapter with a module q of 8×4 and rank 2, whose numbers nobody may read."""

    def make(name, /, modules=None, *, dtype="F32", **more):
        fields = {key: more.pop(key) for key in ("kind", "bias", "dora") if key in more}
        sizes = {**(modules or {}), **more}
        specs = {
            module: ModuleSpec(module, out, in_, rank, 0.5, dtype, alpha=7.0, **fields)
            for module, (out, in_, rank) in sizes.items()
        }
        return Adapter(name, "peft", specs, _unread)

    return make


@pytest.fixture
def measured():
    """measured({("grams", "q"): (2, 2)}) -> statistics of such shapes, whose numbers nobody may read."""

    def make(shapes):
        return Statistics("measured", shapes, lambda kind, module: _unread(f"{kind}.{module}"))

    return make
