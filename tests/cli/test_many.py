"""Two hundred adapters in one command."""

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


METHODS = {"lego --k 8": 8, "merge --method cat": 500}


@pytest.mark.parametrize("command", METHODS)
def test_two_hundred_adapters_become_one(crowd, command):
    outcome = crowd.run(f"loramerge --format json {command} -o out --force")

    assert outcome.code == 0, outcome.stderr
    made = json.loads(outcome.stdout)
    assert (made["units_in"], made["rank"]) == (500, METHODS[command])


def test_two_hundred_adapters_are_planned_and_listed(crowd):
    planned = crowd.run("loramerge --format json merge --plan")
    listed = crowd.run("loramerge --format json ls")

    assert len(json.loads(planned.stdout)["adapters"]) == MANY
    assert sum(row["role"] == "source" for row in json.loads(listed.stdout)) == MANY
