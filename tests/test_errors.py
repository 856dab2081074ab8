from __future__ import annotations

import copy
import pickle
import re

import pytest

from loramerge import errors
from loramerge.errors import LoramergeError

EXIT_CODES = {
    "LoramergeError": 1,
    "UsageError": 2,
    "FormatError": 3,
    "IncompatibleError": 4,
    "AccessError": 5,
    "NetworkError": 6,
    "IntegrityError": 7,
}


def tree(kind=LoramergeError) -> list[type[LoramergeError]]:
    return [kind, *(below for child in kind.__subclasses__() for below in tree(child))]


KINDS = [kind for kind in tree() if kind.__module__ == errors.__name__]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@kinds
def test_an_error_exits_with_its_branchs_code(kind):
    branch = next(above for above in kind.__mro__ if above.__name__ in EXIT_CODES)

    assert kind.exit_code == EXIT_CODES[branch.__name__]


@kinds
@pytest.mark.parametrize("through", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_an_error_crosses_processes_whole(kind, through):
    error = kind("It broke.", where="model.safetensors", hint="loramerge verify")

    crossed = through(error)

    assert type(crossed) is kind
    assert (crossed.message, crossed.where, crossed.hint) == ("It broke.", "model.safetensors", "loramerge verify")
    assert str(crossed) == "It broke."


@kinds
def test_an_error_is_drawn_in_the_tree_and_described(kind):
    drawn = re.findall(r"^[ │├└─]+(\w+) ", errors.__doc__, re.MULTILINE)

    assert drawn.count(kind.__name__) == 1
    assert kind.__doc__


def test_the_tree_is_drawn_with_its_codes():
    drawn = re.findall(r"^[ │├└─]+(\w+) +([1-7])  ", errors.__doc__, re.MULTILINE)

    assert {name: int(code) for name, code in drawn} == EXIT_CODES


def test_where_and_hint_may_be_missing():
    error = LoramergeError("It broke.")

    assert (error.where, error.hint) == ("", "")
