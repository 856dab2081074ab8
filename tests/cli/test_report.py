"""`loramerge report`: what it prints, and how it ends for what cannot be reported."""

from __future__ import annotations

import json

import pytest

EVALUATION = {"schema": 1, "kind": "evaluation", "tasks": [], "candidates": [], "scores": []}


def test_a_result_and_a_file_go_into_one_page(run, work):
    (work / "eval.json").write_text(json.dumps(EVALUATION))
    run("lego", "--k", 8)

    found = run("--format", "json", "report", "lego-8", "eval.json", "-o", "both.html", "--title", "Both of them")

    assert (found.code, found.err) == (0, "")
    assert found.data["path"] == str(work / "both.html")
    assert {"Summary", "Lineage of lego-8", "Spectra of lego-8"} <= set(found.data["sections"])
    assert "<h1>Both of them</h1>" in (work / "both.html").read_text()


def test_a_deck_has_slides(run, work):
    (work / "eval.json").write_text(json.dumps(EVALUATION))

    found = run("report", "eval.json", "--slides")

    assert found.code == 0
    assert 'class="slide"' in (work / "report.html").read_text()


BAD = [
    ("report none.json", 5, "no such file"),
    ("report bad.json", 3, "no JSON"),
    ("report other.json", 3, "neither an evaluation nor a search"),
    ("report newer.json", 3, "schema is not 1"),
    ("report math-lora", 3, "no record of how this was made"),
    ("report nobody", 2, "no adapter named"),
    ("report", 2, "no result"),
    ("report eval.json -o there.html", 2, "there already"),
    ("report eval.json -o nowhere/r.html", 5, "no such folder"),
]


@pytest.mark.parametrize(("line", "code", "said"), BAD, ids=[row[0] for row in BAD])
def test_what_cannot_be_reported_is_said_in_short(run, work, line, code, said):
    files = {"eval": EVALUATION, "newer": EVALUATION | {"schema": 9}, "other": {"kind": "adapter"}}
    for name, value in files.items():
        (work / f"{name}.json").write_text(json.dumps(value))
    (work / "bad.json").write_text("{")
    (work / "there.html").write_text("mine")
    before = sorted(path.name for path in work.iterdir())

    found = run(*line.split())

    assert found.code == code, found.err
    assert said in found.err
    assert len(found.err.splitlines()) <= 3
    assert sorted(path.name for path in work.iterdir()) == before
