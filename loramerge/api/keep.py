"""`--keep`: a condition on units, such as `share>0.01 and module~*.query`."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from loramerge.core.names import matches
from loramerge.errors import BadOption

Row = Mapping[str, Any]
Test = Callable[[Row], bool]

_NUMBERS = ("unit", "norm", "share", "cosine")
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": operator.eq,
}
_TERM = re.compile(r"\s*(not\s+)?([a-z]+)\s*(>=|<=|>|<|=|~)\s*(\S+)\s*")
_HINT = "share>0.01, norm>=0.5, unit<4, module~*.query; joined by `and`"


def condition(text: str) -> Test:
    """A test of one unit's row. Terms are joined by `and`; `~` matches a module pattern; raises BadOption."""
    terms = [_term(part) for part in re.split(r"\sand\s", text)]
    return lambda row: all(term(row) for term in terms)


def _term(text: str) -> Test:
    match = _TERM.fullmatch(text)
    if match is None:
        raise BadOption(f"{text.strip()!r} is not a condition on units.", hint=_HINT)
    negated, field, sign, value = match.groups()
    test = _pattern(value) if (field, sign) == ("module", "~") else _number(field, sign, value)
    return (lambda row: not test(row)) if negated else test


def _pattern(value: str) -> Test:
    matches(value, "")  # so that a broken pattern is known before the first unit
    return lambda row: matches(value, row["module"])


def _number(field: str, sign: str, value: str) -> Test:
    if field not in _NUMBERS or sign not in _COMPARE:
        raise BadOption(f"Units have no {field!r} to test with {sign!r}.", hint=_HINT)
    bound = _bound(value)
    compare = _COMPARE[sign]
    return lambda row: isinstance(row.get(field), int | float) and compare(row[field], bound)


def _bound(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise BadOption(f"{text!r} is not a number.", hint=_HINT)
    return value
