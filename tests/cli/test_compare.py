"""`compare` and `advise`: what people see, what scripts read."""

from __future__ import annotations

import shlex

import pytest

KEYS = {"adapters", "overall", "families", "notes"}


def test_two_adapters_are_told_by_family_and_more_by_pair(run, work):
    two, three = run("compare", "math-lora", "code-lora"), run("compare")

    assert two.lines[1].split()[0] == "family"
    assert three.lines[1].split()[0] == "pair"
    assert "math-lora my-own-lora" in three.out


def test_families_can_be_asked_for(run, work):
    found = run("compare", "--families", "-q")

    assert found.lines[0] == "all"
    assert len(found.lines) == 3


def test_a_script_reads_pairs_and_all_figures(run, work):
    quiet, data = run("compare", "-q"), run("compare", "--format", "json").data

    assert {frozenset(line.split()) for line in quiet.lines} == {
        frozenset(pair)
        for pair in (("math-lora", "code-lora"), ("math-lora", "my-own-lora"), ("code-lora", "my-own-lora"))
    }
    assert data.keys() == KEYS
    assert len(data["overall"]["cosine"]) == 3


def test_many_pairs_are_cut_short_for_people_only(run, work, make_adapter):
    folders = [make_adapter(f"x{i}") for i in range(8)]

    told, quiet = run("compare", *folders), run("compare", *folders, "-q")

    assert "the 20 most alike of 28 pairs" in told.err
    assert len(quiet.lines) == 28


def test_pictures_lie_in_the_workspace(run, work):
    pytest.importorskip("matplotlib")

    found = run("compare", "--plot", "map.png", "--dendrogram", "tree.png")

    assert found.code == 0
    assert (work / "map.png").is_file()
    assert (work / "tree.png").is_file()


def test_advice_is_numbered_and_its_commands_stand_alone_for_scripts(run, work):
    told, quiet, data = run("advise"), run("advise", "-q"), run("advise", "--format", "json").data

    assert [line[0] for line in told.lines if line[:1].isdigit() and line[1] == "."] == ["1", "2", "3"][
        : len(quiet.lines)
    ]
    assert quiet.lines == [row["command"] for row in data["methods"]]
    assert run(*shlex.split(quiet.lines[0])[1:]).code == 0
