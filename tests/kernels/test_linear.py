from __future__ import annotations

import pytest
import torch
from draws import mixed, normal, pack

from loramerge.kernels import linear


@pytest.mark.parametrize("bias", [None, normal(24, seed=8)], ids=["no bias", "bias"])
def test_a_layer_and_its_updates_are_the_sum_of_both(bias):
    packed, segments, weight = pack([4, 0, 9]), mixed([3, 0, 6, 2, 5], 3), normal(24, 40, seed=7)
    x = normal(segments.rows, 40)

    y = linear.linear(x, weight, bias, packed, segments)

    assert torch.allclose(y, linear.reference(x, weight, bias, packed, segments), rtol=1e-12, atol=1e-12)
