"""What is read of a task's folder."""

from __future__ import annotations

import json

import pytest

from loramerge.evaluation import _files


@pytest.mark.parametrize(
    ("splits", "wanted"),
    [
        (["train", "dev", "test"], "test"),
        (["train", "validation"], "validation"),
        (["train", "val"], "val"),
        (["train", "more"], "train"),
    ],
)
def test_what_is_reported_is_the_test_else_a_validation_split_else_the_first(tmp_path, splits, wanted):
    (tmp_path / "INFO.json").write_text(json.dumps({"kind": "perplexity", "splits": {one: one for one in splits}}))
    for split in splits:
        (tmp_path / split).write_text(split)

    data = _files.read(str(tmp_path), tmp_path)

    assert (data.split, data.text) == (wanted, wanted)
