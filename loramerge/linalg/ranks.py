"""How many directions to keep: rules that a header or a spectrum answers. Plain Python, no torch.

S are the singular values of ΔW, largest first.

    N            N directions
    max          as many as the widest input has
    sum          all: the inputs' ranks added up
    energy:t     the fewest with Σ_{j≤k} S² ≥ t · Σ S²
    sv-fro:t     the fewest with √(Σ_{j≤k} S² / Σ S²) ≥ t, that is energy:t²
    sv-ratio:t   those with S_k > S_1 / t
    elbow        those before the bend of the spectrum: the point (j, S_j), both axes scaled to
                 [0, 1], that is farthest from the chord between the first and the last
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from loramerge.errors import BadOption

Kind = Literal["fixed", "max", "sum", "energy", "sv-fro", "sv-ratio", "elbow"]

_NUMBER = re.compile(r"[0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?", re.ASCII)
_HINT = "16, max, sum, energy:0.95, sv-fro:0.97, sv-ratio:100, elbow"


@dataclass(frozen=True, slots=True)
class RankRule:
    """One of the rules above; `value` is its N or t. `str(rule)` is the text that `parse` reads."""

    kind: Kind = "max"
    value: float = 0.0

    def __post_init__(self) -> None:
        if not _sensible(self.kind, self.value):
            raise BadOption(f"{self} is not a rank.", hint=_HINT)

    def __str__(self) -> str:
        if self.kind == "fixed":
            return f"{self.value:g}"
        return f"{self.kind}:{self.value:g}" if self.kind in ("energy", "sv-fro", "sv-ratio") else self.kind

    def asked(self, ranks: Sequence[int]) -> int | None:
        """The rank that the inputs' ranks alone settle; None where the spectrum has to be known."""
        if self.kind == "fixed":
            return int(self.value)
        if self.kind == "max":
            return max(ranks, default=1)
        return sum(ranks) if self.kind == "sum" else None

    def bound(self, ranks: Sequence[int], out: int, in_: int, *, dense: bool = False) -> int:
        """The most directions that can be kept of a sum of updates of these ranks and shape (out, in).

        A `dense` result has full rank whatever the updates' ranks are.
        """
        asked = self.asked(ranks)
        there = min(out, in_) if dense else sum(ranks)
        return max(1, min(there, min(out, in_) if asked is None else asked))

    def choose(self, spectrum: Sequence[float], ranks: Sequence[int]) -> int:
        """How many of the singular values to keep: at least one, at most those there are."""
        asked = self.asked(ranks)
        wanted = _SPECTRAL[self.kind](spectrum, self.value) if asked is None else asked
        return max(1, min(wanted, len(spectrum)))


def parse(text: str | int) -> RankRule:
    """A rule from its text; raises BadOption."""
    kind, colon, value = str(text).strip().partition(":")
    if kind.isdecimal() and not colon:
        return RankRule("fixed", int(kind))
    if kind in ("max", "sum", "elbow") and not colon:
        return RankRule(kind)  # type: ignore[arg-type]
    if kind in ("energy", "sv-fro", "sv-ratio") and _NUMBER.fullmatch(value):
        return RankRule(kind, float(value))  # type: ignore[arg-type]
    raise BadOption(f"{text!r} is not a rank.", hint=_HINT)


def _sensible(kind: Kind, value: float) -> bool:
    if kind == "fixed":
        return value >= 1 and float(value).is_integer()
    if kind in ("energy", "sv-fro"):
        return 0 < value <= 1
    return value > 1 if kind == "sv-ratio" else True


def _energy(spectrum: Sequence[float], share: float) -> int:
    energies = list(accumulate(value * value for value in spectrum))
    return next((k for k, energy in enumerate(energies, 1) if energy >= share * energies[-1]), 1)


def _sv_fro(spectrum: Sequence[float], share: float) -> int:
    return _energy(spectrum, share * share)


def _sv_ratio(spectrum: Sequence[float], ratio: float) -> int:
    return sum(value > spectrum[0] / ratio for value in spectrum)


def _elbow(spectrum: Sequence[float], _: float) -> int:
    span, drop = len(spectrum) - 1, spectrum[0] - spectrum[-1] if spectrum else 0.0
    if span < 2 or drop <= 1e-9 * spectrum[0]:
        return len(spectrum)
    above = [(value - spectrum[-1]) / drop - (1 - j / span) for j, value in enumerate(spectrum)]
    bend = max(range(len(above)), key=lambda j: abs(above[j]))
    if abs(above[bend]) < 1e-9:
        return len(spectrum)  # a straight line has no bend
    # Below the chord the point is the first of the tail; above it, the last before the drop.
    return bend + (above[bend] > 0)


_SPECTRAL = {"energy": _energy, "sv-fro": _sv_fro, "sv-ratio": _sv_ratio, "elbow": _elbow}
