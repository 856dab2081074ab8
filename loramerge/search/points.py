"""Points of a search as merges: the space that texts describe for some sources, and the recipe of a point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loramerge.api.making import recipe_of
from loramerge.core.names import natural, place
from loramerge.errors import BadOption
from loramerge.methods._method import MERGE
from loramerge.search.space import WEIGHT, read

if TYPE_CHECKING:
    from loramerge.api.candidates import Maker
    from loramerge.api.session import Session
    from loramerge.recipe import Recipe
    from loramerge.search.space import Point, Space


def space_of(texts: Sequence[str], maker: Maker, *, method: str, data: bool) -> Space:
    """The space of the texts, `*` standing for every source, and `@families` or `@layers` for rules of modules.

    `method` is that of all points where none is searched. Without texts the scale alone is searched.
    """
    usable = {
        name: MERGE[name].options.__dataclass_fields__  # type: ignore[attr-defined]
        for name in MERGE.names()
        if data or not MERGE[name].needs
    }
    count = len(maker.opened)
    fitting = {n: f for n, f in usable.items() if MERGE[n].least <= count <= (MERGE[n].most or count)}
    return read([one for text in texts or ["scale=log:0.3..3"] for one in _expanded(text, maker)], fitting, method)


def _expanded(text: str, maker: Maker) -> list[str]:
    """`weight.*` for each source, `@families` and `@layers` for each of them."""
    name, equals, domain = text.partition("=")
    if not name.startswith(WEIGHT):
        return [text]
    who, _, where = name.removeprefix(WEIGHT).partition("@")
    if who != "*" and who not in maker.names:
        raise BadOption(f"No source is called {who!r}.", where=text, hint=", ".join(maker.names))
    modules = sorted({module for source in maker.sources for module in source.terms}, key=natural)
    patterns = (
        {"families": _families, "layers": _layers}[where](modules) if where in ("families", "layers") else [where]
    )
    sources = maker.names if who == "*" else [who]
    at = [f"@{pattern}" if pattern else "" for pattern in patterns]
    return [f"{WEIGHT}{source}{pattern}{equals}{domain}" for source in sources for pattern in at]


def _families(modules: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(f"*.{module.rpartition('.')[2]}" for module in modules))


def _layers(modules: Sequence[str]) -> list[str]:
    """A pattern for the modules of each layer."""
    found = []
    for module in modules:
        parts = module.split(".")
        layer = place(module).layer
        if layer is not None:
            found.append(".".join(parts[: parts.index(str(layer)) + 1]) + ".*")
    return list(dict.fromkeys(found))


def recipe_for(
    session: Session, refs: Sequence[str], point: Point, rank: str | None, merging: Mapping[str, Any]
) -> Recipe:
    """The merge that a point stands for: its method, options, scale, rank, and weights, for some modules or all.

    `merging` says what the point does not, the method among it.
    """
    method = str(point["method"] if "method" in point else merging["method"])
    weights = {name.removeprefix(WEIGHT): value for name, value in point.items() if name.startswith(WEIGHT)}
    fields = MERGE[method].options.__dataclass_fields__  # type: ignore[attr-defined]
    options = {name: value for name, value in point.items() if name in fields}
    rank = str(point["rank"]) if "rank" in point else rank
    what: dict[str, Any] = {**merging, "method": method, "scale": float(point.get("scale", 1.0))}
    if MERGE[method].rank == "own":
        # A method that decides its rank is asked for as many units.
        if "k" in fields and "k" not in options and rank is not None and str(rank).isdecimal():
            options["k"] = int(rank)
        rank = None
    rules: dict[str, list[str]] = {}
    for key, value in weights.items():
        name, at, pattern = key.partition("@")
        if at:
            rules.setdefault(pattern, []).append(f"weight.{name}={value!r}")
    everywhere = [f"{name}={value!r}" for name, value in weights.items() if "@" not in name]
    return recipe_of(
        session,
        refs,
        options=options,
        rank=rank,
        weights=everywhere,
        rules=[f"{pattern}:{','.join(found)}" for pattern, found in rules.items()],
        **what,
    )


def named(point: Point) -> str:
    """A point in short."""
    told = [f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in point.items()]
    return " ".join(text.removeprefix("method=") for text in told) or "default"
