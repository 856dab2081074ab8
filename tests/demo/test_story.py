"""The story, played for real: PEFT, a Hub on a loopback port, the library's own functions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loramerge.core.provenance import sha256_file
from loramerge.demo import story
from loramerge.errors import MissingExtra, OutputExists

WEIGHTS = "adapter_model.safetensors"
MODELS = ["base", "digits-faint", "digits-thin", "digits-dotted", "lego-8", "mean-8", "sqrt-8"]


class Ear:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tables: list[list[story.Row]] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def talk_table(self, rows: list[story.Row], *, title: str = "") -> None:
        self.tables.append(list(rows))


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ear, story.Scores, Path]:
    """The story with hardly any training, and the folder it was played in."""
    ear, folder = Ear(), tmp_path_factory.mktemp("demo")
    return ear, story.run(ear, folder, effort=0.03), folder


def test_every_model_is_scored_on_every_shift(quick):
    _, scores, _ = quick

    assert [row["model"] for row in scores.rows] == MODELS
    assert all({"original", "shifts", *story.RANKS} < row.keys() for row in scores.rows)
    assert [row["rank"] for row in scores.rows] == [None, 4, 8, 16, 8, 8, 8]


def test_the_best_is_the_merge_that_was_measured_best(quick):
    _, scores, _ = quick
    merges = {row["model"]: row["shifts"] for row in scores.rows[-3:]}

    assert merges[scores.best] == max(merges.values())


def test_what_came_back_from_the_hub_is_what_was_sent(quick):
    _, scores, folder = quick

    received = list((folder / "elsewhere-cache").rglob(f"snapshots/*/{WEIGHTS}"))

    assert sha256_file(folder / "work" / scores.best / WEIGHTS) in {sha256_file(path) for path in received}


def test_the_result_says_what_it_was_made_of(quick):
    _, scores, folder = quick

    record = json.loads((folder / "work" / scores.best / "loramerge.json").read_text())

    assert {parent["repo"] for parent in record["lineage"]["parents"]} == {f"me/digits-{s}" for s in story.RANKS}


def test_each_command_that_is_told_is_one_that_exists(quick):
    from loramerge.cli.main import cli

    ear, _, _ = quick
    told = {line.split("loramerge ", 1)[1].split()[0] for line in ear.lines if "$ loramerge " in line}

    assert told == {"hub", "push", "pull", "inspect", "lego", "merge", "verify", "log", "rebuild"}
    assert told <= set(cli.list_commands(None))


def test_playing_again_gives_the_same_numbers(quick):
    _, scores, _ = quick

    again = story.run(Ear(), effort=0.03)

    assert again == scores


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine").touch()

    with pytest.raises(OutputExists):
        story.run(Ear(), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_is_not_installed_is_named_before_anything_happens(tmp_path, monkeypatch):
    monkeypatch.setattr(story, "NEEDS", ("json", "no_such_package"))

    with pytest.raises(MissingExtra, match="no_such_package") as caught:
        story.run(Ear(), tmp_path)

    assert "loramerge[demo]" in caught.value.hint
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_neither_a_proxy_nor_offline_mode_stands_in_the_way():
    code = "from loramerge.cli._output import Output; from loramerge.demo import story\n"
    code += "print(story.run(Output('quiet'), effort=0.03).best)"
    env = {**os.environ, "HTTP_PROXY": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}

    played = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)

    assert played.returncode == 0, played.stderr
    assert played.stdout.strip() in MODELS


@pytest.mark.slow
def test_adapters_help_where_the_base_fails_and_merges_help_everywhere():
    scores = {row["model"]: row for row in story.run(Ear()).rows}

    assert scores["base"]["original"] >= 0.95
    for shift in story.RANKS:
        assert scores["base"][shift] <= 0.5
        assert scores[f"digits-{shift}"][shift] >= 0.85
    assert scores["lego-8"]["shifts"] > scores["base"]["shifts"] + 0.2
    assert scores["mean-8"]["shifts"] > scores["base"]["shifts"] + 0.2
