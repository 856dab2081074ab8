"""Which merge methods to try on some adapters, and why: rules on the figures of their comparison."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.api import opening
from loramerge.api._rules import FALLBACKS, RULES, Facts, How
from loramerge.api.comparing import Comparison, mean, measure, open_all
from loramerge.api.making import recipe_of
from loramerge.api.prepare import prepare
from loramerge.api.summary import span
from loramerge.core.provenance import finite
from loramerge.engine.extras import merge_extras
from loramerge.errors import LoramergeError
from loramerge.formats._dora import has_dora
from loramerge.methods._method import MERGE

if TYPE_CHECKING:
    from loramerge.api.opening import Opened
    from loramerge.api.session import Session

_MEANS = (
    "cosine",
    "row_overlap",
    "row_chance",
    "column_overlap",
    "column_chance",
    "sign_conflict",
    "weighted_conflict",
)

_FLAGS = {
    "weighting": "--weights",
    "weights": "-w",
    "scale": "--scale",
    "options": "-O",
    "rank": "--rank",
    "dora": "--dora",
    "extras": "--extras",
    "bases": "--base",
    "allow_base_mismatch": "--allow-base-mismatch",
    "allow_pickle": "--allow-pickle",
}


@dataclass(frozen=True)
class Advice:
    """The figures, and the methods to try: rows of method, why, command."""

    adapters: Sequence[Mapping[str, Any]]
    facts: Facts
    methods: Sequence[Mapping[str, str]]
    notes: tuple[str, ...]

    @property
    def commands(self) -> list[str]:
        """The commands to run, the best first."""
        return [row["command"] for row in self.methods]

    @property
    def data(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        figures = finite(asdict(self.facts))
        return {"adapters": self.adapters, "figures": figures, "methods": self.methods, "notes": self.notes}

    @property
    def lines(self) -> list[str]:
        """The advice as text."""
        f = self.facts
        bases = span([row["base"] for row in self.adapters if row["base"]])
        found = [
            f"{f.n} adapters" + (f" of {bases}" if bases else ""),
            f"cosine {f.cosine:.3f} (the closest two {f.closest:.3f}), norms up to {f.norm_ratio:.1f} times apart",
            f"row overlap {f.row_overlap:.3f} (chance {f.row_chance:.3f}),"
            f" column overlap {f.column_overlap:.3f} (chance {f.column_chance:.3f})",
            f"sign conflict {f.sign_conflict:.3f}, weighted {f.weighted_conflict:.3f} (chance 0.5)",
        ]
        for number, row in enumerate(self.methods, 1):
            found += ["", f"{number}. {row['method']}: {row['why']}", f"   {row['command']}"]
        return found


def advise(session: Session, refs: Sequence[str] = (), **what: Any) -> Advice:
    """Two or three merge methods for these adapters (without `refs`: the sources), and the commands to run.

    `what` and what is raised are as for `compare`. Every command has been planned from the headers: what
    cannot be run on these adapters is not named. Raises the planner's error where nothing can.
    """
    given = {name: value for name, value in what.items() if value}
    recipe = recipe_of(session, refs, **given)
    opened = open_all(session, recipe)
    compared = measure(session, recipe, opened)
    facts = _facts(compared)
    common, notes = _common(opened, bool(recipe.base_weights))
    methods = _named(session, refs, {**common, **given}, facts, opened)
    return Advice(compared.adapters, facts, methods, (*compared.notes, *notes))


def _facts(compared: Comparison) -> Facts:
    norms = tuple(row["norm"] for row in compared.adapters)
    alive = [norm for norm in norms if norm > 0]
    return Facts(
        n=len(norms),
        rank=max(row["rank"] for row in compared.adapters),
        closest=compared.pairs[0]["cosine"],
        norm_ratio=max(alive) / min(alive) if alive else 1.0,
        strongest=compared.names[norms.index(max(norms))],
        norms=norms,
        **{name: mean(compared.overall[name]) for name in _MEANS},
    )


def _common(opened: Sequence[Opened], exact: bool) -> tuple[dict[str, Any], list[str]]:
    """What every command needs beside its method because of what the adapters hold, and what is to be said of it."""
    adapters = [one.adapter for one in opened]
    common, notes = {}, []
    if not exact and any(map(has_dora, adapters)):
        common["dora"] = "factors"
        notes.append("--dora factors is approximate; with --base and the base's weights DoRA is exact")
    try:
        extras = merge_extras(adapters, [1.0] * len(adapters), "auto")
        if extras.heads:
            notes.append(f"the task heads of {len(extras.heads)} adapters differ: each is kept apart in heads/")
    except LoramergeError as error:
        common["extras"] = "drop"
        notes.append(f"{error.message} So the commands leave extras out (--extras drop)")
    return common, notes


def _named(
    session: Session, refs: Sequence[str], common: How, facts: Facts, opened: Sequence[Opened]
) -> list[dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    refused: LoramergeError | None = None
    for rules, enough in ((RULES, 3), (FALLBACKS, 2)):
        for rule in rules:
            if len(found) >= enough or rule.method in found or rule.method not in MERGE or not rule.when(facts):
                continue
            how = {**common, **rule.how(facts), "method": rule.method}
            try:
                prepare(session, recipe_of(session, refs, **how), opened)
            except LoramergeError as error:
                refused = error
                continue
            why = rule.why.format(f=facts)
            found[rule.method] = {"method": rule.method, "why": why, "command": _command(session, refs, how)}
    if not found and refused:
        raise refused
    return list(found.values())


def _command(session: Session, refs: Sequence[str], how: How) -> str:
    where = ["-C", str(session.folder)] if session.folder != Path() else []
    words = ["loramerge", *where, "merge", *refs, "--method", how["method"]]
    for name, flag in _FLAGS.items():
        value = how.get(name)
        if value is True:
            words.append(flag)
        elif isinstance(value, Mapping):
            words += [word for key, item in value.items() for word in (flag, f"{key}={item}")]
        elif value:
            words += [
                word for item in ([value] if isinstance(value, str | float) else value) for word in (flag, str(item))
            ]
    return shlex.join([*words, "-o", _free(session, f"merged-{how['method']}")])


def _free(session: Session, name: str) -> str:
    """The name, or the next one, that no folder and no entry of the workspace has."""
    root = session.workspace.root
    beside = [path.name for path in root.iterdir()] if root.is_dir() else []
    taken = {*beside, *(entry.name for entry in session.workspace.entries())}
    return opening.distinct([*sorted(taken), name])[-1]
