"""The rules that `advise` goes by: figures of a comparison, and what method they speak for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

How = Mapping[str, Any]
"""Arguments of `recipe_of`."""


@dataclass(frozen=True)
class Facts:
    """What the rules look at: means over all pairs, and the extremes that they would hide."""

    n: int
    rank: int
    cosine: float
    closest: float
    row_overlap: float
    row_chance: float
    column_overlap: float
    column_chance: float
    sign_conflict: float
    weighted_conflict: float
    norm_ratio: float
    """The largest norm over the smallest that is not zero."""
    strongest: str
    norms: tuple[float, ...]

    @property
    def weighting(self) -> str:
        """The shorthand that about keeps the norm: Σ of n unrelated updates grows as √n, of n equal ones as n."""
        return "mean" if self.cosine > 0.5 else "sqrt"

    @property
    def evened(self) -> tuple[str, ...]:
        """Weights that give all updates one norm, with `weighting`."""
        alive = [norm for norm in self.norms if norm > 0]
        middle = math.exp(sum(map(math.log, alive)) / len(alive)) if alive else 0.0
        share = 1 / self.n if self.weighting == "mean" else 1 / math.sqrt(self.n)
        return tuple(f"{share * middle / norm:.4g}" if norm > 0 else "0" for norm in self.norms)

    @property
    def shrunk(self) -> float:
        """How much of the updates' (equal) norms is left in their mean."""
        return math.sqrt(max(0.0, (1 + (self.n - 1) * self.cosine) / self.n))


@dataclass(frozen=True)
class Rule:
    """Where `when` holds, `method` is worth a try, called as `how` says, because of `why` (a template over `f`)."""

    when: Callable[[Facts], bool]
    method: str
    why: str
    how: Callable[[Facts], How] = lambda f: {}


def _many(f: Facts) -> bool:
    return f.n > 50


def _alike(f: Facts) -> bool:
    return f.cosine > 0.9


def _one_space(f: Facts) -> bool:
    return f.row_overlap > 0.95 and f.row_chance < 0.5


def _uneven(f: Facts) -> bool:
    return f.norm_ratio > 3


def _at_odds(f: Facts) -> bool:
    # Unrelated updates disagree in half of the signs too; it is where they share directions that it costs.
    shared = max(f.row_overlap - f.row_chance, f.column_overlap - f.column_chance) > 0.1
    return shared and not _alike(f) and (f.cosine > 0.1 or f.weighted_conflict > 0.55) and f.sign_conflict > 0.3


def _unrelated(f: Facts) -> bool:
    return abs(f.cosine) < 0.1


def _any(f: Facts) -> bool:
    return True


_NEARLY_ONE = "their mean cosine is {f.cosine:.2f}, so they are nearly one update"
_UNEVEN = "their norms differ {f.norm_ratio:.1f} times, and a plain average is mostly {f.strongest}"
_AT_ODDS = (
    "they share directions (row overlap {f.row_overlap:.2f} where chance is {f.row_chance:.2f}, column overlap "
    "{f.column_overlap:.2f} where it is {f.column_chance:.2f}) and differ in {f.sign_conflict:.0%} of the signs"
)
_ORTHOGONAL = "they are nearly orthogonal (mean cosine {f.cosine:.2f})"
_TRIAL = (
    "at scale 0.5 and rank 8 it reached 0.853 on five adapters of one encoder that reach 0.863 by themselves "
    "(docs/performance.md)"
)


def _tsv(f: Facts) -> How:
    return {"weighting": "sum", "scale": 0.5}


def _spread(f: Facts) -> How:
    return {"weighting": f.weighting}


RULES = (
    Rule(_many, "linear", "{f.n} adapters: a sum takes them one by one, where others hold them all", _spread),
    Rule(lambda f: _alike(f) and f.n == 2, "slerp", _NEARLY_ONE + ": between them on the sphere the norm is kept"),
    Rule(lambda f: _alike(f) and f.n > 2, "karcher", _NEARLY_ONE + ": their mean on the sphere keeps the norm"),
    Rule(_alike, "model-stock", _NEARLY_ONE + ": the angles between them tell how far to trust their mean"),
    Rule(_alike, "linear", _NEARLY_ONE + ": their mean keeps {f.shrunk:.0%} of the norm", _spread),
    Rule(
        _one_space,
        "linear",
        "they read the same inputs (row overlap {f.row_overlap:.2f} where chance is {f.row_chance:.2f}), as adapters "
        "that share A do: their sum has hardly more than rank {f.rank}, so keeping that rank loses next to nothing",
        _spread,
    ),
    Rule(_uneven, "linear", _UNEVEN + ": these weights give all of them one norm", lambda f: {"weights": f.evened}),
    Rule(lambda f: _uneven(f) and f.n == 2, "slerp", _UNEVEN + ": on the sphere only directions count"),
    Rule(lambda f: _uneven(f) and f.n > 2, "karcher", _UNEVEN + ": on the sphere only directions count"),
    Rule(_at_odds, "ties", _AT_ODDS + ": electing a sign for each entry keeps them from cancelling"),
    Rule(_at_odds, "knots", _AT_ODDS + ": signs are elected in the directions they share, where they mean most"),
    Rule(
        _unrelated,
        "tsv",
        _ORTHOGONAL + ": making their singular vectors orthogonal to one another changes each little; " + _TRIAL,
        _tsv,
    ),
    Rule(
        _unrelated,
        "pico",
        _ORTHOGONAL + ": outputs that many of them use are turned down and the norm is restored, so no scale has to be "
        "found; it reached 0.853 there too",
    ),
    Rule(
        _unrelated,
        "linear",
        _ORTHOGONAL
        + ": a mean leaves {f.shrunk:.0%} of the norm, Σ/√n keeps it; there that was worth 0.08 of accuracy",
        _spread,
    ),
)
"""The first three that hold, each method once."""

FALLBACKS = (
    Rule(_any, "tsv", "mean cosine {f.cosine:.2f}, which is no special case; " + _TRIAL, _tsv),
    Rule(
        _any,
        "linear",
        "mean cosine {f.cosine:.2f}: the closest rank {f.rank} to their weighted sum, to compare others with",
        _spread,
    ),
    Rule(
        _any,
        "lego",
        "{f.n} adapters of rank {f.rank}: units that do the same become one, and {f.rank} are left in each module",
        lambda f: {"options": {"k": f.rank}},
    ),
    Rule(_any, "cat", "{f.n} adapters: their weighted sum with nothing cut off, at the price of the rank", _spread),
)
"""What fills up to two."""
