"""What runs on a GPU at the size of a large model runs here at a toy's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAYS = ["peft", "peft-lean", "loop", "together", "base"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    results = tmp_path_factory.mktemp("toy") / "results.jsonl"
    command = [sys.executable, str(ROOT / "tests/benchmarks/bench_evaluation.py"), "--size", "toy", "--rounds", "3"]
    subprocess.run(command, env=os.environ | {"LORAMERGE_RESULTS": str(results), "PYTHONPATH": str(ROOT)}, check=True)
    return [json.loads(line) for line in results.read_text("utf-8").splitlines()]


def test_every_way_is_timed_at_decode_steps_and_at_scoring(rows):
    found = [(row["way"], row["items"], row["tokens"], row["past"]) for row in rows]

    assert found == [(way, *shape) for shape in ((1, 1, 8), (4, 1, 5), (1, 16, 0)) for way in WAYS]
    assert all(row["wall_s"] > 0 for row in rows)


def test_one_pass_makes_what_the_loops_make_and_makes_it_again(rows):
    assert all(0 <= row["error"] < 1e-5 and 0 <= row["error_peft"] < 1e-5 for row in rows)
    assert all(0 <= row["alone"] < 1e-5 and row["repeats"] for row in rows)
