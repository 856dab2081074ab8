"""Two hundred adapters at once: more than the files a process may often have open, in one command."""

from __future__ import annotations

import json

import pytest
from place import place, write_adapter

MANY = 200


@pytest.fixture(scope="module")
def crowd():
    """A workspace with 200 sources of ranks 1 to 4."""
    with place() as here:
        for number in range(MANY):
            write_adapter(here.work / f"a{number}", rank=1 + number % 4, seed=number)
        pulled = here.run("loramerge -q pull " + " ".join(f"./a{number}" for number in range(MANY)))
        assert pulled.code == 0, pulled.stderr
        yield here


@pytest.mark.parametrize("command", ["lego --k 8", "merge --method linear", "merge --method cat"])
def test_two_hundred_adapters_become_one(crowd, command):
    # Fewer files than adapters may be open at a time.
    outcome = crowd.run(f"loramerge --format json {command} -o {command.split()[-1]}")

    assert outcome.code == 0, outcome.stderr
    made = json.loads(outcome.stdout)
    assert made["units_in"] == sum(1 + number % 4 for number in range(MANY))
    assert made["rank"] == {"8": 8, "linear": 4, "cat": 8}[command.split()[-1]]


def test_two_hundred_adapters_are_planned_and_listed(crowd):
    planned = crowd.run("loramerge --format json merge --plan")
    listed = crowd.run("loramerge -q ls")

    assert len(json.loads(planned.stdout)["adapters"]) == MANY
    assert len(listed.stdout.split()) == MANY
