"""Module names: their canonical form, natural order, places in a model, and patterns that select them.

A canonical name is a module's dotted path inside the model, without the wrappers that training puts
around it: `model.layers.3.self_attn.q_proj`. One expert of a bank is a module of its own, with its
index in the path: `model.layers.3.mlp.experts.7.down_proj`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import NamedTuple

from loramerge.errors import BadOption

NaturalKey = tuple[tuple[str | tuple[int, str], ...], str]

_PEFT = re.compile(r"\A(?:(?:module\.)?base_model\.model\.)+")
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
_BANKS = {"expert", "experts"}
_RANGE = re.compile(r"\[([0-9]{1,9})-([0-9]{1,9})\]")
_LONGEST = 1000
_SPECIAL = frozenset("*?[]")


class Place(NamedTuple):
    """Where a module sits: the index of its layer and, in a bank of experts, its expert's."""

    layer: int | None
    expert: int | None


@lru_cache(maxsize=1 << 16)
def canonical(path: str) -> str:
    """The path without what PEFT, torch.compile, FSDP and activation checkpointing put around modules."""
    return _PEFT.sub("", ".".join(part for part in path.split(".") if part not in _WRAPPERS))


def place(name: str) -> Place:
    """The first number of a path that is not an expert's, and the number that follows `experts`."""
    parts = name.split(".")
    expert = next((i for i in range(1, len(parts)) if _is_index(parts[i]) and parts[i - 1] in _BANKS), None)
    layer = next((i for i, part in enumerate(parts) if _is_index(part) and i != expert), None)
    return Place(*(None if i is None else int(parts[i]) for i in (layer, expert)))


def suffix(name: str) -> str:
    """The name without its numbers: what modules that differ only in layer or expert have in common."""
    return ".".join(part for part in name.split(".") if not _is_index(part)) or name


def _is_index(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) < 10


@lru_cache(maxsize=1 << 16)
def natural(name: str) -> NaturalKey:
    """A sort key that reads digits as numbers: "task2" before "task10". Different names never tie."""
    pieces = re.split(r"([0-9]+)", name)
    return tuple(_numeral(piece) if at % 2 else piece for at, piece in enumerate(pieces)), name


def _numeral(digits: str) -> tuple[int, str]:
    # Compares as the number does, and unlike int() takes any length.
    bare = digits.lstrip("0")
    return len(bare), bare


def matches(pattern: str, name: str) -> bool:
    """Whether a selection pattern takes a name as a whole; raises BadOption for a broken pattern.

    `*` is any text, dots included; `?` is one character; `[4-11]` is a whole number in that range;
    everything else is itself. A leading `*.` also stands for nothing: `*.lm_head` takes `lm_head`.
    Takes time in O(pattern · name), whatever the pattern.
    """
    text = f".{name}" if pattern.startswith("*.") else name
    return bool(_matcher(pattern)(text))


def first_match(patterns: Iterable[str], name: str) -> str | None:
    """The first pattern that takes the name, in the order given; None where none does."""
    return next((pattern for pattern in patterns if matches(pattern, name)), None)


@lru_cache(maxsize=4096)
def _matcher(pattern: str) -> Callable[[str], object]:
    if len(pattern) > _LONGEST:
        raise BadOption(f"A pattern of {len(pattern)} characters is too long.", hint=f"at most {_LONGEST}")
    tail = pattern.removeprefix("*")
    if tail != pattern and not _SPECIAL.intersection(tail):
        return lambda text: text.endswith(tail)  # as most are: compiling those takes longer than using them
    first, *rest = (_segment(part, pattern) for part in re.split(r"\*+", pattern))
    # An atomic group never gives back the earliest place where a segment fits. That loses no match, since a
    # later place leaves less to the segments that follow, and it is what keeps matching from blowing up.
    middle = "".join(f"(?>.*?{part})" for part in rest[:-1])
    last = "".join(f".*{part}" for part in rest[-1:])
    return re.compile(first + middle + last, re.DOTALL).fullmatch


def _segment(text: str, pattern: str) -> str:
    """The regular expression of a piece of a pattern that holds no `*`."""
    found, at = [], 0
    for token in _RANGE.finditer(text):
        found += [_literal(text[at : token.start()], pattern), _number(int(token[1]), int(token[2]), pattern)]
        at = token.end()
    return "".join([*found, _literal(text[at:], pattern)])


def _literal(text: str, pattern: str) -> str:
    if "[" in text or "]" in text:
        raise BadOption(f"{pattern!r} has brackets that hold no range of numbers.", hint="model.layers.[0-3].*")
    return "".join("." if character == "?" else re.escape(character) for character in text)


def _number(low: int, high: int, pattern: str) -> str:
    """A regular expression of the integers from low to high, as whole numbers in a text."""
    if low > high:
        raise BadOption(f"{pattern!r} asks for numbers from {low} to {high}.", hint=f"[{high}-{low}]")
    spans = []
    for length in range(len(str(low)), len(str(high)) + 1):
        start = max(low, 10 ** (length - 1) if length > 1 else 0)
        spans.append(_span(str(start), str(min(high, 10**length - 1))))
    return rf"(?<![0-9])(?:{'|'.join(spans)})(?![0-9])"


def _span(low: str, high: str) -> str:
    """A regular expression of the numbers from low to high, both of the same length."""
    if set(low) <= {"0"} and set(high) <= {"9"}:
        return "[0-9]" * len(low)
    if low[0] == high[0]:
        return low[0] + _span(low[1:], high[1:])
    rest = len(low) - 1
    parts = [low[0] + _span(low[1:], "9" * rest), high[0] + _span("0" * rest, high[1:])]
    if int(high[0]) - int(low[0]) > 1:
        parts.append(f"[{int(low[0]) + 1}-{int(high[0]) - 1}]" + "[0-9]" * rest)
    return f"(?:{'|'.join(parts)})"
