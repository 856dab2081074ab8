from __future__ import annotations

import pytest
import torch
from draws import normal, pack

from loramerge.errors import ShapeMismatch
from loramerge.kernels import combined, grouped
from loramerge.kernels.pack import Pack, Segments


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("candidates", "length"), [(1, 1), (3, 5), (40, 2)])
def test_coefficients_give_what_float64_gives(dtype, candidates, length):
    packed = pack([4, 9, 1], 37, 61, dtype=dtype)
    x, y = normal(candidates * length, 37, seed=3, dtype=dtype), normal(candidates * length, 61, seed=4, dtype=dtype)
    c = normal(candidates, 14, seed=5, dtype=torch.float32)
    units = Pack(packed.a.double(), packed.b.double(), packed.starts)
    exact = y.double() + combined.reference(x.double(), units, c.double())
    # As `draws.bound` has it: sums of 37 and 14 terms, four roundings of what lies between, one of the result.
    squares = Pack(units.a**2, units.b**2, units.starts)
    s = combined.reference(x.double() ** 2, squares, c.double() ** 2).sqrt()
    u, e = (torch.finfo(d).eps / 2 for d in (torch.promote_types(dtype, torch.float32), dtype))

    got = combined.add_(y, x, packed, c)

    assert got is y
    assert ((got.double() - exact).abs() <= 8 * ((37 + 14) * u**2 + 4 * e**2) ** 0.5 * s + e * exact.abs()).all()


def test_coefficients_over_the_units_are_sums_of_updates():
    packed = pack([4, 9])
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5], [-1.0, 2.0]], dtype=torch.float64)
    x = normal(6, 40)
    c = weights.repeat_interleave(torch.tensor([4, 9]), dim=1)
    parts = [grouped.reference(x, packed, Segments.equal([i], [1.0], 6)) for i in range(2)]
    expected = torch.stack(parts, dim=2) @ weights.repeat_interleave(2, dim=0)[..., None]

    y = combined.add_(x.new_zeros(6, 24), x, packed, c)

    assert torch.allclose(y, expected[..., 0], rtol=1e-12, atol=1e-12)


def test_units_of_rank_zero_add_nothing():
    y = combined.add_(torch.ones(4, 24), torch.ones(4, 40), pack([0], dtype=torch.float32), torch.ones(2, 0))

    assert torch.equal(y, torch.ones(4, 24))


@pytest.mark.parametrize(("t", "candidates", "units"), [(5, 2, 3), (4, 2, 4), (4, 0, 3)])
def test_what_does_not_go_together_is_refused(t, candidates, units):
    with pytest.raises(ShapeMismatch):
        combined.add_(torch.zeros(t, 24), torch.zeros(t, 40), pack([3]), torch.ones(candidates, units))


def test_what_leaves_the_type_is_of_the_candidates_that_use_it_alone():
    packed = pack([1, 1], dtype=torch.float32)
    packed.a[0].fill_(1e30)
    x = torch.full((2, 40), 1e10)

    y = combined.add_(x.new_zeros(2, 24), x, packed, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))

    assert not y[0].isfinite().any()
    assert y[1].isfinite().all()
