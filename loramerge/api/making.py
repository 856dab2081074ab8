"""Merges: from a recipe to a result folder, recorded in the lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loramerge.api import basing, opening, summary, weights
from loramerge.api.prepare import Prepared, prepare
from loramerge.errors import BadOption
from loramerge.methods._method import MERGE
from loramerge.options import convert, pairs, parse
from loramerge.recipe import Ingredient, Recipe, Rule
from loramerge.recipe import rules as parse_rules
from loramerge.registry import near

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter
    from loramerge.engine.plan import Plan


_FOR = "--for '*.mlp.*:method=lego,k=8'"


@dataclass(frozen=True)
class Merged:
    """A result: its name in the workspace, its folder, and what is to be said about it."""

    name: str
    path: Path
    report: Mapping[str, Any]
    """`overall`, `families` (rows), `modules` (by name) and `notes`."""

    @property
    def facts(self) -> dict[str, Any]:
        """The result in short, for a line or an object."""
        return {"name": self.name, "path": str(self.path), **self.report["overall"]}


@dataclass(frozen=True)
class Planned:
    """What a merge would do, from headers alone: nothing was read but those."""

    plan: Plan
    adapters: Sequence[Adapter]
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """The plan in short."""
        return summary.plan_facts(self.plan, self.adapters)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per family of modules."""
        return summary.plan_rows(self.plan, self.adapters)


def recipe_of(
    session: Session,
    refs: Sequence[str] = (),
    *,
    method: str = "linear",
    options: Mapping[str, Any] | None = None,
    rank: str | int | None = None,
    weights: Sequence[str | float] = (),
    weighting: Literal["mean", "sqrt", "sum"] | None = None,
    rules: Sequence[str] = (),
    k_for: Sequence[str] = (),
    preset: str | None = None,
    bases: Sequence[str] = (),
    **rest: Any,
) -> Recipe:
    """The recipe that a call amounts to. Without `refs`: all sources of the workspace.

    `weights` are numbers in order or `NAME=W` texts, `weighting` is mean, sqrt or sum; `rules` are
    `PATTERN:KEY=VALUE,…` texts and `k_for` `PATTERN=K` texts; `bases` are `PATH`, `NAME=PATH` or
    `NAME=OTHERNAME` texts (`--base`); `rest` are other fields of `Recipe`. Raises BadOption and UnknownName.
    """
    names = list(refs) or [entry.name for entry in session.workspace.sources()]
    given = _given([str(weight) for weight in weights], names)
    return Recipe(
        adapters=tuple(Ingredient(name, weight) for name, weight in zip(names, given, strict=True)),
        method=method,
        options=_typed(method, {**_preset(method, preset), **(options or {})}),
        modules=_rules(rules, k_for, method),
        rank="max" if rank is None else str(rank),
        weights=weighting,
        **{**basing.fields(session, bases), **rest},
    )


def merge(
    session: Session, refs: Sequence[str] = (), *, out: Path | None = None, force: bool = False, **what: Any
) -> Merged:
    """Merge adapters; `what` is as for `recipe_of`. Returns the recorded result; raises as `make` does."""
    return make(session, recipe_of(session, refs, **what), out=out, force=force)


def lego(
    session: Session, refs: Sequence[str] = (), *, k: int, options: Mapping[str, Any] | None = None, **what: Any
) -> Merged:
    """LoRA-LEGO: `merge` with method "lego" and `k` units per module."""
    return merge(session, refs, method="lego", options={"k": k, **(options or {})}, **what)


def planned(session: Session, recipe: Recipe) -> Planned:
    """What `make` would do. Reads headers only and imports no torch; raises what a bad merge would raise."""
    work = prepare(session, recipe, headers_only=True)
    return Planned(work.plan, work.adapters, work.notes)


def make(session: Session, recipe: Recipe, *, out: Path | None = None, force: bool = False) -> Merged:
    """Run a recipe into a folder (default `./<method>-<k or rank>`) that appears only when it is whole.

    A whole one that this very recipe made, and that was not recorded because the process was killed just
    then, is recorded now. Raises OutputExists before any work where another folder is there and `force`
    is not given, what the readers and the planner raise, and leaves nothing behind then.
    """
    from loramerge.api import result

    work = prepare(session, recipe)
    target = (session.workspace.root / (out.expanduser() if out else _default_name(work))).resolve()
    result.check_target(session, target, [(one.adapter.name, one.folder) for one in work.opened])
    report = None if force else result.unrecorded(session, work, target)
    if report is None:
        report = result.write(session, work, target, force=force)
    name = result.record(session, target)
    return Merged(name, target, report)


def _typed(method: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options given, as values of their types: that is what a recipe records. Raises BadOption."""
    parsed: Any = parse(MERGE[method].options, options)
    return {name: getattr(parsed, name) for name in (key.replace("-", "_") for key in options)}


def _given(texts: Sequence[str], refs: Sequence[str]) -> list[float | None]:
    """Weights by the names the adapters will have: the last part of each reference, or the whole of it."""
    names = opening.distinct([opening.short_name(ref) for ref in refs])
    if all("=" in text for text in texts):
        whole = dict(zip(refs, names, strict=True))
        texts = ["=".join([whole.get(name, name), value]) for name, _, value in (t.rpartition("=") for t in texts)]
    return weights.given(texts, names)


def _rules(texts: Sequence[str], k_for: Sequence[str], method: str) -> tuple[Rule, ...]:
    """Rules from `PATTERN:KEY=VALUE,…`, KEY being method, rank, weight.NAME or an option; one for each pattern."""
    found: dict[str, dict[str, Any]] = {}
    ks = pairs(k_for, "--k-for '*.mlp.*=4'")
    for text in [*texts, *(f"{pattern}:k={k}" for pattern, k in ks.items())]:
        pattern, colon, rest = text.partition(":")
        if not colon or not pattern:
            raise BadOption(f"{text!r} is not PATTERN:KEY=VALUE.", hint=_FOR)
        rule = found.setdefault(pattern, {"match": pattern, "options": {}, "weights": {}})
        for key, value in pairs(rest.split(","), _FOR).items():
            if key.startswith("weight."):
                rule["weights"][key.removeprefix("weight.")] = convert(value, float, key)
            elif key in ("method", "rank"):
                rule[key] = value
            else:
                rule["options"][key] = value
    made = parse_rules(list(found.values()))
    return tuple(replace(rule, options=_typed(rule.method or method, rule.options)) for rule in made)


def _preset(method: str, preset: str | None) -> Mapping[str, Any]:
    if preset is None:
        return {}
    presets = MERGE[method].presets
    if preset not in presets:
        close = ", ".join(near(preset, presets) or presets)
        raise BadOption(f"{method} has no preset {preset!r}.", hint=close or "none at all")
    return presets[preset]


def _default_name(work: Prepared) -> str:
    method = MERGE[work.recipe.method]
    if method.label:
        return f"{work.recipe.method}-{method.label(work.options)}"
    # A rank that the data chooses is not known yet; its rule is.
    by_data = ":" in work.recipe.rank or work.recipe.rank == "elbow"
    return f"{work.recipe.method}-{work.recipe.rank.replace(':', '-') if by_data else work.plan.rank}"
