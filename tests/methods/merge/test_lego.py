from __future__ import annotations

import itertools
import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file
from spaces import polar, rotation

from loramerge.core.lowrank import LowRank
from loramerge.errors import BadOption
from loramerge.linalg import cluster
from loramerge.linalg.measure import norm, relative_error
from loramerge.linalg.truncate import truncate_sum
from loramerge.linalg.units import pool
from loramerge.methods._method import MERGE, Context
from loramerge.methods.merge.lego import METHOD, PRESETS, Options, lego

FEATURES, GAUGES = ("raw", "normalized", "product"), ("raw", "balanced", "signed")
ALL = 10**6


def merge(updates, *, weights=None, seed=0, module="layer.0", **options):
    weights = tuple(weights or (1.0,) * len(updates))
    return lego(updates, Options(**options), Context(module, weights, seed))


def update(*units, scale=1.0):
    """An update of units (b, a)."""
    b, a = (torch.tensor(half, dtype=torch.float64) for half in zip(*units, strict=True))
    return LowRank(b=b.T, a=a, scale=scale)


def shuffled(delta, seed=0, *, signs=False, lengths=False):
    """The same update with its units in another order, turned over and stretched at random."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(delta.rank, generator=generator)
    factor = torch.ones(delta.rank).to(delta.a)
    if signs:
        factor = factor * (torch.randint(0, 2, (delta.rank,), generator=generator) * 2 - 1)
    if lengths:
        factor = factor * torch.exp(torch.randn(delta.rank, generator=generator)).to(factor)
    return LowRank(b=(delta.b * factor)[:, order], a=(delta.a / factor[:, None])[order], scale=delta.scale)


@pytest.fixture
def trained(shared):
    """trained(module) -> the updates of one module of five adapters that were really trained."""
    folders = [
        shared / "data/trained" / f"minilm-{task}-r8" for task in ("sst2", "subj", "trec", "sms-spam", "tweet-irony")
    ]
    files = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    assert all(json.loads((folder / "adapter_config.json").read_text())["lora_alpha"] == 16 for folder in folders)

    def load(layer, name="query"):
        key = f"base_model.model.bert.encoder.layer.{layer}.attention.self.{name}.lora_"
        return [LowRank(b=file[f"{key}B.weight"], a=file[f"{key}A.weight"], scale=2.0) for file in files]

    return load


# Two units that belong together and one apart, in two adapters of ranks 2 and 1: r is 1.5.
PAIR = [update(([2.0], [4.0, 0.0]), ([3.0], [0.0, 3.0])), update(([4.0], [2.0, 0.0]))]


@pytest.mark.parametrize(
    ("reweight", "norm", "want"),
    [
        ("none", "inf", [9.0, 9.0]),  # the mean of the pair is (b, a) = (3, (3, 0))
        ("parameters", "inf", [16.0, 9.0]),  # 3 becomes 4, in both halves
        ("parameters", "2", [10.0, 9.0]),  # √18 becomes √20
        ("output", "inf", [9.0 * 0.75**0.5, 9.0 * 0.75**0.5]),
        ("both", "inf", [16.0 * 0.75**0.5, 9.0 * 0.75**0.5]),
    ],
)
def test_a_merge_worked_out_by_hand(reweight, norm, want):
    outcome = merge(PAIR, k=2, gauge="raw", reweight=reweight, norm=norm)

    torch.testing.assert_close(outcome.delta.dense(), torch.tensor([want], dtype=torch.float64))
    assert outcome.report["sizes"] == [2, 1]
    assert outcome.report["sources"] == [2, 1]


@pytest.mark.parametrize(("norm", "length"), [("inf", 2.0), ("2", 2.0**0.5)])
def test_a_merge_of_products_worked_out_by_hand(norm, length):
    # The mean of 2·e₁e₁ᵀ and 2·e₁e₂ᵀ is e₁(1, 1)ᵀ; its largest entry is 1 and its length √2, theirs are 2.
    updates = [update(([1.0, 0.0], [2.0, 0.0])), update(([-4.0, 0.0], [0.0, -0.5]))]

    merged = merge(updates, k=1, features="product", norm=norm).delta

    torch.testing.assert_close(merged.dense(), torch.tensor([[length, length], [0.0, 0.0]], dtype=torch.float64))


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("gauge", GAUGES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_all_units_without_reweighting_is_the_sum(draw, features, gauge, dtype):
    updates = [draw(4, scale=2.0, dtype=dtype), draw(9, scale=0.01, dtype=dtype), draw(1, dtype=dtype)]
    weights = (1.0, -0.5, 3.0)
    want = [u.to(dtype=torch.float64).times(w) for u, w in zip(updates, weights, strict=True)]

    for reweight in ("none", "parameters"):
        outcome = merge(updates, weights=weights, k=ALL, reweight=reweight, features=features, gauge=gauge)

        assert relative_error(outcome.delta, want) <= 1e-12
        assert outcome.report["energy"] == pytest.approx(1.0)
        assert outcome.report["explained"] == 1.0


def test_output_reweighting_of_all_units_is_the_sum_times_a_root(draw):
    updates = [draw(4), draw(9), draw(2)]
    root = (5 / 15) ** 0.5

    for reweight in ("output", "both"):
        merged = merge(updates, k=ALL, reweight=reweight).delta

        assert relative_error(merged, [u.times(root) for u in updates]) <= 1e-12


@pytest.mark.parametrize(("ref_rank", "rank"), [("mean", 5.0), ("max", 9.0), ("min", 2.0), (3, 3.0)])
def test_the_reference_rank_is_chosen(draw, ref_rank, rank):
    updates = [draw(4), draw(9), draw(2)]

    merged = merge(updates, k=ALL, reweight="output", ref_rank=ref_rank).delta

    assert relative_error(merged, [u.times((rank / 15) ** 0.5) for u in updates]) <= 1e-12


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("gauge", GAUGES)
@pytest.mark.parametrize("reweight", ["both", "none"])
def test_permuted_copies_of_an_adapter_give_it_back(draw, features, gauge, reweight):
    one = draw(7, scale=0.5, dtype=torch.float32)
    copies = [shuffled(one, seed) for seed in range(4)]

    outcome = merge(copies, k=7, features=features, gauge=gauge, reweight=reweight)

    assert relative_error(outcome.delta, [one]) <= 1e-5
    assert outcome.report["sources"] == [4] * 7
    assert outcome.report["mixing"] == pytest.approx(1.0)


@pytest.mark.parametrize("options", [{"gauge": "signed"}, {"features": "product"}], ids=str)
def test_copies_turned_over_and_stretched_give_the_adapter_back(draw, options):
    one = draw(7, scale=0.5, dtype=torch.float32)
    copies = [shuffled(one, seed, signs=True, lengths=True) for seed in range(4)]

    assert relative_error(merge(copies, k=7, **options).delta, [one]) <= 1e-5


def test_copies_of_a_trained_adapter_give_it_back(trained):
    for layer in (0, 5):
        one = trained(layer)[0]
        copies = [shuffled(one, seed, signs=True, lengths=True) for seed in range(3)]

        assert relative_error(merge(copies, k=8, gauge="signed").delta, [one]) <= 1e-5


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("gauge", GAUGES)
def test_the_order_of_adapters_and_of_units_does_not_matter(draw, features, gauge):
    updates = [draw(5, scale=2.0), draw(9), draw(3, scale=0.1)]
    others = [shuffled(u, seed) for seed, u in enumerate(updates)][::-1]

    one = merge(updates, k=6, features=features, gauge=gauge)
    other = merge(others, k=6, features=features, gauge=gauge)

    assert torch.equal(one.delta.b, other.delta.b)
    assert torch.equal(one.delta.a, other.delta.a)
    assert one.report["sizes"] == other.report["sizes"]


def test_signs_and_lengths_of_units_do_not_matter_when_signed(draw):
    updates = [draw(5, scale=2.0), draw(9), draw(3, scale=0.1)]
    others = [shuffled(u, seed, signs=True, lengths=True) for seed, u in enumerate(updates)]

    one, other = merge(updates, k=6, gauge="signed").delta, merge(others, k=6, gauge="signed").delta

    assert relative_error(other, [one]) <= 1e-9


def test_signs_alone_do_not_matter_to_products(draw):
    updates = [draw(5, scale=2.0), draw(9), draw(3, scale=0.1)]
    others = [shuffled(u, seed, signs=True) for seed, u in enumerate(updates)]
    options = {"k": 6, "gauge": "raw", "features": "product"}

    assert relative_error(merge(others, **options).delta, [merge(updates, **options).delta]) <= 1e-9


def test_a_unit_and_its_mirror_image_cancel_only_as_they_are_stored():
    updates = [update(([1.0], [1.0, 2.0])), update(([-1.0], [-1.0, -2.0]))]

    raw, signed = merge(updates, k=1, gauge="raw"), merge(updates, k=1, gauge="signed")

    assert raw.report["cancelled"] == 1
    assert not raw.delta.dense().any()
    assert signed.report["cancelled"] == 0
    torch.testing.assert_close(signed.delta.dense(), updates[0].dense())


def test_twice_the_alpha_is_twice_the_update(draw):
    updates = [draw(5), draw(9), draw(3)]

    once = merge(updates, k=6).delta
    twice = merge([u.times(2.0) for u in updates], k=6).delta

    assert relative_error(twice, [once.times(2.0)]) <= 1e-12


def test_unequal_ranks_give_k_balanced_units(draw):
    merged = merge([draw(1), draw(33), draw(8)], k=12).delta

    assert merged.rank == 12
    assert merged.shape == (24, 40)
    torch.testing.assert_close(merged.a.norm(dim=1), merged.b.norm(dim=0))


def test_the_same_seed_gives_the_same_bytes(trained):
    for features in FEATURES:
        one, two = (merge(trained(2), k=8, features=features, seed=3).delta for _ in range(2))

        assert torch.equal(one.b, two.b)
        assert torch.equal(one.a, two.a)


def test_the_largest_norm_is_never_shortened_by_reweighting(trained):
    none = merge(trained(1), k=8, reweight="none").delta
    restored = merge(trained(1), k=8, reweight="parameters").delta

    assert norm(restored) > norm(none)


def test_dead_units_are_dropped_and_counted(draw):
    one, other = draw(6), draw(4)
    one.b[:, :2] = 0
    other.a[1] = 0
    living = [LowRank(b=one.b[:, 2:], a=one.a[2:]), LowRank(b=other.b[:, [0, 2, 3]], a=other.a[[0, 2, 3]])]

    outcome, without = merge([one, other], k=3), merge(living, k=3)

    assert outcome.report["dead"] == 3
    assert outcome.report["units"] == 7
    assert torch.equal(outcome.delta.b, without.delta.b)


def test_nothing_but_dead_units_is_zero(draw):
    outcome = merge([draw(3).times(0.0), draw(2)], weights=(1.0, 0.0), k=2)

    assert not outcome.delta.dense().any()
    assert outcome.report == {"units": 0, "dead": 5, "k": 0}


def test_one_adapter_is_pruned(draw):
    b = torch.linalg.qr(draw(6).b).Q * torch.tensor([9.0, 8.0, 7.0, 0.2, 0.1, 0.1], dtype=torch.float64)
    one = LowRank(b=b, a=torch.linalg.qr(draw(6).a.T).Q.T)

    outcome = merge([one], k=4, reweight="none")

    assert outcome.delta.rank == 4
    assert relative_error(outcome.delta, [one]) <= 0.05
    assert outcome.report["mixing"] == 0.0


def test_one_unit_is_the_product_of_the_means(draw):
    updates = [draw(3), draw(4)]
    units = pool(updates)

    merged = merge(updates, k=1, gauge="raw", reweight="none").delta

    torch.testing.assert_close(merged.dense(), torch.outer(units.b.mean(0), units.a.mean(0)))


def test_the_centroid_of_products_is_the_best_of_rank_one(draw):
    updates = [draw(3), draw(4)]
    mean = sum(u.dense() for u in updates) / 7
    left, values, right = torch.linalg.svd(mean)

    merged = merge(updates, k=1, features="product", reweight="none").delta

    torch.testing.assert_close(merged.dense(), values[0] * torch.outer(left[:, 0], right[0]))


def test_a_module_of_few_units_keeps_them_and_says_so(draw):
    updates = [draw(2), draw(3)]

    outcome = merge(updates, k=8, reweight="output")

    assert outcome.report["all_kept"]
    assert outcome.report["k"] == outcome.delta.rank == 5
    assert relative_error(outcome.delta, [u.times(0.5**0.5) for u in updates]) <= 1e-12  # √(2.5 / 5)


def test_copies_are_counted_once(draw):
    one = draw(3)

    outcome = merge([one, one, one], k=5, reweight="none")

    assert outcome.report["k"] == 3
    assert relative_error(outcome.delta, [one]) <= 1e-12


def test_a_negative_weight_subtracts(draw):
    x, y = draw(3), draw(4)

    merged = merge([x, y], weights=(1.0, -2.0), k=ALL, reweight="none").delta

    torch.testing.assert_close(merged.dense(), x.dense() - 2.0 * y.dense())


def test_biases_are_weighted_with_their_scales(draw):
    x, y = draw(3, bias=True, scale=2.0), draw(4, bias=True)

    for updates in ([x, y], [x.times(0.0), y.times(0.0)]):
        want = sum(w * u.scale * u.bias for w, u in zip((0.5, -1.0), updates, strict=True))

        torch.testing.assert_close(merge(updates, weights=(0.5, -1.0), k=2).delta.bias, want)


def test_the_report_tells_how_units_were_grouped(trained):
    report = merge(trained(3), k=8).report

    assert json.loads(json.dumps(report)) == report
    assert sum(report["sizes"]) == report["units"] == 40
    assert report["sizes"] == sorted(report["sizes"], reverse=True)
    assert all(1 <= n <= min(5, size) for n, size in zip(report["sources"], report["sizes"], strict=True))
    assert 0 < report["mixing"] < 1
    assert 0 < report["explained"] < 1
    assert 0 < report["energy"] < 1


def test_clusters_of_one_adapter_each_are_not_mixed():
    updates = [
        update(([1.0, 0.0], [9.0, 0.0]), ([1.0, 0.0], [8.0, 0.0])),
        update(([0.0, 1.0], [0.0, 9.0]), ([0.0, 1.0], [0.0, 8.0])),
    ]

    assert merge(updates, k=2).report["mixing"] == 0.0
    assert merge(updates, k=2).report["sources"] == [1, 1]


@pytest.mark.parametrize("features", FEATURES)
def test_too_many_units_for_a_gram_matrix_are_clustered_in_batches(draw, monkeypatch, features):
    one = draw(6)
    copies = [shuffled(one, seed) for seed in range(50)]
    monkeypatch.setattr(cluster, "GRAM_LIMIT", 100)

    outcome = merge(copies, k=6, features=features)

    assert outcome.report["sizes"] == [50] * 6
    assert relative_error(outcome.delta, [one]) <= 1e-6


@pytest.mark.parametrize("bad", [{"k": 0}, {"k": -3}, {"n_init": 0}, {"ref_rank": 0}], ids=str)
def test_less_than_one_is_refused(bad):
    with pytest.raises(BadOption, match="below 1"):
        Options(**bad)


def test_a_k_above_the_units_of_every_module_is_refused():
    with pytest.raises(BadOption, match="no module has more than 20 units") as refusal:
        METHOD.check([Options(k=21), Options(k=30)], [[8, 4], [8, 8, 4]])

    assert "--k 20" in refusal.value.hint
    assert METHOD.check([Options(k=99), Options(k=20)], [[8, 4], [8, 8, 4]]) is None


def test_a_planner_knows_the_rank():
    assert METHOD.bound(Options(k=8), [4, 16]) == 8
    assert METHOD.bound(Options(k=8), [4, 2]) == 6
    assert METHOD.label(Options(k=8)) == "8"


def test_the_papers_preset_sets_every_option_but_k():
    assert set(PRESETS["paper"]) == set(asdict(Options())) - {"k"}
    assert Options(**PRESETS["paper"]) == Options(
        features="raw", gauge="raw", norm="inf", reweight="both", ref_rank="mean", n_init=10
    )
    assert METHOD.presets is PRESETS


def test_every_variant_runs_on_trained_adapters(trained):
    updates = trained(4, "value")

    for features, gauge, norm_ in itertools.product(FEATURES, GAUGES, ("inf", "2")):
        outcome = merge(updates, k=8, features=features, gauge=gauge, norm=norm_)

        assert outcome.delta.rank == 8
        assert 0.2 < norm(outcome.delta) / max(norm(u) for u in updates) < 5


@pytest.mark.parametrize("balance", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("reweight", ["both", "parameters", "output", "none"])
def test_selected_units_are_the_dense_formula(draw, reweight, balance):
    updates, weights, k = [draw(3), draw(6, scale=20.0), draw(5, scale=0.1)], (1.0, -0.5, 2.0), 6
    tasks = [torch.linalg.svd(w * x.dense(), full_matrices=False) for x, w in zip(updates, weights, strict=True)]
    ranks = [x.rank for x in updates]
    s = torch.cat([task.S[:r] for task, r in zip(tasks, ranks, strict=True)])
    u = polar(torch.cat([task.U[:, :r] for task, r in zip(tasks, ranks, strict=True)], dim=1))
    v = polar(torch.cat([task.Vh[:r].T for task, r in zip(tasks, ranks, strict=True)], dim=1))
    sizes = torch.cat([x.dense().norm().expand(x.rank) for x in updates])
    best = (s / sizes**balance).argsort(descending=True)[:k]
    factor = s.norm() / s[best].norm() if reweight in ("both", "parameters") else 1.0
    factor = factor * (14 / 3 / 14) ** 0.5 if reweight in ("both", "output") else factor

    outcome = merge(updates, weights=weights, k=k, units="selected", reweight=reweight, balance=balance)

    torch.testing.assert_close(outcome.delta.dense(), factor * (u[:, best] * s[best]) @ v[:, best].T)
    owners = torch.repeat_interleave(torch.arange(3), torch.tensor(ranks))
    assert outcome.report["kept"] == owners[best].bincount(minlength=3).tolist()


def test_without_balance_selected_units_are_tsv_cut(trained):
    updates = trained(3)
    turned = MERGE["tsv"].apply(updates, MERGE["tsv"].options(), Context("layer.0", (1.0,) * 5)).delta

    got = merge(updates, k=8, units="selected", balance=0.0, reweight="none").delta

    assert relative_error(got, [truncate_sum([turned], 8).delta]) <= 1e-9


def test_the_balance_decides_between_large_units_and_small_adapters():
    # Shares at balance 1: 0.6 and 0.8 of the large adapter, 1 of the small one.
    large, small = (
        update(([3.0, 0.0, 0.0], [2.0, 0.0]), ([0.0, 4.0, 0.0], [0.0, 2.0])),
        update(([0.0, 0.0, 1.0], [1.0, 0.0])),
    )
    options = {"k": 1, "units": "selected", "reweight": "none"}

    large_first, small_first = (
        merge([large, small], balance=0.0, **options),
        merge([large, small], balance=1.0, **options),
    )

    assert large_first.report["kept"] == [1, 0]
    assert small_first.report["kept"] == [0, 1]
    assert merge([large, small], weights=(1.0, 0.1), balance=1.0, **options).report["kept"] == [1, 0]


@pytest.mark.parametrize("reweight", ["parameters", "none"])
def test_copies_give_the_adapter_back_when_selected(draw, reweight):
    one = draw(7, scale=0.5, dtype=torch.float32)
    copies = [shuffled(one, seed, signs=True, lengths=True) for seed in range(3)]

    outcome = merge(copies, k=7, units="selected", reweight=reweight)

    assert relative_error(outcome.delta, [one]) <= 1e-5
    assert outcome.delta.rank == merge(copies, k=9, units="selected").delta.rank == 7


def test_selected_units_do_not_depend_on_how_updates_are_written_down(trained):
    updates = trained(2)
    turn = rotation(8)
    turned = [LowRank(b=x.b.double() @ turn, a=turn.T @ x.a.double(), scale=x.scale) for x in updates]
    options = {"k": 8, "units": "selected"}

    assert relative_error(merge(turned[::-1], **options).delta, [merge(updates, **options).delta]) <= 1e-6


def test_selected_units_keep_the_length_of_all(trained):
    updates, options = trained(1), {"units": "selected", "balance": 0.0}
    whole = norm(merge(updates, k=40, reweight="none", **options).delta)

    assert norm(merge(updates, k=8, reweight="none", **options).delta) < 0.99 * whole
    assert norm(merge(updates, k=8, reweight="parameters", **options).delta) == pytest.approx(whole)
    assert norm(merge(updates, k=8, **options).delta) == pytest.approx(whole * 0.2**0.5)


def test_the_report_tells_whose_units_were_selected(trained):
    outcome = merge(trained(3), k=8, units="selected")

    assert json.loads(json.dumps(outcome.report)) == outcome.report
    assert outcome.report["units"] == 40
    assert sum(outcome.report["kept"]) == outcome.report["k"] == outcome.delta.rank == 8
    assert min(outcome.report["kept"]) > 0
    assert 0.5 < outcome.report["energy"] < 1
    torch.testing.assert_close(outcome.delta.a.norm(dim=1), outcome.delta.b.norm(dim=0))


def test_dead_updates_are_not_selected(draw):
    one, bias = draw(4), draw(2, bias=True)

    outcome = merge([one, bias.times(0.0), draw(3)], weights=(1.0, 1.0, 0.0), k=9, units="selected")
    nothing = merge([bias.times(0.0), one], weights=(1.0, 0.0), k=2, units="selected")

    assert relative_error(outcome.delta, [one]) <= 1e-12
    assert (outcome.report["units"], outcome.report["dead"], outcome.report["kept"]) == (4, 5, [4, 0, 0])
    assert not nothing.delta.dense().any()
    assert nothing.report == {"units": 0, "dead": 6, "k": 0}


@pytest.mark.parametrize("balance", [-0.1, 1.5, float("nan")])
def test_a_balance_outside_zero_and_one_is_refused(balance):
    with pytest.raises(BadOption, match="outside"):
        Options(balance=balance)


# With all units and nothing reweighted LEGO is the sum.
_ALL = {"k": 10**6, "reweight": "none"}
VARIANTS = [
    (_ALL, {"idempotence"}),
    ({**_ALL, "features": "product"}, {"idempotence"}),
    ({"k": 5, "features": "product"}, METHOD.breaks),
    ({"k": 5, "gauge": "raw", "features": "normalized"}, METHOD.breaks),
    ({**_ALL, "units": "selected"}, {"linearity"}),
    ({"k": 5, "units": "selected"}, set(METHOD.breaks) - {"gauge"}),
    ({"k": 5, "units": "selected", "balance": 0.0}, set(METHOD.breaks) - {"gauge"}),
]
