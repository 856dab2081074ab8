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


def test_without_rows_of_a_gpu_the_page_says_that_nothing_was_measured(report):
    assert report.on_a_gpu([{"bench": "evaluation", "way": "together"}]).startswith("Not measured")


def test_what_a_gpu_makes_of_it_stands_beside_the_goals_each_gpu_by_itself(report):
    of_all = {"device": "H100", "items": 1, "tokens": 1, "past": 256, "error": 0.01, "error_peft": 0.02}
    of_all |= {"repeats": True, "alone": 0.0, "base_alone": 0.004}
    passes = [{"bench": "evaluation-8b", "way": way, "wall_s": s, **of_all} for way, s in
              (("together", 0.05), ("peft-lean", 1.5), ("loop", 1.0), ("base", 0.04))]  # fmt: skip
    kernels = [
        {"way": "shrink", "of_copy": 0.8},
        {"way": "expand", "of_copy": 0.75},
        {"way": "error", "over_torch": 1.02, "repeats": True, "same_alone": False},
        {"way": "base", "wall_s": 1e-4, "ratio": 1.0},
        {"way": "base, shrink, expand", "wall_s": 1e-4, "ratio": 1.15},
        {"way": "base_plus_lora", "wall_s": 1e-4, "ratio": 1.5, "over_two": 1.3},
    ]
    kernels = [{"bench": "kernels-cuda", "device": "H200", "rows": 4096, **row} for row in kernels]
    layer = {"bench": "kernels-cuda-layer", "device": "H200", "way": "together", "rows": 16}
    layer |= {"graph": True, "over_floor": 1.2, "of_loop": 12.0}

    first, second = report.on_a_gpu([*passes, *kernels, layer]).split("### H200")

    numbers = "50.0 | left out | 30.0× | 20.0× | 1.25 | PEFT 20×, our loop 16× | 1e-02 | 2e-02 | yes | same | 4e-03"
    assert f"| decode 1 × 1 behind 256 | {numbers} |" in first
    assert "Kernels: not measured." in first
    assert "Whole passes: not measured." in second
    assert "| 4,096 | 80% | 75% | 1.02 | yes | no |" in second
    assert "| 4,096 | 100 | 1.15 | 1.50 |" in second
    assert "| 16 | graph | 1.20 | 12.0× |" in second
