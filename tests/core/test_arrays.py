"""Every function means the same for numpy's arrays and for torch's tensors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from loramerge.core import arrays

NUMBERS = [[1.5, -2.0, 0.0], [-3.0, 2.0, 1e-3], [0.25, -7.0, 65520.0], [3.0, 3.14159, -1.0]]
KINDS = ["F64", "F32", "F16", "BF16"]


def both(rows, dtype="F64"):
    array = np.array(rows)
    return arrays.cast(array, dtype), arrays.cast(torch.from_numpy(array), dtype)


@pytest.mark.parametrize("dtype", KINDS)
def test_numbers_are_rounded_alike_and_come_back_alike(dtype):
    draw = np.random.default_rng(0)
    array, tensor = both(draw.standard_normal((50, 7)) * 10.0 ** draw.integers(-6, 4, (50, 7)), dtype)

    assert bytes(arrays.memory(array)) == bytes(arrays.memory(tensor))
    assert np.array_equal(arrays.exact(array), arrays.exact(tensor).numpy())
    assert arrays.exact(array).dtype == np.float64


def test_what_is_exact_is_not_copied():
    array, tensor = both(NUMBERS)

    assert arrays.exact(array) is array
    assert arrays.exact(tensor) is tensor


def test_what_is_too_large_for_a_type_becomes_infinite_and_is_seen():
    for kind in both(NUMBERS, "F16"):
        assert not arrays.is_finite(kind)
    for kind in both(NUMBERS, "BF16"):
        assert arrays.is_finite(kind)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", KINDS)
def test_one_bad_number_is_seen(dtype, bad):
    for kind in both([*NUMBERS[:2], [1.0, bad, 0.0]], dtype):
        assert not arrays.is_finite(kind)


def test_the_largest_numbers_of_a_type_are_finite_though_their_sum_is_not():
    for kind in both([[3.0e38] * 9], "F32"):
        assert arrays.is_finite(kind)


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 100])
def test_extremes_are_those_of_each_column(rows):
    numbers = np.random.default_rng(rows).standard_normal((rows, 5))

    for kind in both(numbers):
        low, top = arrays.extremes(kind)
        assert low.tolist() == numbers.min(0).tolist()
        assert top.tolist() == numbers.max(0).tolist()


@pytest.mark.parametrize("rows", [3, 256, 600])
def test_products_are_added_in_place(rows):
    draw = np.random.default_rng(0)
    total, left, right = draw.standard_normal((rows, 4)), draw.standard_normal((rows, 2)), draw.standard_normal((2, 4))

    for array, b, a in zip(both(total), both(left), both(right), strict=True):
        copy = array + 0
        arrays.add_product(copy, b, a)
        assert np.allclose(copy, total + left @ right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", KINDS)
def test_an_array_is_a_tensor_of_the_same_numbers_in_the_same_memory(dtype):
    array, tensor = both(NUMBERS, dtype)

    assert arrays.tensor(tensor) is tensor
    assert torch.equal(arrays.tensor(array), tensor)
    assert arrays.tensor(array).data_ptr() == array.ctypes.data


@pytest.mark.parametrize("axis", [0, 1])
def test_lengths_are_euclidean(axis):
    for kind in both(NUMBERS):
        assert arrays.lengths(kind, axis).tolist() == pytest.approx(np.linalg.norm(NUMBERS, axis=axis).tolist())


def test_new_arrays_are_of_the_library_of_the_one_they_go_with():
    array, tensor = both(NUMBERS, "BF16")

    for kind in (array, tensor):
        nothing, some = arrays.zeros((2, 3), kind), arrays.numbers([1.0, 2.0], kind)
        assert arrays.is_tensor(nothing) == arrays.is_tensor(some) == arrays.is_tensor(kind)
        assert nothing.dtype == kind.dtype
        assert nothing.shape == (2, 3)
        assert some.tolist() == [1.0, 2.0]
        assert some.dtype == arrays.namespace(kind).float64


def test_the_memory_of_a_transposed_array_is_in_the_order_of_its_elements():
    array, tensor = both(NUMBERS, "F32")

    for kind in (array.T, tensor.T):
        assert bytes(arrays.memory(kind)) == np.array(NUMBERS, np.float32).T.tobytes()
