"""Every method keeps every law, against dense matrices in float64, or says which it breaks and does break it.

A law is a function of a method at some options, and of a few random updates; it returns what the method
made and what it should have been. What a method declares broken must fail for at least one seed. A method's
own test may list further options to go through the laws, with those that break there:

    VARIANTS = [({"inner": "ties"}, {"identity", "idempotence"})]

    python tests/methods/test_laws.py     prints the table: methods × laws, and the reasons
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.methods._grains import apply
from loramerge.methods._method import LAWS, MERGE, Context

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # what tests share, also where this is run as a script
KEPT, BROKEN = 1e-9, 1e-3
"""Relative errors below the first keep a law, above the second break it."""

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

    def updates(self, method):
        return [self.update() for _ in range(self.whole(max(2, method.least), method.most or 4))]

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

    @property
    def method(self):
        return MERGE[self.name]

    def merge(self, updates, weights=None):
        """ΔW as the method makes it; without weights, with those the method takes by itself."""
        one = 1.0 if self.method.weights == "sum" else 1 / len(updates)
        weights = tuple(weights) if weights is not None else (one,) * len(updates)
        data = {kind: [STATISTICS[kind](update) for update in updates] for kind in self.method.needs}
        context = Context("layer.0", weights, data=data)
        return apply(self.method, updates, self.method.options(**self.options), context).dense()


def projection(matrix):
    """(in, in) the projection on a matrix's row space: it does not change with gauge or scale."""
    values, vectors = torch.linalg.svd(matrix, full_matrices=False)[1:]
    rows = vectors[values > 1e-9 * values.max().clamp(min=1e-300)]
    return rows.T @ rows


# Statistics of a model with this update would be, as far as laws are concerned, some function of it.
STATISTICS = {
    "grams": lambda update: torch.eye(update.shape[1], dtype=torch.float64) + 5 * projection(update.dense()),
    "fisher_in": lambda update: 1 + projection(update.dense()).diagonal(),
    "fisher_out": lambda update: 1 + projection(update.dense().T).diagonal(),
}


def dense(updates, weights):
    return sum(weight * update.dense() for update, weight in zip(updates, weights, strict=True))


def identity(case, random):
    """One update with weight 1 comes back (as many copies as the method takes at least)."""
    update = random.update()
    least = case.method.least
    return case.merge([update] * least, [1.0] if least == 1 else None), update.dense()


def idempotence(case, random):
    """Copies of one update, weighted as the method does by itself, are that update."""
    update = random.update()
    return case.merge([update] * min(3, case.method.most or 3)), update.dense()


def permutation(case, random):
    """The order of adapters does not matter."""
    updates = random.updates(case.method)
    weights = random.weights(len(updates))
    order = random.order(len(updates)).tolist()
    return case.merge([updates[i] for i in order], [weights[i] for i in order]), case.merge(updates, weights)


def units(case, random):
    """The order of an update's units does not matter."""
    updates = random.updates(case.method)
    weights = random.weights(len(updates))
    shuffled = []
    for update in updates:
        order = random.order(update.rank)
        shuffled.append(replace(update, b=update.b[:, order], a=update.a[order]))
    return case.merge(shuffled, weights), case.merge(updates, weights)


def scale(case, random):
    """Twice every alpha is twice the result."""
    updates = random.updates(case.method)
    weights = random.weights(len(updates))
    return case.merge([update.times(2.0) for update in updates], weights), 2.0 * case.merge(updates, weights)


def gauge(case, random):
    """(b g, g⁻¹ a) is the same update, so the result is the same."""
    updates = random.updates(case.method)
    weights = random.weights(len(updates))
    turned = []
    for update in updates:
        g = random.normal(update.rank, update.rank) + 3 * torch.eye(update.rank)
        turned.append(replace(update, b=update.b @ g, a=torch.linalg.solve(g, update.a)))
    return case.merge(turned, weights), case.merge(updates, weights)


def zero(case, random):
    """An update of zeros, whatever its weight, changes nothing."""
    updates = random.updates(case.method)
    weights = random.weights(len(updates))
    nothing = random.update()
    nothing = replace(nothing, b=torch.zeros_like(nothing.b))
    return case.merge([*updates, nothing], [*weights, 0.7]), case.merge(updates, weights)


def linearity(case, random):
    """The result is linear in the weights, also where they add up to zero."""
    updates = random.updates(case.method)
    one, two = random.weights(len(updates)), random.weights(len(updates))
    two = (-one[0], *two[1:])
    both = [x + y for x, y in zip(one, two, strict=True)]
    return case.merge(updates, one) + case.merge(updates, two), case.merge(updates, both)


CHECKS = {law.__name__: law for law in (identity, idempotence, permutation, units, scale, gauge, zero, linearity)}


def variants(name):
    """The further options that a method's own test wants to go through the laws."""
    path = HERE / "merge" / f"test_{name.replace('-', '_')}.py"
    spec = importlib.util.spec_from_file_location(f"variants_of_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [Case(name, options, frozenset(breaks)) for options, breaks in getattr(module, "VARIANTS", ())]


CASES = [case for name in MERGE.names() for case in (Case(name, {}, frozenset(MERGE[name].breaks)), *variants(name))]


def error(got, want):
    found = float((got - want).norm() / want.norm()) if (got != want).any() else 0.0
    return math.inf if math.isnan(found) else found


def test_every_law_has_a_check():
    assert tuple(CHECKS) == LAWS


@pytest.mark.parametrize("name", MERGE.names())
def test_only_laws_are_declared_broken(name):
    assert set(MERGE[name].breaks) <= set(LAWS)


def worst(case, law):
    """The largest error over all seeds; None where the law does not apply to the method."""
    if law == "zero" and case.method.most is not None:
        return None
    return max(error(*CHECKS[law](case, Random(seed))) for seed in SEEDS)


def test_what_is_not_a_number_keeps_no_law():
    assert error(torch.tensor([math.nan]), torch.ones(1)) == math.inf


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_law(case, law):
    found = worst(case, law)

    if found is None:
        pytest.skip(f"{case.name} takes {case.method.most} adapters, so none can be added")
    if law in case.breaks:
        assert found > BROKEN, f"{case} keeps {law} after all: drop it from `breaks`"
    else:
        assert found < KEPT


SUMS = [
    name
    for name in MERGE.names()
    if not {"identity", "linearity"} & set(MERGE[name].breaks) and not MERGE[name].ordered
]


@pytest.mark.parametrize("name", SUMS)
def test_linear_methods_are_the_dense_weighted_sum(name):
    case = Case(name, {}, frozenset())
    for seed in SEEDS:
        random = Random(seed)
        updates = random.updates(case.method)
        weights = random.weights(len(updates))

        assert error(case.merge(updates, weights), dense(updates, weights)) < 1e-12


def table():
    """Methods × laws as measured now, and each declared break with its reason."""
    print("| method | " + " | ".join(LAWS) + " |\n" + "|---" * (len(LAWS) + 1) + "|")
    wrong = 0
    for case in CASES:
        cells = []
        for law in LAWS:
            found = worst(case, law)
            right = found is None or (found > BROKEN if law in case.breaks else found < KEPT)
            word = "–" if found is None else f"{'breaks' if law in case.breaks else 'keeps'} ({found:.0e})"
            cells.append(word if right else f"**WRONG** {word}")
            wrong += not right
        print(f"| {case} | " + " | ".join(cells) + " |")
    print()
    for name in MERGE.names():
        for law, reason in MERGE[name].breaks.items():
            print(f"- {name} breaks {law}: {reason}")
    return wrong


if __name__ == "__main__":
    sys.exit(table())
