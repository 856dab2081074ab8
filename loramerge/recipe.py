"""A recipe: everything a merge needs, as YAML. A merge from flags writes the recipe it amounts to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from loramerge.errors import BadConfig, UsageError
from loramerge.registry import near

_LIMIT = 1_000_000


@dataclass(frozen=True)
class Ingredient:
    """One adapter of a recipe: how it is named, what it counts for (None: the method's default)."""

    ref: str
    weight: float | None = None
    name: str | None = None


@dataclass(frozen=True)
class Recipe:
    """One call of `merge`. `modules` maps patterns to options that replace `options` there.

    `aliases` are further names of one base model, NAME to PATH; `profile` restricts the files to what
    a runtime takes ("vllm": one rank everywhere).
    """

    adapters: tuple[Ingredient, ...]
    method: str = "linear"
    options: Mapping[str, Any] = field(default_factory=dict)
    modules: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    rank: str = "max"
    weights: str | None = None
    normalize: bool = False
    scale: float = 1.0
    seed: int = 0
    dtype: str | None = None
    extras: str = "auto"
    dora: str = "error"
    base: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    allow_base_mismatch: bool = False
    allow_pickle: bool = False
    profile: str | None = None


def read(path: Path) -> Recipe:
    """A recipe file. Raises UsageError where there is none, BadConfig with near names otherwise."""
    import yaml

    try:
        if path.stat().st_size > _LIMIT:
            raise BadConfig("A recipe of more than a megabyte is not a recipe.", where=str(path))
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"The recipe cannot be read: {error.strerror}.", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise BadConfig(f"The recipe is not YAML: {first}", where=str(path)) from None
    return from_mapping(found, str(path))


def from_mapping(found: Any, where: str = "recipe") -> Recipe:
    """A recipe from plain values, strictly: an unknown key is an error that names its neighbours."""
    _keys(found, [f.name for f in fields(Recipe)], where)
    if not isinstance(found.get("adapters"), list):
        raise BadConfig("A recipe lists its adapters.", where=where, hint="adapters: [{ref: ./a}, {ref: ./b}]")
    values = {key: found[key] for key in found if key not in ("adapters", "modules")}
    if "rank" in values:
        values["rank"] = str(values["rank"])
    return Recipe(
        adapters=tuple(_ingredient(item, where) for item in found["adapters"]),
        modules=_modules(found.get("modules") or [], where),
        **values,
    )


def to_mapping(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, without what is left at its default."""
    default = Recipe(adapters=())
    plain: dict[str, Any] = {
        "adapters": [{k: v for k, v in vars(item).items() if v is not None} for item in recipe.adapters],
        "method": recipe.method,
    }
    for name in (f.name for f in fields(Recipe)):
        value = getattr(recipe, name)
        if name not in ("adapters", "method", "modules") and value != getattr(default, name):
            plain[name] = dict(value) if isinstance(value, Mapping) else value
    if recipe.modules:
        plain["modules"] = [{"match": match, "options": dict(o)} for match, o in recipe.modules.items()]
    return plain


def dump(recipe: Recipe) -> str:
    """The recipe as YAML text."""
    import yaml

    return str(yaml.safe_dump(to_mapping(recipe), sort_keys=False, allow_unicode=True))


def _keys(found: Any, known: list[str], where: str) -> None:
    if not isinstance(found, Mapping):
        raise BadConfig(f"A mapping is wanted here, not {type(found).__name__}.", where=where)
    for key in found:
        if key not in known:
            close = near(str(key), known) or known
            raise BadConfig(f"A recipe has no key {key!r}.", where=where, hint=", ".join(close))


def _ingredient(item: Any, where: str) -> Ingredient:
    if isinstance(item, str):
        return Ingredient(item)
    _keys(item, ["ref", "weight", "name"], where)
    weight = item.get("weight")
    if not isinstance(item.get("ref"), str) or isinstance(weight, bool) or not isinstance(weight, int | float | None):
        raise BadConfig(f"{item!r} is not an adapter of a recipe.", where=where, hint="{ref: ./a, weight: 0.5}")
    return Ingredient(item["ref"], None if weight is None else float(weight), item.get("name"))


def _modules(items: Any, where: str) -> dict[str, Mapping[str, Any]]:
    made: dict[str, Mapping[str, Any]] = {}
    for item in items if isinstance(items, list) else [items]:
        _keys(item, ["match", "options"], where)
        if not isinstance(item.get("match"), str) or not isinstance(item.get("options"), Mapping):
            raise BadConfig(
                f"{item!r} is not a rule for modules.", where=where, hint='{match: "*.mlp.*", options: {k: 8}}'
            )
        made[item["match"]] = item["options"]
    return made
