"""`loramerge eval` and `loramerge tune`: their examples run, and what they print and write is what was measured."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from adapters import write_adapter
from bases import LINES, write_base

from loramerge.cli.main import COMMANDS

MODULES = {f"model.layers.{layer}.self_attn.{name}_proj": (16, 16) for layer in (0, 1) for name in "qv"}
EVAL = "eval math-lora code-lora --base ./base --task perplexity:./math.txt -T block=8"
TUNE = "tune math-lora code-lora --base ./base --task perplexity:./math.txt -T block=8 -o best --budget 2"


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture
def here(run, base, tmp_path, monkeypatch):
    """A workspace with a base, two adapters for it, and a text."""
    shutil.copytree(base, tmp_path / "base")
    for name in ("math-lora", "code-lora"):
        write_adapter(tmp_path / name, modules=MODULES, task_type="CAUSAL_LM", seed=name)
    (tmp_path / "math.txt").write_text("\n".join(LINES * 40) + "\n")
    monkeypatch.chdir(tmp_path)
    assert run("pull", "./math-lora", "./code-lora").code == 0
    return tmp_path


@pytest.mark.parametrize("name", ["eval", "tune"])
def test_its_example_runs(run, here, name):
    found = run(*shlex.split(COMMANDS[name].epilog.removeprefix("Example: loramerge ")))

    assert found.code == 0, found.err
    assert {"eval": "math-lora", "tune": "held out"}[name] in found.out


def test_all_candidates_of_a_sweep_are_scored_with_intervals(run, here):
    found = run(
        *shlex.split(EVAL),
        "--method",
        "linear,ties",
        "--scale",
        "0.5,1",
        "-O",
        "density=0.2|0.5",
        "--format",
        "json",
        "--with-base",
    )

    names = [one["name"] for one in found.data["candidates"]]
    assert found.code == 0, found.err
    assert names[:5] == ["base", "math-lora", "code-lora", "linear ×0.5", "linear ×1"]
    assert names[5:] == [f"ties density={d} ×{s}" for d in ("0.2", "0.5") for s in ("0.5", "1")]
    assert all(row["low"] < row["value"] < row["high"] for row in found.data["scores"])


def test_points_of_a_way_begin_and_end_at_its_ends(run, here):
    found = run(*shlex.split(EVAL), "--points", "3", "--format", "json")

    value = {row["candidate"]: row["value"] for row in found.data["scores"]}
    assert value["t=0"] == pytest.approx(value["math-lora"], rel=1e-5)
    assert value["t=1"] == pytest.approx(value["code-lora"], rel=1e-5)
    assert value["t=0.5"] not in (value["t=0"], value["t=1"])


def test_the_best_merge_and_those_not_proven_worse_are_marked(run, here):
    asked = [*shlex.split(EVAL), "--method", "linear,negate", "--scale", "1,300"]
    gaps = {row["candidate"]: row["behind"] for row in run(*asked, "--format", "json").data["scores"]}

    found = run(*asked)

    wanted = {
        name: "★" if gap is None else "≈" if gap["low"] <= 0 else ""
        for name, gap in gaps.items()
        if not name.endswith("-lora")
    }
    lines = {line.split("  ")[0].strip(): line.split(")")[1] for line in found.out.splitlines() if "(" in line}
    seen = {name: "".join({"★", "≈"} & set(first)) for name, first in lines.items()}
    assert seen == {**dict.fromkeys(("math-lora", "code-lora"), ""), **wanted}
    assert list(wanted.values()).count("★") == 1
    assert "not proven worse" in found.err


def test_a_single_merge_leads_nobody(run, here):
    found = run(*shlex.split(EVAL), "--method", "linear")

    assert found.code == 0, found.err
    assert "★" not in found.out + found.err


def test_what_is_printed_as_the_next_step_can_be_typed(run, here):
    (here / "päth with spaces").mkdir()

    found = run(*shlex.split(EVAL), "-o", "päth with spaces/scores.json")

    step = next(line for line in found.err.splitlines() if "next: " in line).partition("next: loramerge ")[2]
    assert run(*shlex.split(step)).code == 0
    assert (here / "report.html").is_file()


def test_a_file_of_scores_is_written_and_can_be_reported(run, here):
    assert run(*shlex.split(EVAL), "-o", "scores.json").code == 0
    written = json.loads((here / "scores.json").read_text())

    reported = run("report", "scores.json")

    assert written["kind"] == "evaluation"
    assert reported.code == 0, reported.err
    assert not list(here.glob("*.journal"))
    assert "math-lora" in (here / "report.html").read_text()


def test_the_recipe_that_was_found_makes_the_merge_that_was_scored(run, here):
    assert run(*shlex.split(TUNE), "--space", "method=linear,ties", "--space", "scale=0.3..2").code == 0
    told = json.loads((here / "best.json").read_text())
    held = next(row for row in told["held_out"]["scores"] if row["candidate"] == told["winner"]["name"])

    assert run("merge", "best.yaml", "-o", "best").code == 0
    again = run(
        "eval",
        "best",
        "--base",
        "./base",
        "--task",
        "perplexity:./math.txt",
        "-T",
        "block=8",
        "--rows-taken",
        "odd",
        "--format",
        "json",
    )

    assert yaml.safe_load((here / "best.yaml").read_text())["method"] == told["winner"]["point"]["method"]
    assert again.data["scores"][0]["value"] == pytest.approx(held["value"], rel=1e-5)


def test_a_search_goes_on_with_a_larger_budget(run, here):
    space = ["--space", "scale=0.3..2", "--sampler", "random"]
    assert run(*shlex.split(TUNE), *space).code == 0
    before = json.loads((here / "best.json").read_text())["trials"]

    assert run(*shlex.split(TUNE.replace("--budget 2", "--budget 6")), *space, "--force").code == 0
    after = json.loads((here / "best.json").read_text())["trials"]

    assert len(after) > len(before)
    assert [one["point"] for one in after[: len(before)]] == [one["point"] for one in before]


def test_weights_are_searched_for_each_source_and_family(run, here):
    found = run(*shlex.split(TUNE), "--space", "weight.*@families=0..1", "--sampler", "random")

    point = json.loads((here / "best.json").read_text())["winner"]["point"]
    assert found.code == 0, found.err
    assert set(point) == {f"weight.{name}@*.{part}_proj" for name in ("math-lora", "code-lora") for part in "qv"}


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--space", "scael=0..1"], 2, "scale"),
        (["--space", "weight.nobody=0..1"], 2, "math-lora"),
        (["--sampler", "tbe"], 2, "tpe"),
        (["--objective", "lorahub", "--budget", "0"], 2, "budget"),
        (["--space", "method=tise"], 2, "ties"),
        (["--budget", "nan"], 2, "--budget 20"),
        (["--rows-taken", "even"], 2, "--rows-taken"),
        (["--sampler", "grid", *(f"--space=weight.math-lora@{at}=0..1" for at in range(9))], 2, "--sampler random"),
    ],
)
def test_what_cannot_be_searched_is_said_in_a_line(run, here, flags, code, said):
    found = run(*shlex.split(TUNE), *flags)

    assert found.code == code
    assert said in found.err
    assert len(found.err.strip().splitlines()) <= 3
    assert not (here / "best.json").exists()


def test_lorahubs_objective_takes_losses(run, here):
    found = run(*shlex.split(TUNE), "--space", "weight.*=-1.5..1.5", "--objective", "lorahub", "--sampler", "cma")

    assert found.code == 0, found.err
    assert json.loads((here / "best.json").read_text())["validation"]["value"] < 0


INTERRUPTED = """
import sys
from pathlib import Path
from loramerge.cli.main import main
from loramerge.evaluation.passes import Passes

whole = Passes.over

def over(self, *what):
    for one in whole(self, *what):
        yield one
        if list(Path().glob("*.journal")):
            raise KeyboardInterrupt

Passes.over = over
main(sys.argv[1:])
"""


@pytest.mark.parametrize("asked", [f"{EVAL} -o scores.json", TUNE], ids=["eval", "tune"])
def test_who_interrupts_is_told_that_the_same_call_goes_on(here, asked):
    line = [sys.executable, "-c", INTERRUPTED, *shlex.split(asked)]

    found = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)

    assert found.returncode == 130
    assert "the same call goes on from there" in found.stderr
    assert "Traceback" not in found.stderr


def test_of_a_single_item_nobody_is_proven_worse(run, here):
    found = run(*shlex.split(EVAL), "--limit", "1", "--method", "linear,negate")

    assert found.code == 0, found.err
    assert (found.out.count("★"), found.out.count("≈")) == (2, 2)
