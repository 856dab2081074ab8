from __future__ import annotations

import torch

from loramerge.linalg.truncate import truncate_sum
from loramerge.methods._grains import apply
from loramerge.methods._method import MERGE, Context
from loramerge.methods._weighing import NoOptions
from loramerge.methods.merge.svd import METHOD


def test_cut_to_a_rank_it_is_the_decomposition_of_the_dense_sum(draw):
    x, y = draw(4, scale=2.0), draw(7)
    u, s, v = torch.linalg.svd(0.5 * x.dense() + 0.5 * y.dense())

    parts = apply(METHOD, [x, y], NoOptions(), Context("layer.0", (0.5, 0.5))).parts

    torch.testing.assert_close(truncate_sum(parts, 3).delta.dense(), (u[:, :3] * s[:3]) @ v[:3])


def test_it_is_linear_by_another_name():
    assert METHOD.apply is MERGE["linear"].apply
    assert METHOD.weights == MERGE["linear"].weights
