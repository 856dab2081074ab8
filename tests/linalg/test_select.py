from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loramerge.linalg.select import kth_held, kth_magnitudes

WIDTHS = {torch.float32: 32, torch.float64: 64}


@dataclass
class Cut:
    """Numbers (n, rows, in) that pass by `height` rows at a time."""

    numbers: torch.Tensor
    height: int = 1

    @property
    def dtype(self):
        return self.numbers.dtype

    def __iter__(self):
        for start in range(0, self.numbers.shape[1], self.height):
            yield start, self.numbers[:, start : start + self.height]


def sorted_kth(numbers, k):
    return numbers.abs().flatten().sort(descending=True).values[k - 1]


def finite(width):
    """Zeros of both signs, repeated values and subnormal numbers among them."""
    usual = st.floats(width=width, allow_nan=False, allow_infinity=False, allow_subnormal=True)
    return st.one_of(usual, st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5]))


@settings(max_examples=150, deadline=None)
@given(data=st.data(), dtype=st.sampled_from(list(WIDTHS)))
def test_the_kth_magnitude_is_that_of_a_sort(data, dtype):
    n, rows, width, height = (data.draw(st.integers(1, most)) for most in (3, 6, 5, 7))
    size = n * rows * width
    drawn = data.draw(st.lists(finite(WIDTHS[dtype]), min_size=size, max_size=size))
    numbers = torch.tensor(drawn, dtype=dtype).reshape(n, rows, width)
    ks = [data.draw(st.integers(1, rows * width)) for _ in range(n)]

    found = kth_magnitudes(Cut(numbers, height), ks)

    assert found.dtype == dtype
    assert torch.equal(found, torch.stack([sorted_kth(part, k) for part, k in zip(numbers, ks, strict=True)]))


@pytest.mark.parametrize("dtype", WIDTHS)
def test_numbers_that_share_their_leading_bits_are_told_apart(dtype):
    # All in one bucket of the first pass, many in one of the second.
    step = torch.finfo(dtype).eps
    numbers = (1 + step * torch.randint(0, 300, (1, 40, 50), generator=torch.Generator().manual_seed(0))).to(dtype)

    for k in (1, 2, 999, 1000, 1999, 2000):
        assert kth_magnitudes(Cut(numbers, 7), [k]).item() == sorted_kth(numbers, k).item()


@pytest.mark.parametrize("dtype", WIDTHS)
def test_exactly_k_numbers_are_at_least_as_large(dtype):
    numbers = torch.randn(2, 64, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)

    found = kth_magnitudes(Cut(numbers, 10), [640, 6399])

    assert [int((part.abs() >= bound).sum()) for part, bound in zip(numbers, found, strict=True)] == [640, 6399]


@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("k", [1, 7, 30])
def test_of_what_is_in_memory_it_is_the_same(dtype, k):
    numbers = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    numbers[1, 2:] = 0.0

    assert torch.equal(kth_held(numbers, k), kth_magnitudes(Cut(numbers), [k] * 4))


@pytest.mark.parametrize("k", [0, 7])
def test_there_is_no_such_number(k):
    with pytest.raises(ValueError, match=f"no {k}"):
        kth_magnitudes(Cut(torch.ones(1, 2, 3)), [k])
