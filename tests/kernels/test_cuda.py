"""What the kernels promise, on a GPU."""

from __future__ import annotations

import pytest
import torch
from draws import bound, normal, pack, rows, wide

from loramerge.kernels import grouped
from loramerge.kernels.pack import Segments

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"),
]
claims = pytest.importorskip("claims", reason="Triton is not installed", exc_type=ImportError)
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(*claims.SMALL, ids=claims.NAMES)
def test_any_segments_give_what_float64_gives(dtype, ranks, segments, sides):
    assert claims.agrees("cuda", dtype, ranks, segments, sides)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize(*claims.SMALL, ids=claims.NAMES)
def test_base_and_updates_in_one_kernel_give_what_float64_gives(dtype, ranks, segments, sides, bias):
    assert claims.fuses("cuda", dtype, ranks, segments, sides, bias=bias)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sides_of_real_models_give_what_float64_gives(dtype):
    case = [16, 64, 8, 0], Segments((0, 700, 900, 901, 2048), (1, 0, 2, 3), (1.0, 2.0, 0.5, 1.0)), (4096, 14336)

    assert claims.agrees("cuda", dtype, *case)
    assert claims.fuses("cuda", dtype, *case, bias=False)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_modules_that_read_the_same_rows_share_a_launch(dtype):
    assert claims.shares("cuda", dtype)


@pytest.mark.parametrize("fused", [False, True], ids=["two kernels", "one kernel"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sides", [(100, 70), (2500, 24), (4096, 4096)], ids=str)
def test_a_rows_bits_do_not_depend_on_the_other_rows_of_the_call(dtype, sides, fused):
    assert claims.same_alone("cuda", dtype, sides, fused=fused)


def test_rows_may_lie_apart_and_nothing_else_is_written():
    assert claims.stays_inside("cuda")


def test_rows_may_lie_further_apart_than_32_bits_count():
    packed = claims.placed(pack([8], 64, 48, dtype=torch.float16), "cuda")
    x = torch.empty(2**31 + 64, dtype=torch.float16, device="cuda").as_strided((3, 64), (2**30, 1))
    x.copy_(normal(3, 64))
    segments = Segments.equal([0], [1.0], 3)
    exact = grouped.reference(x.double(), wide(packed), segments)

    y = grouped.add_(x.new_zeros(3, 48), x, packed, segments, backend="triton")

    assert ((y.double() - exact).abs() <= bound(exact, x, packed, segments)).all()


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
def test_torch_gives_the_same_there(dtype):
    packed, segments = pack([8, 8, 3], 96, 64, dtype=dtype), Segments.equal([0, 1, 2], [1.0] * 3, 9)
    packed = claims.placed(packed, "cuda")
    x, y = (t.cuda() for t in rows(segments, 96, 64, dtype=dtype))
    exact = y.double() + grouped.reference(x.double(), wide(packed), segments)

    got = grouped.add_(y.clone(), x, packed, segments, backend="torch")

    assert ((got.double() - exact).abs() <= bound(exact, x, packed, segments)).all()
