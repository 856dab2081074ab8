"""Elementwise methods: results do not depend on how the work is cut up, masks do not on who else is there."""

from __future__ import annotations

import pytest
import torch

from loramerge.core.lowrank import LowRank
from loramerge.linalg import tiles
from loramerge.methods import _entries
from loramerge.methods._grains import apply, key
from loramerge.methods._method import MERGE, Context

ENTRIES = [name for name in MERGE.names() if MERGE[name].on == "entries"]
RANDOM = [(name, {}) for name in ENTRIES if MERGE[name].random]
RANDOM += [("dare", {"rescale": "norm"}), ("dare-ties", {"rescale": "norm"}), ("della", {"rescale": "norm"})]
ADDED = [("dare", {}), ("dare", {"rescale": "norm"}), ("della", {"elect": "none"})]
SHAPE = (37, 29)


def positive(update):
    """Statistics with which a method that needs some can run."""
    return {"fisher_out": update.b.square().sum(1) + 0.1, "fisher_in": update.a.square().sum(0) + 0.1}


def merged(name, updates, weights, seed=0, **options):
    method = MERGE[name]
    data = {kind: [positive(update)[kind].double() for update in updates] for kind in method.needs}
    context = Context("layer.0", tuple(weights), seed=seed, data=data)
    return apply(method, updates, method.options(**options), context)


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in ENTRIES), *RANDOM[3:]], ids=str)
def test_results_do_not_depend_on_the_height_of_tiles(draw, monkeypatch, name, options):
    updates, weights = [draw(5, SHAPE), draw(2, SHAPE, scale=3.0), draw(9, SHAPE)], (0.5, 1.0, 2.0)
    whole = merged(name, updates, weights, **options)
    assert whole.blocks.tiles.height == SHAPE[0]
    want = whole.blocks.dense()

    for rows in (1, 2, 8, 16):
        monkeypatch.setattr(tiles, "TILE_BYTES", rows * len(updates) * SHAPE[1] * 8)
        cut = merged(name, updates, weights, **options)

        # A product of other sides may differ in its last bit; what is kept and what is dropped may not.
        assert cut.blocks.tiles.height == rows
        assert torch.equal(cut.blocks.dense() == 0, want == 0)
        torch.testing.assert_close(cut.blocks.dense(), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("name", "options"), RANDOM, ids=str)
def test_masks_do_not_depend_on_the_order_of_adapters(draw, name, options):
    updates, weights = [draw(5, SHAPE), draw(2, SHAPE, scale=3.0), draw(9, SHAPE)], [0.5, 1.0, 2.0]

    found = merged(name, updates[::-1], weights[::-1], **options).dense()

    torch.testing.assert_close(found, merged(name, updates, weights, **options).dense())


@pytest.mark.parametrize(("name", "options"), ADDED, ids=str)
def test_masks_do_not_depend_on_the_other_adapters(draw, name, options):
    updates = [draw(5, SHAPE), draw(2, SHAPE), draw(9, SHAPE)]

    alone = [merged(name, [update], [1.0], **options).dense() for update in updates]

    torch.testing.assert_close(
        merged(name, updates, [1.0, 2.0, 3.0], **options).dense(), alone[0] + 2 * alone[1] + 3 * alone[2]
    )


def test_modules_and_seeds_have_masks_of_their_own(draw):
    update = draw(4, SHAPE)
    context = Context("layer.0", (1.0,), keys=(key(update),))
    others = [Context("layer.1", (1.0,), keys=context.keys), Context("layer.0", (1.0,), seed=1, keys=context.keys)]

    one = _entries.uniform(context, 0, 0, *SHAPE)

    assert torch.equal(one, _entries.uniform(context, 0, 0, *SHAPE))
    assert not any(torch.equal(one, _entries.uniform(other, 0, 0, *SHAPE)) for other in others)


@pytest.mark.parametrize("width", [1, 7, 8, 9, 4096])
def test_the_numbers_of_some_rows_are_those_of_the_whole(width):
    context = Context("layer.0", (1.0,), keys=(2**64 - 1,))

    whole = _entries.uniform(context, 0, 0, 50, width)

    assert torch.equal(_entries.uniform(context, 0, 13, 20, width), whole[13:33])


def test_numbers_are_uniform():
    numbers = _entries.uniform(Context("layer.0", (1.0,), keys=(7,)), 0, 0, 300, 1000).flatten()

    counts = torch.histc(numbers, 20, 0.0, 1.0)

    # 15,000 are expected in each; five standard deviations are about 600.
    assert float((counts - 15000).abs().max()) < 600
    assert float(numbers.max()) < 1.0


def test_updates_that_are_the_same_have_the_same_key(draw):
    update, order = draw(6), torch.tensor([3, 1, 0, 5, 4, 2])

    shuffled = LowRank(b=update.b[:, order], a=update.a[order], scale=-7.0)

    assert key(shuffled) == key(update)
    assert key(draw(6)) != key(update)
    assert key(LowRank(b=update.b, a=update.a * 2)) != key(update)


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_thin_updates_and_half_precision_have_keys(draw, shape, dtype):
    assert key(draw(3, shape, dtype=dtype)) != key(draw(3, shape, dtype=dtype))
