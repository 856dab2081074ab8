"""Between adapters: points of the way from one to another, and the moving average of checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loramerge.api.making import Merged, make, merge, recipe_of
from loramerge.errors import BadOption, OutputExists, UsageError
from loramerge.methods._weighing import check_between

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.recipe import Recipe

Space = Literal["update", "factors"]
Arc = Literal["lerp", "slerp"]


def recipe_at(
    session: Session, refs: Sequence[str], t: float, *, space: Space = "update", path: Arc = "lerp", **what: Any
) -> Recipe:
    """The recipe of the point at t of the way from the first of two adapters to the second; `what`: see `recipe_of`.

    In the space of updates the way is straight ("lerp") or along the arc of directions ("slerp"); in that of
    factors A and B are interpolated each, which bends it. Raises BadOption for a t outside [0, 1], UsageError
    for more or fewer than two adapters.
    """
    check_between(t)
    if len(refs) != 2:
        raise UsageError(f"A way goes from one adapter to one other, not among {len(refs)}.")
    if space == "update":
        found: dict[str, Any] = {"method": "interpolate" if path == "lerp" else "slerp", "options": {"t": t}}
    elif path == "slerp":
        raise BadOption("The arc is one of updates, not of factors.", hint="--space update --path slerp")
    elif what.get("weights") or what.get("weighting"):
        raise BadOption("Factors are weighed by t alone.", hint="no -w, or --space update")
    else:
        found = {"method": "factorwise", "options": {"formula": "plain"}, "weights": [1 - t, t]}
    return recipe_of(session, refs, **{**what, **found})


def places(points: int) -> list[float]:
    """As many numbers from 0 to 1, evenly. Raises BadOption below two."""
    if points < 2:
        raise BadOption(f"A way of {points} points has no two ends.", hint="--points 2 or more")
    return [at / (points - 1) for at in range(points)]


def interpolate(
    session: Session, refs: Sequence[str], t: float, *, out: Path | None = None, force: bool = False, **what: Any
) -> Merged:
    """The point at t of the way from the first of two adapters to the second.

    `what` is as for `recipe_at`. Raises what that and `make` raise.
    """
    return make(session, recipe_at(session, refs, t, **what), out=out, force=force)


def sweep(
    session: Session, refs: Sequence[str], points: int, *, out: Path | None = None, force: bool = False, **what: Any
) -> list[tuple[float, Merged]]:
    """That many points of the way, both ends among them, each with its t, in the folders `out`-000, `out`-001, ….

    Without `out` they are called by the method. Raises OutputExists before any work where one of the folders
    is there and `force` is not given, and what `interpolate` raises.
    """
    recipes = {t: recipe_at(session, refs, t, **what) for t in places(points)}
    stem = out or Path(next(iter(recipes.values())).method)
    targets = [stem.with_name(f"{stem.name}-{number:03d}") for number in range(points)]
    there = [target for target in targets if (session.workspace.root / target.expanduser()).exists()]
    if there and not force:
        raise OutputExists("The output is there already.", where=str(there[0]), hint="another -o, or --force")
    made = zip(recipes.items(), targets, strict=True)
    return [(t, make(session, recipe, out=target, force=force)) for (t, recipe), target in made]


def ema(
    session: Session,
    refs: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    out: Path | None = None,
    force: bool = False,
    **what: Any,
) -> Merged:
    """The moving average of checkpoints, oldest first; `options` are those of the method `ema`.

    Raises UsageError for fewer than two, and what `make` raises.
    """
    if not refs:
        raise UsageError("There are no checkpoints to average.", hint="loramerge ema ./checkpoint-1 ./checkpoint-2")
    return merge(session, refs, method="ema", options=options, out=out, force=force, **what)
