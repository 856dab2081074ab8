"""A recipe: everything a merge needs, as YAML. A merge from flags writes the recipe it amounts to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml

from loramerge import options
from loramerge.errors import BadConfig, BadOption, UsageError

_LIMIT = 1_000_000


LARGEST = 1e20
"""Numbers beyond it, or nearer to zero than its inverse, make squares that leave float32's range."""


def _check_number(number: Any, what: str, where: str = "") -> None:
    if not isinstance(number, int | float) or not math.isfinite(number):
        raise BadOption(f"A {what} of {number} has no meaning.", where=where, hint="0.3")
    if number and not 1 / LARGEST <= abs(number) <= LARGEST:
        raise BadOption(f"A {what} of {number:g} is out of range.", where=where, hint=f"0, or up to {LARGEST:g}")


@dataclass(frozen=True)
class Ingredient:
    """One adapter of a recipe: how it is named, what it counts for (None: the method's default)."""

    ref: str
    weight: float | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if self.weight is not None:
            _check_number(self.weight, "weight", self.ref)


@dataclass(frozen=True)
class Rule:
    """What holds for modules whose canonical name matches; what a rule does not say is as everywhere.

    With another `method` only its own `options` hold, else they replace single ones. `weights` are by the
    names of adapters.
    """

    match: str
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    rank: str | None = None

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            _check_number(weight, "weight", name)


@dataclass(frozen=True)
class Recipe:
    """One call of `merge`. `modules` are rules of which the first that matches a module holds for it.

    `rescale`: "norm" gives each module's result the mean norm of its inputs, before `scale`. `data` names a
    file of statistics for an adapter, `metric` one by which truncation is measured. `aliases` are further
    names of one base model, NAME to PATH; `base_weights` is where its weights are, for DoRA; `profile`
    restricts the files to what a runtime takes ("vllm": one rank everywhere).
    """

    adapters: tuple[Ingredient, ...]
    method: str = "linear"
    options: Mapping[str, Any] = field(default_factory=dict)
    modules: tuple[Rule, ...] = ()
    rank: str = "max"
    weights: Literal["mean", "sqrt", "sum"] | None = None
    normalize: bool = False
    scale: float = 1.0
    rescale: Literal["norm", "none"] = "none"
    seed: int = 0
    dtype: Literal["F64", "F32", "F16", "BF16"] | None = None
    extras: str = "auto"
    dora: Literal["error", "factors"] = "error"
    base: str | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    base_weights: str | None = None
    allow_base_mismatch: bool = False
    allow_pickle: bool = False
    profile: Literal["vllm"] | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    metric: str | None = None

    def __post_init__(self) -> None:
        _check_number(self.scale, "scale")

    @property
    def files(self) -> tuple[str, ...]:
        """The files of statistics it names."""
        return (*self.data.values(), *([self.metric] if self.metric else []))


def read(path: Path) -> Recipe:
    """A recipe file. Raises UsageError where there is none, BadConfig with near names otherwise."""
    try:
        if path.stat().st_size > _LIMIT:
            raise BadConfig("A recipe of more than a megabyte is not a recipe.", where=str(path))
        # A subclass of yaml's SafeLoader: it makes plain values only.
        found = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UsageError(f"The recipe cannot be read: {error.strerror}.", where=str(path)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        raise BadConfig(
            f"This is no YAML of a recipe: {what}.", where=f"{path}:{mark.line + 1}" if mark else str(path)
        ) from None
    return from_mapping(found, str(path))


def from_mapping(found: Any, where: str = "recipe") -> Recipe:
    """A recipe from plain values, strictly; raises BadConfig, for an unknown key with its neighbours."""
    try:
        values = _table(found)
        if not isinstance(values.get("adapters"), list):
            raise BadOption("A recipe lists its adapters.", hint="adapters: [{ref: ./a}, {ref: ./b}]")
        adapters = tuple(map(_ingredient, values["adapters"]))
        return options.parse(Recipe, {**values, "adapters": adapters, "modules": rules(values.get("modules") or [])})
    except BadOption as error:
        raise BadConfig(error.message, where=where, hint=error.hint) from None


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
            plain[name] = _plain(value)
    if recipe.modules:
        plain["modules"] = [{k: _plain(v) for k, v in vars(rule).items() if v} for rule in recipe.modules]
    return plain


def dump(recipe: Recipe) -> str:
    """The recipe as YAML text."""
    return yaml.safe_dump(to_mapping(recipe), sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    """YAML of plain values, strictly: no aliases (ten lines of them can stand for gigabytes), no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("a recipe has no aliases")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.YAMLError(f"a key stands twice among {', '.join(map(str, found))}")
        return found


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadOption(f"A mapping is wanted here, not {type(value).__name__}.")
    return value


def _ingredient(item: Any) -> Ingredient:
    return Ingredient(item) if isinstance(item, str) else options.parse(Ingredient, _table(item))


def rules(items: Any) -> tuple[Rule, ...]:
    """Rules from plain values; raises BadOption, also where a pattern stands twice."""
    made = tuple(options.parse(Rule, _table(item)) for item in (items if isinstance(items, list) else [items]))
    if len({rule.match for rule in made}) < len(made):
        raise BadOption("A pattern of modules is given twice.", hint="the first match wins")
    return made


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
