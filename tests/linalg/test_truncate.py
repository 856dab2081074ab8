from __future__ import annotations

import json
import weakref

import pytest
import torch
from safetensors.torch import load_file

from loramerge.core.lowrank import LowRank
from loramerge.core.updates import Updates
from loramerge.errors import ShapeMismatch
from loramerge.linalg.ranks import parse
from loramerge.linalg.truncate import GRAM_LIMIT, decompose, truncate_sum

# (shape, ranks, rank asked for): each way to decompose, both ways round.
CASES = [
    pytest.param((90, 130), (8, 4, 16), 5, id="gram"),
    pytest.param((130, 90), (8, 4, 16), 20, id="gram, tall"),
    pytest.param((20, 70), (16, 16), 7, id="dense"),
    pytest.param((70, 20), (16, 16), 7, id="dense, tall"),
    pytest.param((GRAM_LIMIT + 90, GRAM_LIMIT + 60), (GRAM_LIMIT // 2,) * 2 + (33,), 40, id="qr"),
    pytest.param((1, 30), (4,), 1, id="one row"),
    pytest.param((6, 27), (1, 3), 2, id="convolution"),
]


def dense(deltas):
    return sum(delta.to(dtype=torch.float64).dense() for delta in deltas)


def as_arrays(deltas):
    """The same updates in numpy's arrays."""
    return [LowRank(d.b.numpy(), d.a.numpy(), d.scale, bias=None if d.bias is None else d.bias.numpy()) for d in deltas]


def error(delta, want):
    return float((delta.dense() - want).norm() / want.norm())


@pytest.fixture
def sums(draw):
    """sums(shape, ranks) -> updates whose scales span six orders of magnitude."""

    def make(shape, ranks, dtype=torch.float64):
        return [draw(r, shape, scale=(-1.0) ** i * 10.0 ** (i - 1), dtype=dtype) for i, r in enumerate(ranks)]

    return make


@pytest.mark.parametrize(("shape", "ranks", "rank"), CASES)
def test_truncation_is_the_best_of_its_rank(sums, shape, ranks, rank):
    deltas = sums(shape, ranks)
    s = torch.linalg.svdvals(dense(deltas))
    best = float(s[rank:].norm() / s.norm())

    cut = truncate_sum(deltas, rank)

    assert cut.delta.rank == min(rank, *shape)
    assert error(cut.delta, dense(deltas)) == pytest.approx(best, rel=1e-9, abs=1e-12)
    assert cut.relative_error == pytest.approx(best, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(("shape", "ranks", "rank"), CASES)
def test_the_spectrum_is_that_of_the_dense_sum(sums, shape, ranks, rank):
    deltas = sums(shape, ranks)
    want = torch.linalg.svdvals(dense(deltas))

    spectrum = torch.tensor(truncate_sum(deltas, parse("energy:0.5")).spectrum, dtype=torch.float64)

    torch.testing.assert_close(spectrum, want[: len(spectrum)], rtol=1e-7, atol=2e-8 * float(want[0]))
    assert float(want[len(spectrum) :].norm()) <= 1e-6 * float(want.norm())


@pytest.mark.parametrize(("shape", "ranks", "rank"), CASES)
def test_all_directions_together_are_the_sum(sums, shape, ranks, rank):
    deltas = sums(shape, ranks, torch.float32)
    found = decompose(deltas)

    whole = found.keep(len(found.s))

    assert error(whole, dense(deltas)) <= 1e-7


def test_real_adapters_survive_full_rank(shared):
    folders = [shared / "data/trained" / f"minilm-{task}-r8" for task in ("sst2", "subj", "trec", "sms-spam")]
    files = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    assert all(json.loads((folder / "adapter_config.json").read_text())["lora_alpha"] == 16 for folder in folders)

    for key in (key for key in files[0] if key.endswith("lora_A.weight")):
        deltas = [LowRank(file[key.replace("lora_A", "lora_B")], file[key], scale=2.0) for file in files]
        found = decompose(deltas)

        assert error(found.keep(len(found.s)), dense(deltas)) <= 1e-6


def test_factors_are_kept_where_the_rank_is_no_smaller(draw):
    deltas = [draw(3), draw(2)]

    cut = truncate_sum(deltas, parse("sum"))

    assert cut.relative_error == 0.0
    assert torch.equal(cut.delta.b, torch.cat([d.b for d in deltas], dim=1))
    assert torch.equal(cut.delta.a, torch.cat([d.a for d in deltas]))


def test_the_widest_input_sets_the_default_rank(draw):
    whole = LowRank(b=draw(12).b, a=draw(12).a)

    assert truncate_sum([draw(8), draw(4)], parse("max")).delta.rank == 8
    assert truncate_sum([whole], parse("max"), ranks=[5, 7]).delta.rank == 7


def test_singular_values_are_shared_equally(draw):
    cut = truncate_sum([draw(9, scale=3.0)], 4).delta

    torch.testing.assert_close(cut.b.norm(dim=0), cut.a.norm(dim=1))
    torch.testing.assert_close(cut.b.T @ cut.b, torch.diag(torch.diag(cut.b.T @ cut.b)), atol=1e-9, rtol=0)


def test_the_largest_entry_of_each_left_vector_is_positive(draw):
    b = truncate_sum([draw(9)], 6).delta.b

    assert (b.gather(0, b.abs().argmax(0, keepdim=True)) > 0).all()


def test_the_same_inputs_give_the_same_bytes(draw):
    deltas = [draw(9), draw(20)]

    one, two = truncate_sum(deltas, 4).delta, truncate_sum(deltas, 4).delta

    assert torch.equal(one.b, two.b)
    assert torch.equal(one.a, two.a)


def test_directions_that_are_not_there_are_not_made_up(draw):
    update = draw(3)

    cut = truncate_sum([update, update, update], 8)

    assert cut.delta.rank == 3
    assert error(cut.delta, 3 * update.dense()) <= 1e-12


def test_units_of_very_different_lengths_lose_nothing(draw):
    update = draw(6)
    lengths = torch.tensor([1e-12, 1e-6, 1.0, 1e6, 1e12, 1.0], dtype=torch.float64)
    stretched = LowRank(b=update.b * lengths, a=update.a / lengths[:, None])

    cut = truncate_sum([stretched, draw(6, scale=0.0)], 6).delta

    assert error(cut, update.dense()) <= 1e-12


@pytest.mark.parametrize("shape", [(90, 130), (130, 90)])
def test_what_is_left_where_updates_cancel_is_truncated_right(draw, shape):
    x, left = draw(8, shape), draw(3, shape, scale=1e-12)
    s = torch.linalg.svdvals(left.dense())

    found = truncate_sum([x, left, x.times(-1.0)], 2)

    assert error(found.delta, left.dense()) == pytest.approx(float(s[2] / s.norm()), rel=1e-3)
    assert found.relative_error == pytest.approx(float(s[2] / s.norm()), rel=1e-3)
    torch.testing.assert_close(torch.tensor(found.spectrum, dtype=s.dtype), s[:3], rtol=1e-3, atol=0)


def test_a_sum_of_zero_has_one_unit_of_zeros(draw):
    update = draw(4)

    cut = truncate_sum([update, update.times(-1.0)], 4)

    assert cut.delta.rank == 1
    assert not cut.delta.dense().any()
    assert cut.relative_error == 0.0


def test_biases_are_added(draw):
    x, y, z = draw(4, scale=2.0, bias=True), draw(4), draw(4, scale=-0.5, bias=True)

    for rank in (3, 12):
        torch.testing.assert_close(truncate_sum([x, y, z], rank).delta.bias, 2.0 * x.bias - 0.5 * z.bias)


def test_a_middle_factor_is_multiplied_in(draw):
    update = LowRank(b=draw(5).b, a=draw(3).a, mid=torch.arange(15.0, dtype=torch.float64).reshape(5, 3), scale=0.5)

    cut = truncate_sum([update, draw(8, scale=0.0)], 5).delta

    assert error(cut, update.dense()) <= 1e-12


@pytest.mark.parametrize(("shape", "ranks", "rank"), CASES)
def test_arrays_give_what_tensors_give(sums, shape, ranks, rank):
    deltas = sums(shape, ranks)
    for rule in (parse(str(rank)), parse("energy:0.9"), parse("sum")):
        want, found = truncate_sum(deltas, rule), truncate_sum(as_arrays(deltas), rule)

        assert type(found.delta.b).__module__ == "numpy"
        assert found.delta.rank == want.delta.rank
        assert error(want.delta, torch.from_numpy(found.delta.dense())) <= 1e-9
        assert found.relative_error == pytest.approx(want.relative_error, rel=1e-6, abs=1e-8)
        for one, other in zip(
            (found.norms.total, *found.norms.each), (want.norms.total, *want.norms.each), strict=True
        ):
            assert one == (None if other is None else pytest.approx(other, rel=1e-9))


@pytest.mark.parametrize("weights", [(1.0, -1.0), (0.0, 0.0), (1.0, -1.0 + 1e-9)], ids=["cancel", "none", "nearly"])
def test_arrays_that_cancel_are_what_tensors_that_cancel_are(draw, weights):
    update = draw(5, (30, 40), bias=True)
    deltas = [update.times(weight) for weight in weights]

    want, found = truncate_sum(deltas, 3), truncate_sum(as_arrays(deltas), 3)

    assert found.delta.rank == want.delta.rank
    torch.testing.assert_close(torch.from_numpy(found.delta.dense()), want.delta.dense(), rtol=1e-6, atol=1e-14)
    torch.testing.assert_close(torch.from_numpy(found.delta.bias), want.delta.bias)


@pytest.mark.parametrize("rank", ["3", "20", "sum"])
@pytest.mark.parametrize("shape", [(90, 130), (130, 90)], ids=["wide", "tall"])
def test_norms_come_out_of_the_grams(sums, shape, rank):
    deltas = sums(shape, (8, 4, 16))

    cut = truncate_sum(deltas, parse(rank) if rank == "sum" else int(rank))

    assert cut.norms.total == pytest.approx(float(cut.delta.dense().norm()), rel=1e-9)
    assert cut.norms.each == pytest.approx([float(delta.dense().norm()) for delta in deltas], rel=1e-9)


def test_a_norm_that_a_gram_cannot_give_is_left_open(draw):
    x = draw(4, (90, 130))
    nearly = LowRank(b=torch.cat([x.b, -x.b], 1), a=torch.cat([x.a, x.a * (1 + 1e-9)]))

    kept = truncate_sum([x, nearly], parse("sum"))
    alone = truncate_sum([x, x.times(-1.0)], parse("sum"))

    assert kept.norms.each == (pytest.approx(float(x.dense().norm())), None)
    assert alone.norms.total is None


def test_different_shapes_cannot_be_added(draw):
    with pytest.raises(ShapeMismatch):
        truncate_sum([draw(2, (4, 5)), draw(2, (4, 6))], 2)


def test_memory_does_not_grow_with_the_number_of_updates(draw):
    one = draw(4, (8, 9))
    many = [one.times(1 / 500)] * 500

    found = decompose(many)

    assert [factor.shape for factor in found.right] == [(8, 9)]
    assert error(found.keep(4), one.dense()) <= 1e-12


def test_a_sum_of_many_updates_holds_one_beside_the_one_that_is_loaded(draw):
    loaded, alive = [], []

    def load():
        update = draw(4, (8, 9))
        loaded.append(weakref.ref(update.b))
        alive.append(sum(held() is not None for held in loaded))
        return update

    truncate_sum(Updates([load] * 50, [4] * 50, (8, 9)).weighted([1 / 50] * 50), 3)

    assert len(alive) == 50
    assert max(alive) <= 2


@pytest.mark.cuda
@pytest.mark.parametrize(("shape", "ranks", "rank"), CASES)
def test_a_gpu_gives_the_same_update(sums, shape, ranks, rank):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    deltas = sums(shape, ranks)

    cut = truncate_sum([delta.to(device="cuda") for delta in deltas], rank).delta

    assert cut.b.is_cuda
    torch.testing.assert_close(cut.dense().cpu(), truncate_sum(deltas, rank).delta.dense(), rtol=1e-8, atol=1e-8)
