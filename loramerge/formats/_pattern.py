r"""PEFT's rank and alpha patterns, as it matches them, but not for ever.

PEFT takes the first pattern p for which re.match(rf"(.*\.)?({p})$", name) holds. The patterns come
from files that anybody may have written, and `re` runs for ages on a few characters such as (a+)+$;
`regex` speaks the same language and can be given a time to stop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeVar

from loramerge.errors import BadConfig

V = TypeVar("V")

MAX_PATTERN = 1100
SECONDS = 1.0
"""How long one pattern may take on one name; honest ones take a millionth of that."""


def check(pattern: str, where: str) -> None:
    """Raises BadConfig for a pattern that is too long, or that PEFT itself could not take."""
    try:
        if len(pattern) > MAX_PATTERN:
            raise ValueError
        re.compile(_whole(pattern))
    except (ValueError, OverflowError, RecursionError, re.error):
        raise BadConfig(
            f"The pattern {pattern[:80]!r} is no regular expression that PEFT takes.", where=where
        ) from None


def first_match(patterns: Mapping[str, V], name: str, default: V) -> V:
    """The value of the first pattern that takes the module name, as PEFT finds it. Raises BadConfig."""
    for pattern, value in patterns.items():
        if matches(pattern, name):
            return value
    # A name with special characters may stand among the patterns as it is; PEFT then finds it as a key.
    return patterns.get(name, default)


def matches(pattern: str, name: str) -> bool:
    r"""Whether re.match(rf"(.*\.)?({pattern})$", name) holds. Raises BadConfig where that takes too long."""
    try:
        return _matcher(pattern)(name)
    except TimeoutError:
        raise BadConfig(f"The pattern {pattern[:80]!r} takes too long to match.", where=name) from None


def _whole(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


@lru_cache(maxsize=8192)
def _matcher(pattern: str) -> Callable[[str], bool]:
    literal = re.sub(r"\\(.)", r"\1", pattern[1:])
    if pattern == f"^{re.escape(literal)}":
        # What results are written with, one for each module: an expression for each pair would be slow.
        return literal.__eq__
    import regex

    expression = regex.compile(_whole(pattern))
    return lambda name: expression.match(name, timeout=SECONDS) is not None
