"""Triton's kernels in its interpreter: run by `test_interpreter.py` in a process of their own."""

from __future__ import annotations

import claims
import pytest
import torch

from loramerge.kernels._triton import shrink
from loramerge.kernels._triton.tiles import Shape, interprets

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def test_this_is_the_interpreter():
    assert interprets(shrink._kernel)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(*claims.SMALL, ids=claims.NAMES)
def test_any_segments_give_what_float64_gives(dtype, ranks, segments, sides):
    assert claims.agrees("cpu", dtype, ranks, segments, sides)


@pytest.mark.parametrize("shape", [Shape(16, 16, 16), Shape(64, 32, 128), Shape(16, 256, 64)], ids=str)
@pytest.mark.parametrize(*(claims.SMALL[0], claims.SMALL[1][:3]), ids=claims.NAMES[:3])
def test_tiles_of_any_sides_give_what_float64_gives(shape, ranks, segments, sides):
    assert claims.agrees("cpu", torch.float32, ranks, segments, sides, shape)
    assert claims.fuses("cpu", torch.float32, ranks, segments, sides, bias=True, shape=shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(*claims.SMALL, ids=claims.NAMES)
def test_base_and_updates_in_one_kernel_give_what_float64_gives(dtype, ranks, segments, sides):
    assert claims.fuses("cpu", dtype, ranks, segments, sides, bias=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_modules_that_read_the_same_rows_share_a_launch(dtype):
    assert claims.shares("cpu", dtype)


@pytest.mark.parametrize("fused", [False, True], ids=["two kernels", "one kernel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sides", [(100, 70), (2500, 24)], ids=str)
def test_a_rows_bits_do_not_depend_on_the_other_rows_of_the_call(dtype, sides, fused):
    assert claims.same_alone("cpu", dtype, sides, fused=fused)


def test_rows_may_lie_apart_and_nothing_else_is_written():
    assert claims.stays_inside("cpu")
