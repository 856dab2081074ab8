"""`--base`: other names of a base model, or its weights, which make DoRA updates exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.core.catalog import bases, canonical_base, same_base
from loramerge.errors import BadOption, BaseMismatch, IncompatibleError, NotFound
from loramerge.hub.reference import parse
from loramerge.methods._method import MERGE
from loramerge.options import pairs
from loramerge.workspace.references import is_path

if TYPE_CHECKING:
    from loramerge.api.opening import Opened
    from loramerge.api.session import Session
    from loramerge.formats._base import Base
    from loramerge.recipe import Recipe

_HINT = "--base PATH, a folder with model.safetensors; --base NAME=PATH; --base NAME=OTHERNAME"


def fields(session: Session, texts: Sequence[str]) -> dict[str, Any]:
    """A recipe's `aliases` and `base_weights` as texts say them: PATH, NAME=PATH or NAME=OTHERNAME.

    A PATH where the weights of a model are is one; anything else behind `=` is a name. Raises BadOption for a
    text that is neither, a name that stands twice, and weights of several models.
    """
    if not texts:
        return {}
    from loramerge.formats._base import is_base

    named = [text for text in texts if not is_base(_at(session, text))]
    for text in named:
        if not all(text.partition("=")):
            raise BadOption(f"{text!r} is no name of a base model, and no weights are there.", hint=_HINT)
    aliases = pairs(named, _HINT)
    found = {text: _at(session, text).resolve() for text in (*texts, *aliases.values()) if is_base(_at(session, text))}
    if len(set(found.values())) > 1:
        raise BadOption(f"Several weights of a base: {', '.join(found)}.", hint="--base with one PATH")
    return {"aliases": aliases, "base_weights": next(iter(found), None)}


def attach(
    session: Session, recipe: Recipe, opened: Sequence[Opened], base: str | None
) -> tuple[Sequence[Opened], Base | None, tuple[str, ...]]:
    """The adapters with DoRA made exact, the base's weights that this took, and what is to be said. Reads headers only.

    Raises what opening the base and `with_base` raise, BaseMismatch where the weights are known to be another
    model's, BadOption beside `--dora factors`, IncompatibleError for a method that works on stored units.
    """
    if recipe.base_weights is None:
        return opened, None, ()
    from loramerge.formats._dora import has_dora, with_base

    names = [one.adapter.name for one in opened if has_dora(one.adapter)]
    if not names:
        return opened, None, ("the weights of the base were not needed: no adapter has DoRA magnitudes",)
    if recipe.dora == "factors":
        raise BadOption("With the base's weights no DoRA magnitude has to be left out.", hint="without --dora factors")
    _check_methods(recipe, names)
    weights = open_weights(session, recipe.base_weights)
    _check_name(recipe, weights, base)
    exact = [replace(one, adapter=with_base(one.adapter, weights)) for one in opened]
    return exact, weights, (f"{', '.join(names)}: DoRA made exact with the weights at {recipe.base_weights}",)


def open_weights(session: Session, text: str) -> Base:
    """The base at a path as a recipe has it: relative to the workspace. Raises what `open_base` raises."""
    from loramerge.formats._base import open_base

    return open_base(_at(session, text))


def folder(session: Session, text: str) -> tuple[Path, str]:
    """The folder of a base model, fetched where it is a repo's, and its name: the folder's own, or the repo's."""
    local = _at(session, text)
    if is_path(text) or local.is_dir():
        return local, local.resolve().name
    from loramerge.hub.base import fetch_base

    found = parse(text)
    return fetch_base(session.hub, found), found.repo


def _at(session: Session, text: str) -> Path:
    try:
        return session.workspace.root / Path(text).expanduser()
    except RuntimeError:  # Python's word for a user who has no home
        raise NotFound("There is no such user.", where=text, hint=_HINT) from None


def _check_methods(recipe: Recipe, names: Sequence[str]) -> None:
    methods = dict.fromkeys([recipe.method, *(rule.method for rule in recipe.modules if rule.method)])
    by_units = [method for method in methods if "gauge" in MERGE[method].breaks]
    if by_units:
        raise IncompatibleError(
            f"{by_units[0]} works on units as they are stored, and an exact DoRA update has none of its own.",
            where=", ".join(names),
            hint="--method linear; or without --base, --dora factors (approximate)",
        )


def _check_name(recipe: Recipe, weights: Base, base: str | None) -> None:
    """Raises BaseMismatch where who the weights belong to is known, and it is not the adapters' base."""
    said = next((name for name, other in recipe.aliases.items() if other == recipe.base_weights), None)
    # A path of somebody's machine, or a name nobody here knows, tells nothing.
    owner = said or (weights.name if canonical_base(weights.name) in bases() else None)
    known = said or canonical_base(base, recipe.aliases) in bases()
    if owner and known and not same_base(owner, base, recipe.aliases) and not recipe.allow_base_mismatch:
        raise BaseMismatch(
            f"These are the weights of {owner}, and the adapters were made for {base}.",
            where=str(weights.folder),
            hint="--base with the adapters' own base; --allow-base-mismatch if you know better",
        )
