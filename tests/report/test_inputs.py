"""Files of evaluations and searches that are not what they should be."""

from __future__ import annotations

import json
from copy import deepcopy

import pytest
from reports import evaluation, score, search

from loramerge.errors import BadConfig, NotFound, UnknownFormat
from loramerge.report.inputs import read


def changed(value, path, item):
    """The same value with another item at a path."""
    found = deepcopy(value)
    at = found
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = item
    return found


def test_keys_that_nobody_knows_are_passed_over(write):
    found = changed(evaluation(later=1), ["tasks", 0, "newer"], [2])

    assert len(read(write("eval.json", found)).scores) == 6


BAD = [
    ("[]", UnknownFormat, "neither an evaluation nor a search"),
    ("{}", UnknownFormat, "neither an evaluation nor a search"),
    ('{"kind": ["evaluation"]}', UnknownFormat, "neither an evaluation nor a search"),
    ("not json", BadConfig, "no JSON"),
    ("[" * 100_000, BadConfig, "no JSON"),
    ('{"kind": "evaluation", "schema": 1, "seconds": ' + "9" * 5000 + "}", BadConfig, "no JSON"),
    (evaluation(schema=2), BadConfig, "schema is not 1"),
    (evaluation(tasks=None), BadConfig, "tasks is None, which is not a list"),
    (evaluation(candidates={"a": 1}), BadConfig, "candidates is .*not a list"),
    (changed(evaluation(), ["scores", 1, "value"], "high"), BadConfig, r"scores\[1\]\.value is 'high'"),
    (changed(evaluation(), ["scores", 1, "value"], True), BadConfig, "is True, which is not a number"),
    (changed(evaluation(), ["scores", 1, "candidate"], "nobody"), BadConfig, "candidate 'nobody', which is not listed"),
    (changed(evaluation(), ["means", 0, "candidate"], "nobody"), BadConfig, "candidate 'nobody', which is not listed"),
    (changed(evaluation(), ["scores", 0, "task"], "none"), BadConfig, "task 'none', which is not listed"),
    (changed(evaluation(), ["tasks", 1, "name"], "news"), BadConfig, "task 'news' is listed twice"),
    (changed(evaluation(), ["tasks", 0, "rows"], 10**30), BadConfig, "too large"),
    (search(trials=[{"number": 1}]), BadConfig, r"trials\[0\]\.point is missing"),
    (search(held_out=evaluation(scores=[score("x", "news", 1)])), BadConfig, "candidate 'x', which is not listed"),
    (search(space=[1]), BadConfig, "space is .*not an object"),
]


@pytest.mark.parametrize(("content", "error", "said"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused_by_what_is_wrong_where(write, content, error, said):
    path = write("bad.json", content if isinstance(content, str) else json.dumps(content))

    with pytest.raises(error, match=said) as refused:
        read(path)

    assert refused.value.where == str(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe{}")

    with pytest.raises(BadConfig):
        read(tmp_path / "bad.json")


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        read(tmp_path / "none.json")
