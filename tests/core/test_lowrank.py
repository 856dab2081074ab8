from __future__ import annotations

import copy
import pickle

import pytest
import torch

from loramerge.core.lowrank import LowRank, cat
from loramerge.errors import ShapeMismatch

OUT, IN = 7, 5


@pytest.fixture
def gen():
    return torch.Generator().manual_seed(0)


def update(gen, rank=3, *, scale=1.0, mid=None, bias=False, dtype=torch.float64):
    """A random update; `mid` is the rank on a's side where there is a middle factor."""

    def draw(*shape):
        return torch.randn(*shape, generator=gen, dtype=torch.float64).to(dtype)

    return LowRank(
        b=draw(OUT, rank),
        a=draw(mid or rank, IN),
        scale=scale,
        mid=draw(rank, mid) if mid else None,
        bias=draw(OUT) if bias else None,
    )


def dense(delta):
    """ΔW by the definition alone, in float64."""
    factors = [delta.b, delta.mid, delta.a]
    product = torch.eye(OUT, dtype=torch.float64)
    for factor in factors:
        product = product if factor is None else product @ factor.double()
    return product * delta.scale


def assert_close(got, want):
    torch.testing.assert_close(got.double(), want, rtol=1e-12, atol=1e-12)


VARIANTS = [
    {},
    {"scale": 0.25},
    {"scale": -3.0},
    {"scale": 0.0},
    {"mid": 2},
    {"mid": 4, "scale": -0.5},
    {"bias": True, "scale": -2.0},
    {"rank": 9},
]
variants = pytest.mark.parametrize("variant", VARIANTS, ids=str)


def test_dense_is_scale_times_b_times_a():
    b = torch.tensor([[1.0], [2.0]])
    a = torch.tensor([[3.0, 0.0, -1.0]])

    delta = LowRank(b, a, scale=0.5)

    assert delta.dense().tolist() == [[1.5, 0.0, -0.5], [3.0, 0.0, -1.0]]


def test_a_middle_factor_stands_between_b_and_a():
    b, mid, a = torch.eye(2), torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[1.0, 10.0], [100.0, 1000.0]])

    delta = LowRank(b, a, mid=mid)

    assert delta.dense().tolist() == [[100.0, 1000.0], [2.0, 20.0]]


@variants
def test_dense_agrees_with_the_definition(gen, variant):
    delta = update(gen, **variant)

    assert_close(delta.dense(), dense(delta))
    assert delta.shape == (OUT, IN)


@variants
def test_folding_keeps_the_update_and_its_bias(gen, variant):
    delta = update(gen, **variant)

    folded = delta.folded()

    assert (folded.scale, folded.mid) == (1.0, None)
    assert_close(folded.dense(), dense(delta))
    if delta.bias is not None:
        assert_close(folded.bias, delta.bias * delta.scale)


def test_folding_shares_the_scale_and_puts_the_sign_into_b():
    delta = LowRank(torch.tensor([[1.0]]), torch.tensor([[1.0]]), scale=-4.0)

    folded = delta.folded()

    assert (folded.b.item(), folded.a.item()) == (-2.0, 2.0)


def test_folding_what_is_folded_touches_no_tensor(gen):
    delta = update(gen, bias=True)

    assert delta.folded() is delta


@variants
@pytest.mark.parametrize("factor", [1.0, -1.0, 0.3, 0.0])
def test_times_multiplies_update_and_bias_without_touching_the_factors(gen, variant, factor):
    delta = update(gen, **variant)

    scaled = delta.times(factor)

    assert scaled.b is delta.b
    assert scaled.a is delta.a
    assert_close(scaled.dense(), factor * dense(delta))
    if delta.bias is not None:
        assert_close(scaled.folded().bias, factor * delta.scale * delta.bias)


@pytest.mark.parametrize(("rank", "mid"), [(3, 2), (2, 3), (3, 3)])
def test_a_plain_update_has_the_smaller_rank_of_its_middle_factor(gen, rank, mid):
    delta = update(gen, rank, mid=mid, scale=-0.5, bias=True)

    plain = delta.plain()

    assert plain.mid is None
    assert plain.rank == min(rank, mid)
    assert plain.scale == delta.scale
    assert plain.bias is delta.bias
    assert_close(plain.dense(), dense(delta))


def test_a_plain_update_is_left_alone(gen):
    delta = update(gen)

    assert delta.plain() is delta


def test_cat_is_the_sum_with_every_unit_kept(gen):
    deltas = [update(gen, **variant) for variant in VARIANTS]

    total = cat(deltas)

    assert total.rank == sum(delta.plain().rank for delta in deltas)
    assert_close(total.dense(), sum(dense(delta) for delta in deltas))


def test_cat_adds_the_biases_there_are(gen):
    deltas = [update(gen, bias=True, scale=2.0), update(gen), update(gen, bias=True, scale=-1.0)]

    total = cat(deltas)

    assert_close(total.bias, 2.0 * deltas[0].bias - deltas[2].bias)
    assert cat([update(gen), update(gen)]).bias is None


def test_cat_of_one_is_itself(gen):
    delta = update(gen, scale=-0.5)

    assert_close(cat([delta]).dense(), dense(delta))


def test_cat_of_mixed_dtypes_takes_the_widest(gen):
    deltas = [update(gen, bias=True, dtype=torch.float16), update(gen, bias=True, dtype=torch.float32)]

    total = cat(deltas)

    assert {total.b.dtype, total.a.dtype, total.bias.dtype} == {torch.float32}
    torch.testing.assert_close(total.dense().double(), sum(dense(d) for d in deltas), rtol=1e-5, atol=1e-5)


@variants
def test_moving_changes_every_tensor_and_no_number(gen, variant):
    delta = update(gen, dtype=torch.float32, **variant)

    moved = delta.to(dtype=torch.float64, device="cpu")

    tensors = [t for t in (moved.b, moved.a, moved.mid, moved.bias) if t is not None]
    assert {t.dtype for t in tensors} == {torch.float64}
    assert moved.scale == delta.scale
    assert_close(moved.dense(), dense(delta))


def test_rank_zero_is_a_zero_update():
    delta = LowRank(torch.zeros(OUT, 0), torch.zeros(0, IN), scale=2.0)

    assert delta.rank == 0
    assert delta.folded().dense().abs().sum() == 0
    assert cat([delta, delta]).rank == 0


def test_an_update_survives_pickling(gen):
    delta = update(gen, mid=2, scale=-0.5, bias=True)

    for copied in (pickle.loads(pickle.dumps(delta)), copy.deepcopy(delta)):
        assert copied.scale == delta.scale
        assert_close(copied.dense(), dense(delta))
        assert torch.equal(copied.bias, delta.bias)


def test_comparing_updates_is_comparing_identities(gen):
    delta, other = update(gen), update(gen)

    assert delta == delta
    assert delta != other
    assert len({delta, other}) == 2


@pytest.mark.parametrize(
    ("b", "mid", "a"),
    [
        ((7, 3), None, (2, 5)),
        ((7, 3), (3, 2), (3, 5)),
        ((7, 3), (2, 3), (3, 5)),
        ((7,), None, (7, 5)),
        ((7, 3), None, ()),
        ((7, 3, 1), None, (1, 5)),
        ((7, 3), (3,), (3, 5)),
    ],
)
def test_factors_that_do_not_multiply_are_refused(b, mid, a):
    with pytest.raises(ShapeMismatch, match="do not multiply"):
        LowRank(torch.zeros(b), torch.zeros(a), mid=None if mid is None else torch.zeros(mid))


def test_a_bias_of_another_length_is_refused():
    with pytest.raises(ShapeMismatch, match="bias"):
        LowRank(torch.zeros(7, 3), torch.zeros(3, 5), bias=torch.zeros(5))


def test_updates_of_different_shapes_are_not_added(gen):
    other = LowRank(torch.zeros(OUT, 2), torch.zeros(2, IN + 1))

    with pytest.raises(ShapeMismatch, match=r"\(7, 5\) and \(7, 6\)"):
        cat([update(gen), other])
