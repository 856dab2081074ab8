"""Patterns match as PEFT's regular expressions do, and cannot be made to run for ever."""

from __future__ import annotations

import random
import re

import pytest

from loramerge.errors import BadConfig
from loramerge.formats import _pattern
from loramerge.formats._pattern import MAX_PATTERN, check, first_match, matches

NAMES = ("q", "layers.1.q", "layers.12.q_proj", "model.layers.1.mlp.up", "a.b", "aab", "abab", "x-y", "mlp", "")
PATTERNS = (
    *("q", "layers.1", "layers.1.q", r"layers\.1\.q", "^layers.1.q", "q_proj", "proj", "^model.*", ".*", ".*up"),
    *(
        r"layers\.[0-9]+\.q",
        r"layers\.\d{1,2}\.q(_proj)?",
        "(q|q_proj)",
        "q|q_proj",
        "(?:a|b)+",
        "a+b",
        "(ab)*",
        "(ab){2}",
    ),
    *(
        "[^q]*",
        r"\w+",
        "a{2}b",
        "(a|aa)b",
        "x-y",
        "x[-]y",
        "(mlp|attn).up",
        "",
        "(|q)",
        "a??ab",
        "((a)(b))+",
        r"layers\.(1|2|3)\..*",
        r"(?!layers\.1\.).*q",
        r"(a)\3?b",
        "(?<=1.)q",
        r"\bq",
    ),
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_takes_what_peft_takes(pattern):
    for name in NAMES:
        assert matches(pattern, name) == bool(re.match(rf"(.*\.)?({pattern})$", name)), name


def test_random_patterns_take_what_peft_takes():
    chance = random.Random(0)

    def piece(depth):
        kind = chance.randrange(6 if depth else 3)
        if kind < 3:
            return chance.choice(["a", "b", r"\.", ".", "[ab]", "[^a]", r"\w"])
        if kind == 3:
            return f"({piece(depth - 1)}|{piece(depth - 1)})"
        if kind == 4:
            return piece(depth - 1) + piece(depth - 1)
        return f"({piece(0)}){chance.choice(['?', '*', '{1,2}', '{2}', ''])}"

    for _ in range(2000):
        pattern = f"({piece(4)})" + chance.choice(["", "*", "+", "?"])
        name = "".join(chance.choice("ab.") for _ in range(chance.randrange(7)))

        assert matches(pattern, name) == bool(re.match(rf"(.*\.)?({pattern})$", name)), (pattern, name)


def test_a_pattern_that_would_run_for_ever_is_stopped_and_refused(monkeypatch):
    monkeypatch.setattr(_pattern, "SECONDS", 0.05)

    with pytest.raises(BadConfig, match="takes too long") as error:
        matches("(a|aa)+b", "a" * 300)

    assert error.value.where == "a" * 300


@pytest.mark.parametrize("pattern", ["(", ")", "[", "*a", "a**", "(?i)a", "a{3,2}", "[b-a]", r"\y"])
def test_what_peft_could_not_take_is_refused_by_name(pattern):
    with pytest.raises(re.error):
        re.compile(rf"(.*\.)?({pattern})$")

    with pytest.raises(BadConfig, match=re.escape(repr(pattern))) as error:
        check(pattern, "a config")

    assert error.value.where == "a config"


def test_a_pattern_that_is_too_long_is_refused():
    with pytest.raises(BadConfig, match="no regular expression that PEFT takes"):
        check("a" * (MAX_PATTERN + 1), "")


def test_what_a_result_is_written_with_takes_its_name_alone():
    name = "model.layers.1.up-proj"

    assert matches(f"^{re.escape(name)}", name)
    assert not matches(f"^{re.escape(name)}", f"x.{name}")
    assert not matches(f"^{re.escape(name)}", name.replace(".", "x"))


def test_the_first_of_several_patterns_wins():
    assert first_match({"layers.*": 1, "layers.0.q": 2}, "layers.0.q", 9) == 1
    assert first_match({"layers.1.*": 1}, "layers.0.q", 9) == 9


def test_a_name_stands_for_itself_where_it_is_no_pattern_that_takes_it():
    assert first_match({"x.a+b": 1}, "x.a+b", 9) == 1
