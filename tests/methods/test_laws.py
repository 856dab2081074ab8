"""Every method keeps every law, against dense matrices in float64, or says which it breaks and does break it.

A law is a function of a method at some options, and of a few random updates; it returns what the method
made and what it should have been. What a method declares broken must fail for at least one seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.methods._method import LAWS, MERGE, Context

# (out, in): square, wide, tall, a flattened convolution, an embedding, a single row.
SHAPES = [(32, 32), (12, 40), (50, 9), (6, 27), (16, 120), (1, 8)]
SEEDS = range(6)


class Random:
    """Updates of one shape, with ranks from 1 to 33 and scales over six orders of magnitude."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.shape = SHAPES[seed % len(SHAPES)]

    def normal(self, *sides):
        return torch.randn(*sides, generator=self.generator, dtype=torch.float64)

    def whole(self, low, high):
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def update(self):
        rank, scale = self.whole(1, 33), 10.0 ** self.whole(-3, 3)
        return LowRank(b=self.normal(self.shape[0], rank), a=self.normal(rank, self.shape[1]), scale=scale)

    def updates(self):
        return [self.update() for _ in range(self.whole(2, 4))]

    def weights(self, count):
        return tuple((self.normal(count) * 2).tolist())

    def order(self, count):
        return torch.randperm(count, generator=self.generator)


@dataclass(frozen=True)
class Case:
    """A method at some options, and the laws it does not keep there."""

    name: str
    options: Mapping[str, Any]
    breaks: frozenset[str]

    def __str__(self):
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])

    def merge(self, updates, weights=None):
        """ΔW as the method makes it; without weights, with those the method takes by itself."""
        method = MERGE[self.name]
        one = 1.0 if method.weights == "sum" else 1 / len(updates)
        weights = tuple(weights) if weights is not None else (one,) * len(updates)
        return method.apply(updates, method.options(**self.options), Context("layer.0", weights)).delta.dense()


def dense(updates, weights):
    return sum(weight * update.dense() for update, weight in zip(updates, weights, strict=True))


def identity(case, random):
    """One update with weight 1 comes back."""
    update = random.update()
    return case.merge([update], [1.0]), update.dense()


def idempotence(case, random):
    """Copies of one update, weighted as the method does by itself, are that update."""
    update = random.update()
    return case.merge([update] * 3), update.dense()


def permutation(case, random):
    """The order of adapters does not matter."""
    updates = random.updates()
    weights = random.weights(len(updates))
    order = random.order(len(updates)).tolist()
    return case.merge([updates[i] for i in order], [weights[i] for i in order]), case.merge(updates, weights)


def units(case, random):
    """The order of an update's units does not matter."""
    updates = random.updates()
    weights = random.weights(len(updates))
    shuffled = []
    for update in updates:
        order = random.order(update.rank)
        shuffled.append(replace(update, b=update.b[:, order], a=update.a[order]))
    return case.merge(shuffled, weights), case.merge(updates, weights)


def scale(case, random):
    """Twice every alpha is twice the result."""
    updates = random.updates()
    weights = random.weights(len(updates))
    return case.merge([update.times(2.0) for update in updates], weights), 2.0 * case.merge(updates, weights)


def gauge(case, random):
    """(b g, g⁻¹ a) is the same update, so the result is the same."""
    updates = random.updates()
    weights = random.weights(len(updates))
    turned = []
    for update in updates:
        g = random.normal(update.rank, update.rank) + 3 * torch.eye(update.rank)
        turned.append(replace(update, b=update.b @ g, a=torch.linalg.solve(g, update.a)))
    return case.merge(turned, weights), case.merge(updates, weights)


def zero(case, random):
    """An update of zeros, whatever its weight, changes nothing."""
    updates = random.updates()
    weights = random.weights(len(updates))
    nothing = random.update()
    nothing = replace(nothing, b=torch.zeros_like(nothing.b))
    return case.merge([*updates, nothing], [*weights, 0.7]), case.merge(updates, weights)


def linearity(case, random):
    """The result is linear in the weights."""
    updates = random.updates()
    one, two = random.weights(len(updates)), random.weights(len(updates))
    both = [x + y for x, y in zip(one, two, strict=True)]
    return case.merge(updates, one) + case.merge(updates, two), case.merge(updates, both)


CHECKS = {law.__name__: law for law in (identity, idempotence, permutation, units, scale, gauge, zero, linearity)}

CASES = [Case(name, {}, frozenset(MERGE[name].breaks)) for name in MERGE.names()] + [
    # With all units and nothing reweighted LEGO is the sum.
    Case("lego", {"k": 10**6, "reweight": "none"}, frozenset({"idempotence"})),
    Case("lego", {"k": 10**6, "reweight": "none", "features": "product"}, frozenset({"idempotence"})),
    Case("lego", {"k": 5, "features": "product"}, frozenset(MERGE["lego"].breaks)),
    Case("lego", {"k": 5, "gauge": "raw", "features": "normalized"}, frozenset(MERGE["lego"].breaks)),
]


def error(got, want):
    return float((got - want).norm() / want.norm())


def test_every_law_has_a_check():
    assert tuple(CHECKS) == LAWS


@pytest.mark.parametrize("name", MERGE.names())
def test_only_laws_are_declared_broken(name):
    assert set(MERGE[name].breaks) <= set(LAWS)
    assert MERGE[name].gauge_invariant == ("gauge" not in MERGE[name].breaks)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_law(case, law):
    errors = [error(*CHECKS[law](case, Random(seed))) for seed in SEEDS]

    if law in case.breaks:
        assert max(errors) > 1e-3, f"{case} keeps {law} after all: drop it from `breaks`"
    else:
        assert max(errors) < 1e-9


@pytest.mark.parametrize("name", [name for name in MERGE.names() if "linearity" not in MERGE[name].breaks])
def test_linear_methods_are_the_dense_weighted_sum(name):
    case = Case(name, {}, frozenset())
    for seed in SEEDS:
        random = Random(seed)
        updates = random.updates()
        weights = random.weights(len(updates))

        assert error(case.merge(updates, weights), dense(updates, weights)) < 1e-12
