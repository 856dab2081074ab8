"""What `merge` and `lego` share: from options to one call of the library, and how its result is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge import options
from loramerge.cli._session import session
from loramerge.errors import BadOption

if TYPE_CHECKING:
    from loramerge.api.making import Merged
    from loramerge.api.session import Session
    from loramerge.cli._output import Output
    from loramerge.recipe import Recipe

_RUN = ("out", "force", "plan")
_POINT = ("t", "name", "rank", "norm", "relative_error")


def make(refs: Sequence[str], values: dict[str, Any], *, dump: bool = False, **what: Any) -> None:
    """Merge `refs` as the flags say; print the plan, the recipe, or the result."""
    run = {name: values.pop(name) for name in _RUN}
    with session() as (work, out):
        from loramerge import api

        values["data"] = options.pairs(values["data"], "--data NAME=FILE")
        _run(work, out, api.recipe_of(work, refs, **what, **values), run, dump=dump)


def walk(refs: Sequence[str], values: dict[str, Any], *, t: float | None, points: int | None) -> None:
    """One point of the way between two adapters as the flags say, or `points` of them."""
    run = {name: values.pop(name) for name in _RUN}
    with session() as (work, out):
        from loramerge import api

        values["data"] = options.pairs(values["data"], "--data NAME=FILE")
        if t is not None or run["plan"]:
            places = [t] if t is not None else api.places(points or 0)
            _run(work, out, api.recipe_at(work, refs, places[len(places) // 2], **values), run, dump=False)
        else:
            made = api.sweep(work, refs, points or 0, out=run["out"], force=run["force"], **values)
            data = [{"t": place, **one.facts} for place, one in made]
            out.table([{name: row.get(name) for name in _POINT} for row in data], id="name", data=data)
            for note in dict.fromkeys(note for _, one in made for note in one.report["notes"]):
                out.note(note)


def make_from_file(path: str, values: dict[str, Any], *, dump: bool, given: bool) -> None:
    """Merge as a recipe says; flags that a recipe has a key for are refused beside it."""
    run = {name: values.pop(name) for name in _RUN}
    with session() as (work, out):
        from loramerge import recipe

        plain = {**vars(recipe.Recipe(adapters=())), "weights": (), "weighting": None}
        plain |= {"bases": (), "data": (), "rules": ()}
        if given or any(value != plain[name] for name, value in values.items()):
            raise BadOption("The recipe says this itself.", where=path, hint=f"edit {path}")
        written = recipe.read(work.workspace.root / Path(path).expanduser())
        _run(work, out, written, run, dump=dump)


def _run(work: Session, out: Output, written: Recipe, run: Mapping[str, Any], *, dump: bool) -> None:
    from loramerge import api, recipe

    if dump:
        out.text(recipe.dump(written).splitlines(), recipe.to_mapping(written))
    elif run["plan"]:
        plan = api.planned(work, written)
        out.record(plan.facts, more=("families", plan.rows), id="rank", notes=plan.notes)
    else:
        _tell(out, api.make(work, written, out=run["out"], force=run["force"]), written)


def _tell(out: Output, made: Merged, written: Recipe) -> None:
    families, notes = made.report["families"], made.report["notes"]
    out.talk_table(families, title=f"{written.method} of {len(written.adapters)} adapters")
    out.result("Merged", made.facts, id="path", more={"families": families}, notes=notes)
    out.hint(f"loramerge push USER/{made.name}")
