"""From a recipe to everything a merge needs: open adapters, weights, the base, the plan. Reads headers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.api import basing, opening
from loramerge.api.settings import overrides_of, setting_of
from loramerge.core.catalog import canonical_base, same_base
from loramerge.engine.extras import check_policy
from loramerge.engine.plan import Plan, Request, resolve_device
from loramerge.engine.plan import plan as make_plan
from loramerge.engine.run import Inputs
from loramerge.errors import BadOption, BaseMismatch
from loramerge.methods._method import MERGE
from loramerge.options import parse
from loramerge.recipe import Recipe
from loramerge.registry import near

if TYPE_CHECKING:
    from loramerge.api.opening import Opened
    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter
    from loramerge.core.statistics import Statistics
    from loramerge.formats._base import Base


@dataclass(frozen=True)
class Prepared:
    """Everything a merge needs, decided before the first tensor is read."""

    recipe: Recipe
    opened: Sequence[Opened]
    weights: tuple[float, ...]
    base: str | None
    plan: Plan
    inputs: Inputs
    root: Path
    """What the recipe's paths are relative to."""
    notes: tuple[str, ...] = ()
    base_weights: Base | None = None
    """The weights of the base, where some update depends on them."""

    @property
    def adapters(self) -> list[Adapter]:
        """The open adapters, in the recipe's order."""
        return [one.adapter for one in self.opened]

    @property
    def shares(self) -> Sequence[float]:
        """What each adapter counts for where something other than updates is averaged."""
        shares = MERGE[self.recipe.method].shares
        return shares(self.options, self.weights) if shares else self.weights

    @property
    def options(self) -> Any:
        """The method's options, those left at their default too, where no rule for modules replaces them."""
        return parse(MERGE[self.recipe.method].options, self.recipe.options)


def prepare(
    session: Session, recipe: Recipe, opened: Sequence[Opened] | None = None, *, headers_only: bool = False
) -> Prepared:
    """Open the adapters (unless they are `opened` already), check that they go together, and plan.

    Reads headers only. With `headers_only` what is on a Hub stays there, so that nothing of it can be
    loaded afterwards.
    """
    setting = setting_of(recipe)
    if opened is None:
        opened = opening.open_all(session, recipe.adapters, allow_pickle=recipe.allow_pickle, headers_only=headers_only)
    adapters = [one.adapter for one in opened]
    opening.check_names(adapters)
    check_policy(adapters, recipe.extras)
    base, notes = common_base(adapters, recipe)
    opened, base_weights, said = basing.attach(session, recipe, opened, base)
    adapters = [one.adapter for one in opened]
    request = Request(
        setting,
        overrides_of(recipe, [adapter.name for adapter in adapters]),
        seed=recipe.seed,
        scale=recipe.scale,
        rescale=recipe.rescale == "norm",
        dtype=recipe.dtype,
        dora=recipe.dora,
    )
    inputs = inputs_of(session, recipe, adapters)
    plan = make_plan(
        adapters,
        request,
        statistics=inputs.statistics,
        metric=inputs.metric,
        executor=session.executor,
        workers=session.workers,
        device=resolve_device(session.device),
        max_memory=session.max_memory,
    )
    notes = (*notes, *said, *plan.notes)
    return Prepared(
        recipe, opened, tuple(setting.weights), base, plan, inputs, session.workspace.root, notes, base_weights
    )


def common_base(adapters: Sequence[Adapter], recipe: Recipe) -> tuple[str | None, tuple[str, ...]]:
    """The one base of all adapters, as the first of them names it. Raises BaseMismatch."""
    named = [adapter for adapter in adapters if adapter.base]
    first = recipe.base or (named[0].base if named else None)
    other = next((a for a in named if not same_base(a.base, first, recipe.aliases)), None)
    unnamed = [adapter.name for adapter in adapters if not adapter.base]
    notes = [f"{', '.join(unnamed)}: no base model named, taken for the others'"] if unnamed and named else []
    if other and not recipe.allow_base_mismatch:
        raise BaseMismatch(
            f"These adapters were made for different base models: {first} and {other.base}.",
            where=", ".join(dict.fromkeys([named[0].name, other.name])),
            hint="--base NAME=PATH if they are one model, --allow-base-mismatch if you know better",
        )
    if other:
        notes.append(f"base models differ ({first}, {other.base}); taken together all the same")
    same = recipe.base or other or {adapter.base for adapter in named} == {first}
    return (first if same else canonical_base(first, recipe.aliases)), tuple(notes)


def inputs_of(session: Session, recipe: Recipe, adapters: Sequence[Adapter]) -> Inputs:
    """The adapters with the statistics that the recipe names for them, by the adapters' names. Raises BadOption."""

    def read(path: str) -> Statistics:
        from loramerge.formats._statistics import read_statistics

        return read_statistics(session.workspace.root / path)

    names = [adapter.name for adapter in adapters]
    if unknown := [name for name in recipe.data if name not in names]:
        close = near(unknown[0], names) or names
        raise BadOption(f"--data names no adapter here: {unknown[0]!r}.", hint=", ".join(close))
    statistics = [read(recipe.data[name]) if name in recipe.data else None for name in names]
    return Inputs(tuple(adapters), tuple(statistics), read(recipe.metric) if recipe.metric else None)
