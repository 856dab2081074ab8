"""Points of a way, and checkpoints averaged, from the command line."""

from __future__ import annotations

import json

from safetensors.torch import load_file

WEIGHTS = "adapter_model.safetensors"


def test_the_ends_of_a_way_are_its_adapters(run, work):
    found = run("interpolate", "my-own-lora", "math-lora", "--points", "3", "-o", "way", "--format", "json")

    ours, theirs = load_file(work / "way-000" / WEIGHTS), load_file(work / "my-own-lora" / WEIGHTS)
    assert [row["t"] for row in found.data] == [0.0, 0.5, 1.0]
    assert ours.keys() == theirs.keys()
    assert all(ours[key].equal(theirs[key]) for key in ours)


def test_every_point_can_be_made_again(run, work):
    run("interpolate", "my-own-lora", "math-lora", "--points", "3", "-o", "way")

    assert [run("rebuild", f"way-00{number}").code for number in range(3)] == [0, 0, 0]


def test_a_way_can_be_planned_and_is_not_begun(run, work):
    found = run("interpolate", "math-lora", "code-lora", "--points", "5", "--plan", "--format", "json")

    assert (found.data["method"], found.data["grain"]) == ("interpolate", "coefficients")
    assert not list(work.glob("interpolate*"))


def test_a_record_says_which_space_and_which_place(run, work):
    run("interpolate", "my-own-lora", "my-own-lora", "--at", "0.25", "--space", "factors", "-o", "bent")

    recipe = json.loads((work / "bent" / "loramerge.json").read_text())["recipe"]
    assert (recipe["method"], recipe["options"]) == ("factorwise", {"formula": "plain"})
    assert [adapter["weight"] for adapter in recipe["adapters"]] == [0.75, 0.25]


def test_flags_of_ema_are_its_options(run, work):
    found = run("ema", "math-lora", "code-lora", "--beta", "0.5", "--warmup", "none", "-o", "slow")

    record = json.loads((work / "slow" / "loramerge.json").read_text())
    assert found.code == 0
    assert record["lineage"]["options"] == {"beta": 0.5, "warmup": "none"}
    assert record["report"]["modules"]["layers.0.q"]["coefficients"] == [0.5, 0.5]
