from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from entries import normal
from spaces import merged as unmeasured
from spaces import polar, rotation

from loramerge.core.adapter import Adapter, ModuleSpec
from loramerge.core.lowrank import LowRank
from loramerge.core.statistics import Statistics
from loramerge.engine.plan import Request, Setting, plan
from loramerge.engine.run import Inputs, run
from loramerge.errors import BadOption
from loramerge.linalg import ranks
from loramerge.linalg.truncate import truncate_sum
from loramerge.methods._grains import apply
from loramerge.methods._method import MERGE, Context
from loramerge.methods.merge.local_tsv import METHOD, Options, localised

VARIANTS = [
    ({"others": 0.0}, {"linearity"}),
    ({"others": 1.0}, METHOD.breaks),
    ({"alpha": 1.0}, METHOD.breaks),
]


def inputs(count, width, seed):
    """(count, width) inputs of very different size and some correlation."""
    mixed = normal(count, width, seed=seed) @ (torch.eye(width) + 0.3 * normal(width, width, seed=9))
    return mixed * normal(width, seed=8).exp()


def gram(x):
    return x.T @ x / len(x)


def grams(count, width=40, rows=60):
    return [gram(inputs(rows, width, seed)) for seed in range(count)]


def outcome(updates, grams, weights=None, *, name="local-tsv", **options):
    """What the method makes of updates and the Grams of their inputs; weights are 1 unless said."""
    weights = (1.0,) * len(updates) if weights is None else weights
    context = Context("layer.0", weights, data={"grams": grams})
    return apply(MERGE[name], updates, MERGE[name].options(**options), context)


def merged(updates, grams, weights=None, **options):
    return outcome(updates, grams, weights, **options).dense()


def dead(update):
    return replace(update, b=torch.zeros_like(update.b))


def test_two_updates_of_one_number_are_merged_by_hand():
    updates = [LowRank(b=torch.tensor([[v]]).double(), a=torch.ones(1, 1).double()) for v in (1.0, 4.0)]
    seen = [torch.tensor([[2.0]]).double(), torch.tensor([[1.0]]).double()]

    # 1·2 / (2 + ½·1) and 4·1 / (1 + ½·2); directions that coincide have the mean.
    assert merged(updates, seen, others=0.5).item() == pytest.approx((0.8 + 2.0) / 2)


@pytest.mark.parametrize("others", [0.05, 0.7, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_it_is_the_dense_formula(draw, alpha, others):
    updates, weights = [draw(3), draw(8, scale=20.0), draw(30, scale=-0.1)], (1.0, -0.5, 2.0)
    own = [alpha * g + (1 - alpha) * g.diagonal().diag() for g in grams(3)]
    tasks = []
    for at, update in enumerate(updates):
        rest = sum(g for j, g in enumerate(own) if j != at)
        local = update.dense() @ own[at] @ torch.linalg.inv(own[at] + others * rest)
        u, s, vh = torch.linalg.svd(weights[at] * local, full_matrices=False)
        tasks.append((u[:, : update.rank], s[: update.rank], vh[: update.rank].T))
    u, s, v = (torch.cat(side, dim=-1) for side in zip(*tasks, strict=True))

    got = merged(updates, grams(3), weights, alpha=alpha, others=others)

    torch.testing.assert_close(got, polar(u) * s @ polar(v).T)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_where_others_count_for_nothing_it_is_tsv(draw, dtype):
    updates, weights = [draw(3, dtype=dtype), draw(8, scale=1e3, dtype=dtype), draw(5, dtype=dtype)], (1.0, 0.5, -2.0)
    seen = [*grams(2), torch.zeros(40, 40, dtype=torch.float64)]

    got = merged(updates, seen, weights, others=0.0)

    torch.testing.assert_close(got, unmeasured("tsv", updates, weights), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("rows", [60, 7])
def test_where_all_count_the_same_the_local_updates_add_up_to_regmean(draw, alpha, rows):
    # Seven inputs each are too few to see forty directions.
    updates, seen = [draw(3), draw(8, scale=20.0), draw(5, scale=0.1)], grams(3, rows=rows)

    got = sum(local.dense() for local in localised(updates, seen, Options(alpha=alpha, others=1.0)))

    want = outcome(updates, seen, name="regmean", alpha=alpha).dense()
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_a_local_update_is_least_squares_on_the_inputs_themselves(draw):
    updates, xs = [draw(3, (10, 16)), draw(5, (10, 16))], [inputs(50, 16, seed=1), inputs(50, 16, seed=2)]
    x, y = torch.cat([xs[0], 0.3**0.5 * xs[1]]), torch.cat([xs[0] @ updates[0].dense().T, torch.zeros(50, 10)])

    local = localised(updates, [gram(x) for x in xs], Options(alpha=1.0, others=0.3))[0]

    torch.testing.assert_close(local.dense(), torch.linalg.lstsq(x, y.double()).solution.T)
    assert local.rank == 3


@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_updates_whose_inputs_do_not_meet_keep_to_their_own(draw, alpha):
    updates, xs = [draw(3, (10, 16)), draw(5, (10, 16))], [inputs(50, 16, seed=1), inputs(50, 16, seed=2)]
    xs[0][:, 6:], xs[1][:, :6] = 0.0, 0.0

    one, other = localised(updates, [gram(x) for x in xs], Options(alpha=alpha))

    for local, update, own in ((one, updates[0], slice(0, 6)), (other, updates[1], slice(6, 16))):
        want = torch.zeros(10, 16, dtype=torch.float64)
        want[:, own] = update.dense()[:, own]
        torch.testing.assert_close(local.dense(), want)


@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_of_what_nobody_sees_each_keeps_the_same_share(draw, alpha):
    updates, xs = [draw(3, (10, 16)), draw(5, (10, 16))], [inputs(50, 16, seed=1), inputs(50, 16, seed=2)]
    for x in xs:
        x[:, 5] = 0.0

    local = localised(updates, [gram(x) for x in xs], Options(alpha=alpha, others=0.25))

    for found, update in zip(local, updates, strict=True):
        torch.testing.assert_close(found.dense()[:, 5], update.dense()[:, 5] / 1.25)


@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_grams_of_zeros_leave_tsv_of_that_share(draw, alpha):
    updates, nothing = [draw(3), draw(5)], torch.zeros(40, 40, dtype=torch.float64)

    got = merged(updates, [nothing] * 2, alpha=alpha)

    torch.testing.assert_close(got, unmeasured("tsv", updates) / 1.05)


@pytest.mark.parametrize("alpha", [0.9, 1.0])
def test_an_update_that_serves_no_input_of_its_own_is_gone_and_turns_nobody_aside(draw, alpha):
    updates, nothing = [draw(3), draw(5)], torch.zeros(40, 40, dtype=torch.float64)

    got = outcome(updates, [grams(1)[0], nothing], alpha=alpha)

    torch.testing.assert_close(got.delta.dense(), updates[0].dense())
    assert got.report["triplets"] == 3


def test_rounding_of_directions_that_are_gone_does_not_depend_on_how_updates_are_written_down(draw):
    # Two inputs of its own are all that an update of rank 5 can serve once others see the rest.
    updates, seen = [draw(5), draw(4)], [gram(inputs(2, 40, seed=1)), gram(inputs(60, 40, seed=2))]
    turns = [rotation(update.rank, seed) for seed, update in enumerate(updates)]
    turned = [LowRank(b=x.b @ turn, a=turn.T @ x.a) for x, turn in zip(updates, turns, strict=True)]

    one, other = outcome(updates, seen, alpha=1.0), outcome(turned, seen, alpha=1.0)

    assert one.report["triplets"] == 2 + 4
    torch.testing.assert_close(other.delta.dense(), one.delta.dense())


def test_grams_are_not_written_into(draw):
    seen = grams(2)

    merged([draw(3), draw(5)], seen)

    assert all(torch.equal(x, y) for x, y in zip(seen, grams(2), strict=True))


def test_one_adapter_comes_back(draw):
    one = draw(5, scale=2.0, bias=True)

    got = outcome([one], grams(1, rows=7), (-0.5,), alpha=1.0).delta

    torch.testing.assert_close(got.dense(), -0.5 * one.dense())
    torch.testing.assert_close(got.bias, -1.0 * one.bias)


def test_copies_with_the_same_inputs_leave_a_share_of_the_adapter(draw):
    one = draw(5, scale=2.0)

    got = outcome([one] * 4, grams(1) * 4, others=0.1).delta

    torch.testing.assert_close(got.dense(), one.dense() / 1.3)


def test_copies_with_inputs_of_their_own_still_have_its_rank_of_outputs(draw):
    one = draw(5)

    got = merged([one] * 3, grams(3))

    assert int((torch.linalg.svdvals(got) > 1e-9).sum()) == 5


@pytest.mark.parametrize("alpha", [0.9, 1.0])
@pytest.mark.parametrize("count", [1, 2])
def test_updates_of_zero_merge_to_zero(draw, count, alpha):
    got = outcome([dead(draw(3)) for _ in range(count)], grams(count, rows=7), alpha=alpha).delta

    assert got.shape == (24, 40)
    assert got.rank >= 1
    assert not got.dense().any()


def test_an_update_of_zero_keeps_the_others_out_of_its_inputs(draw):
    one, xs = draw(3), [inputs(60, 40, seed=1), inputs(60, 40, seed=2)]
    seen = [gram(x) for x in xs]

    got, alone = merged([one, dead(draw(4))], seen), merged([one], seen[:1])

    assert float((xs[1] @ got.T).norm()) < 0.95 * float((xs[1] @ alone.T).norm())
    assert float((xs[0] @ (got - alone).T).norm()) < 0.2 * float((xs[0] @ alone.T).norm())


def test_biases_are_added_with_weights_and_scales(draw):
    x, y = draw(3, bias=True, scale=2.0), draw(4, bias=True)

    for updates in ([x, y], [dead(x), dead(y)]):
        got = outcome(updates, grams(2), (0.5, -1.0)).delta

        torch.testing.assert_close(got.bias, x.bias - y.bias)


@pytest.mark.parametrize("size", [1e-140, 1e140])
def test_huge_and_tiny_updates_and_inputs_change_nothing_but_the_size(draw, size):
    updates, seen = [draw(3), draw(5, scale=0.1)], grams(2)

    got = merged([update.times(size) for update in updates], [g / size for g in seen])

    torch.testing.assert_close(got / size, merged(updates, seen))


@pytest.mark.parametrize(
    ("shape", "sizes"), [((24, 40), (1, 1)), ((4, 5), (9, 9, 9)), ((1, 9), (2, 3)), ((9, 1), (2, 3))]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_any_ranks_and_shapes_give_numbers_that_can_be_cut(draw, shape, sizes, dtype):
    updates = [draw(rank, shape, scale=10.0 ** (3 * i), dtype=dtype) for i, rank in enumerate(sizes)]

    got = outcome(updates, grams(len(sizes), shape[1]))

    assert got.dense().isfinite().all()
    assert got.delta.rank <= sum(sizes)
    assert truncate_sum(got.parts, 1).delta.rank == 1


def test_an_adapter_that_lacks_the_module_counts_with_the_mean_of_the_others_inputs(draw):
    updates, seen = [draw(3), draw(5)], grams(2)
    spec = ModuleSpec("m", 24, 40, 5, 1.0)
    adapters = [Adapter(str(at), "peft", {"m": spec}, lambda _, at=at: updates[at]) for at in range(2)]
    adapters.append(Adapter("2", "peft", {"other": spec}, lambda _: updates[1]))
    measured = [
        Statistics(str(at), {("grams", "m"): (40, 40)}, partial(lambda at, *_: seen[at], at)) for at in range(2)
    ]
    measured.append(Statistics("2", {("grams", "other"): (40, 40)}, lambda *_: seen[0]))
    setting = Setting("local-tsv", {}, (1.0,) * 3, ranks.parse("sum"))

    made = plan(adapters, Request(setting), statistics=measured, workers=1)
    done = {found.module: found.delta for found in run(made, Inputs(adapters, measured))}

    third = dead(draw(1))
    want = merged([*updates, third], [*seen, sum(seen) / 2])
    torch.testing.assert_close(done["m"].dense().double(), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("option", ["alpha", "others"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_options_are_shares(option, value):
    with pytest.raises(BadOption, match=f"{option} is {value}, outside"):
        Options(**{option: value})
