"""What each adapter counts for: from `-w`, `--weights` and `--normalize` to one number each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from loramerge.errors import BadOption
from loramerge.registry import near

DEFAULTS: Mapping[str, Callable[[int], float]] = {
    "mean": lambda n: 1 / n,
    "sqrt": lambda n: 1 / math.sqrt(n),
    "sum": lambda n: 1.0,
}


def given(texts: Sequence[str], names: Sequence[str]) -> list[float | None]:
    """One weight or None per name, from `0.3` in order or `NAME=0.3`; raises BadOption."""
    named = [text for text in texts if "=" in text]
    if named and len(named) < len(texts):
        raise BadOption("Some weights name their adapter and some do not.", hint="-w a=0.3 -w b=0.7, or -w 0.3 -w 0.7")
    if named:
        return _named(named, names)
    if texts and len(texts) != len(names):
        raise BadOption(f"{len(texts)} weights for {len(names)} adapters.", where=", ".join(names), hint="one -w each")
    return [_number(text) for text in texts] or [None] * len(names)


def resolve(weights: Sequence[float | None], default: str, *, normalize: bool = False) -> tuple[float, ...]:
    """Numbers for all: those given, `default` (a key of DEFAULTS) for the rest; raises BadOption."""
    share = DEFAULTS[default](max(len(weights), 1))
    found = [share if weight is None else weight for weight in weights]
    total = sum(found)
    if normalize and total == 0:
        raise BadOption("The weights sum to zero, so they cannot be normalised.")
    return tuple(weight / total for weight in found) if normalize else tuple(found)


def _named(texts: Sequence[str], names: Sequence[str]) -> list[float | None]:
    found: dict[str, float] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        if name not in names:
            raise BadOption(f"No adapter here is named {name!r}.", hint=", ".join(near(name, names) or names))
        if name in found:
            raise BadOption(f"{name} has two weights.")
        found[name] = _number(value)
    return [found.get(name) for name in names]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadOption(f"{text!r} is not a weight.", hint="-w 0.3, or -w NAME=0.3") from None
