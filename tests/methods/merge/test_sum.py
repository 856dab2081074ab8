from __future__ import annotations

import torch

from loramerge.methods._grains import apply
from loramerge.methods._method import Context
from loramerge.methods._weighing import NoOptions
from loramerge.methods.merge.sum import METHOD


def merge(updates, *weights):
    return apply(METHOD, updates, NoOptions(), Context("layer.0", weights))


def test_each_counts_for_all_of_itself_unless_said(draw):
    x, y = draw(4, scale=2.0), draw(7)

    assert METHOD.weights == "sum"
    torch.testing.assert_close(merge([x, y], 1.0, 1.0).dense(), x.dense() + y.dense())


def test_what_counts_for_nothing_adds_no_unit(draw):
    x, y = draw(4), draw(7)

    assert [part.rank for part in merge([x, y], 0.0, 2.0).parts] == [7]
    assert float(merge([x, y], 0.0, 0.0).dense().norm()) == 0.0
