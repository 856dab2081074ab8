"""From a recipe to everything a merge needs: open adapters, weights, the base, the plan. Reads headers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.api import opening, weights
from loramerge.core.catalog import canonical_base, same_base
from loramerge.engine.extras import check_policy
from loramerge.engine.plan import Plan, Request, resolve_device
from loramerge.engine.plan import plan as make_plan
from loramerge.errors import BadOption, BaseMismatch
from loramerge.linalg import ranks
from loramerge.methods._method import MERGE
from loramerge.options import parse
from loramerge.recipe import Recipe

if TYPE_CHECKING:
    from loramerge.api.opening import Opened
    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter


@dataclass(frozen=True)
class Prepared:
    """Everything a merge needs, decided before the first tensor is read."""

    recipe: Recipe
    opened: Sequence[Opened]
    weights: tuple[float, ...]
    base: str | None
    plan: Plan
    notes: tuple[str, ...] = ()

    @property
    def adapters(self) -> list[Adapter]:
        """The open adapters, in the recipe's order."""
        return [one.adapter for one in self.opened]

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
    method = MERGE[recipe.method]
    if method.rank == "own" and recipe.rank != "max":
        raise BadOption(f"{recipe.method} decides its rank itself, so --rank does not apply.", hint="--method linear")
    if opened is None:
        opened = opening.open_all(session, recipe.adapters, allow_pickle=recipe.allow_pickle, headers_only=headers_only)
    adapters = [one.adapter for one in opened]
    opening.check_names(adapters)
    check_policy(adapters, recipe.extras)
    base, notes = _common_base(adapters, recipe)
    numbers = weights.resolve(
        [item.weight for item in recipe.adapters], recipe.weights or method.weights, normalize=recipe.normalize
    )
    request = Request(
        method=recipe.method,
        options=recipe.options,
        weights=numbers,
        rank=ranks.parse(recipe.rank),
        overrides=recipe.modules,
        seed=recipe.seed,
        scale=recipe.scale,
        dtype=recipe.dtype,
        dora=recipe.dora,
    )
    plan = make_plan(
        adapters,
        request,
        method,
        executor=session.executor,
        workers=session.workers,
        device=resolve_device(session.device),
        max_memory=session.max_memory,
    )
    return Prepared(recipe, opened, numbers, base, plan, (*notes, *plan.notes))


def _common_base(adapters: Sequence[Adapter], recipe: Recipe) -> tuple[str | None, tuple[str, ...]]:
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
        notes.append(f"base models differ ({first}, {other.base}); merged all the same")
    same = recipe.base or other or {adapter.base for adapter in named} == {first}
    return (first if same else canonical_base(first, recipe.aliases)), tuple(notes)
