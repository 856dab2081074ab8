r"""PEFT's rank and alpha patterns, matched without backtracking.

PEFT takes the first pattern p for which re.match(rf"(.*\.)?({p})$", name) holds. The patterns come
from files that anybody may have written, and `re` runs for ages on a few characters such as (a+)+$.
Here a pattern is a function from the positions where a match may start to those where it may end, on
sets of positions: the answer is the same, and no position is tried twice.

Lookaround, back references, flags and loops within loops within loops are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import TypeVar

from loramerge.errors import BadConfig

V = TypeVar("V")

Positions = frozenset[int]
Step = Callable[[str, Positions], Positions]
Token = tuple[str, str]

MAX_PATTERN = 1100
_MAX_LOOPS = 2
_MAX_GROUPS = 50
_TOKEN = re.compile(
    r"""(?P<set>\[\^?\]?(?:\\.|[^\[\]\\])*\]|\\[dDwWsS]|\.)
    |(?P<text>\\[^A-Za-z0-9]|[^\\\[\]().|*+?{}^$])
    |(?P<open>\((?:\?:)?)|(?P<close>\))|(?P<bar>\|)
    |(?P<repeat>(?:[*+?]|\{\d{1,3}(?:,\d{0,3})?\})\??)
    |(?P<edge>[\^$])""",
    re.VERBOSE,
)


def check(pattern: str, where: str) -> None:
    """Raises BadConfig for a pattern that is refused."""
    try:
        _compiled(pattern)
    except (ValueError, re.error):
        raise BadConfig(
            f"The pattern {pattern[:80]!r} is not among the regular expressions that are taken.",
            where=where,
            hint="names, sets, groups, alternatives and repeats; no lookaround, no back references",
        ) from None


def first_match(patterns: Mapping[str, V], name: str, default: V) -> V:
    """The value of the first pattern that takes the module name, as PEFT finds it."""
    for pattern, value in patterns.items():
        if matches(pattern, name):
            return value
    # A name with special characters may stand among the patterns as it is; PEFT then finds it as a key.
    return patterns.get(name, default)


def matches(pattern: str, name: str) -> bool:
    r"""Whether re.match(rf"(.*\.)?({pattern})$", name) holds, for a pattern that `check` takes."""
    return _compiled(pattern)(name)


@lru_cache(maxsize=8192)
def _compiled(pattern: str) -> Callable[[str], bool]:
    if len(pattern) > MAX_PATTERN:
        raise ValueError("too long")
    tokens = _tokens(pattern)
    if tokens[:1] == [("edge", "^")] and {kind for kind, _ in tokens[1:]} <= {"text"}:
        return "".join(text[-1] for _, text in tokens[1:]).__eq__
    if {kind for kind, _ in tokens} <= {"set", "text", "edge"}:
        # Of fixed length, so that `re` has nothing to try but where to begin. Nearly all patterns are.
        expression = re.compile(rf"(.*\.)?({pattern})$")
        return lambda name: expression.match(name) is not None
    if sum(kind == "open" for kind, _ in tokens) > _MAX_GROUPS:
        raise ValueError("too many groups")
    return partial(_simulate, _Parser(tokens).parse())


def _simulate(step: Step, name: str) -> bool:
    starts = frozenset([0, *(at + 1 for at, character in enumerate(name) if character == ".")])
    return len(name) in step(name, starts)


def _tokens(pattern: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None or token.lastgroup is None:
            raise ValueError("not a token")
        found.append((token.lastgroup, token[0]))
        at = token.end()
    return found


class _Parser:
    """Recursive descent over a pattern's tokens; its methods return a Step and how deep its loops nest."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = 0

    def parse(self) -> Step:
        step, _ = self.alternatives()
        if self.at < len(self.tokens):
            raise ValueError("something is left over")
        return step

    def next_is(self, *kinds: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at][0] in kinds

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def alternatives(self) -> tuple[Step, int]:
        found = [self.sequence()]
        while self.next_is("bar"):
            self.take()
            found.append(self.sequence())
        steps = [step for step, _ in found]
        return _either(steps), max(loops for _, loops in found)

    def sequence(self) -> tuple[Step, int]:
        steps, deepest = [], 0
        while self.next_is("set", "text", "open", "edge"):
            step, loops = self.repeated(*self.atom())
            steps.append(step)
            deepest = max(deepest, loops)
        return _chain(steps), deepest

    def atom(self) -> tuple[Step, int]:
        kind, text = self.take()
        if kind == "open":
            inner = self.alternatives()
            if not self.next_is("close"):
                raise ValueError("an open group")
            self.take()
            return inner
        if kind == "edge":
            return (_start if text == "^" else _end), 0
        if kind == "text":
            return _literal(text[-1]), 0
        return _one_of(re.compile(text)), 0

    def repeated(self, step: Step, loops: int) -> tuple[Step, int]:
        if not self.next_is("repeat"):
            return step, loops
        low, high = _counts(self.take()[1])
        if loops >= _MAX_LOOPS or low > high:
            raise ValueError("loops nest too deep, or end before they begin")
        return _repeat(step, low, high), loops + (high > 1)


def _counts(token: str) -> tuple[int, int]:
    """How often at least and at most; 1000 stands for any number of times, as names are shorter."""
    if token[0] in "*+?":
        return int(token[0] == "+"), 1 if token[0] == "?" else 1000
    low, comma, high = token[1 : token.index("}")].partition(",")
    return int(low), int(high or 1000) if comma else int(low)


def _literal(character: str) -> Step:
    return lambda name, at: frozenset(i + 1 for i in at if name[i : i + 1] == character)


def _one_of(single: re.Pattern[str]) -> Step:
    return lambda name, at: frozenset(i + 1 for i in at if i < len(name) and single.fullmatch(name[i]))


def _start(name: str, at: Positions) -> Positions:
    return at & {0}


def _end(name: str, at: Positions) -> Positions:
    return at & {len(name)}


def _chain(steps: list[Step]) -> Step:
    def run(name: str, at: Positions) -> Positions:
        for step in steps:
            at = step(name, at)
        return at

    return run


def _either(steps: list[Step]) -> Step:
    if len(steps) == 1:
        return steps[0]
    return lambda name, at: frozenset().union(*(step(name, at) for step in steps))


def _repeat(step: Step, low: int, high: int) -> Step:
    def run(name: str, at: Positions) -> Positions:
        for _ in range(low):
            at = step(name, at)
        reached = at
        for _ in range(high - low):
            at = step(name, at) - reached
            if not at:
                break
            reached |= at
        return reached

    return run
