from __future__ import annotations

import sys

import pytest
import torch
from draws import normal, pack

from loramerge.errors import BadOption, MissingExtra
from loramerge.kernels import dispatch, grouped
from loramerge.kernels.pack import Segments


@pytest.fixture(autouse=True)
def _no_override(monkeypatch):
    monkeypatch.delenv("LORAMERGE_KERNELS", raising=False)
    monkeypatch.delenv("LORAMERGE_FUSED", raising=False)


@pytest.fixture
def _no_triton(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    dispatch.has_triton.cache_clear()
    yield
    dispatch.has_triton.cache_clear()


def test_a_processor_computes_with_torch():
    assert dispatch.backend("cpu", torch.float32, rows=4, rank=8) == "torch"


@pytest.mark.parametrize(
    ("dtype", "rank", "expected"),
    [
        (torch.bfloat16, 16, "triton"),
        (torch.float32, 512, "triton"),
        (torch.float32, 513, "torch"),
        (torch.float64, 16, "torch"),
    ],
)
def test_a_gpu_computes_with_triton_what_triton_is_good_for(dtype, rank, expected):
    pytest.importorskip("triton")

    assert dispatch.backend("cuda", dtype, rows=4, rank=rank) == expected


@pytest.mark.usefixtures("_no_triton")
def test_without_triton_a_gpu_computes_with_torch():
    assert dispatch.backend("cuda", torch.bfloat16, rows=4, rank=16) == "torch"
    with pytest.raises(MissingExtra, match="Triton is not installed"):
        dispatch.backend("cuda", torch.bfloat16, rows=4, rank=16, asked="triton")


def test_the_environment_overrides_the_table_and_an_argument_the_environment(monkeypatch):
    monkeypatch.setenv("LORAMERGE_KERNELS", "reference")

    assert dispatch.backend("cpu", torch.float32, rows=4, rank=8) == "reference"
    assert dispatch.backend("cpu", torch.float32, rows=4, rank=8, asked="torch") == "torch"


def test_an_unknown_backend_is_refused_with_those_there_are(monkeypatch):
    monkeypatch.setenv("LORAMERGE_KERNELS", "cutlass")

    with pytest.raises(BadOption, match="cutlass") as caught:
        grouped.add_(torch.zeros(2, 24), normal(2, 40).float(), pack([3]), Segments.equal([0], [1.0], 2))
    assert "torch, triton, reference" in caught.value.hint


def test_one_kernel_for_base_and_updates_is_off_where_nobody_measured_it():
    assert not dispatch.fuses("NVIDIA H100 80GB HBM3", torch.bfloat16, rows=4096, rank=16)


def test_one_kernel_for_base_and_updates_is_for_who_asks(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("LORAMERGE_FUSED", "1")

    assert dispatch.fuses("NVIDIA A100", torch.float32, rows=4, rank=16)
    assert not dispatch.fuses("NVIDIA A100", torch.float32, rows=4, rank=0)
    assert not dispatch.fuses("NVIDIA A100", torch.float32, rows=4, rank=16, asked=False)


def test_triton_is_refused_where_it_cannot_compute(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    with pytest.raises(BadOption, match="on GPUs"):
        dispatch.backend("cpu", torch.float32, rows=4, rank=8, asked="triton")
    with pytest.raises(BadOption, match="float64"):
        dispatch.backend("cuda", torch.float64, rows=4, rank=8, asked="triton")
    with pytest.raises(BadOption, match="on GPUs"):
        dispatch.fuses("cpu", torch.float32, rows=4, rank=8, asked=True)
