"""docs/performance.md is made from the measurements; `python tests/benchmarks/report.py` writes it again."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("report.py")


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("benchmarks_report", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_rows_say(report):
    assert report.PAGE.read_text("utf-8") == report.page(report.rows_of(report.RESULTS)), f"python {SCRIPT} writes it"


def test_the_newest_row_of_a_question_counts(report):
    old, other, new = ({"bench": "x", "way": way, "s": s} for way, s in (("a", 1), ("b", 2), ("a", 3)))

    assert report.newest([old, other, new, {"bench": "y", "way": "a"}], "x") == [new, other]


def test_settings_keep_rows_apart(report):
    rows = [{"bench": "x", "way": "a", "dtype": dtype} for dtype in ("bf16", "f32")]

    assert report.newest(rows, "x", "dtype") == rows


def test_every_benchmark_of_the_page_is_there(report):
    assert all(SCRIPT.with_name(script).is_file() for _, script, _ in report.SECTIONS)
