"""What is known beforehand: base models and their other names, module families, papers.

The YAML files lie in `loramerge/catalogs` of an installed wheel and in `catalogs` at the top of a
checkout. They are read when first asked for, never at import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from loramerge.core.names import matches, suffix

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

Patterns = Mapping[str, tuple[str, ...]]

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Architecture:
    """A naming scheme of model code: for each module family the patterns of its modules' names.

    `former` are names that transformers used before version 5. `verified` is False where no test can
    build the model, and `reason` says why.
    """

    name: str
    modules: Patterns
    model_types: tuple[str, ...] = ()
    former: Patterns = field(default_factory=dict)
    verified: bool = True
    reason: str = ""

    @property
    def patterns(self) -> tuple[tuple[str, str], ...]:
        """(pattern, family) of all names it knows, in the catalog's order."""
        both = (*self.modules.items(), *self.former.items())
        return tuple((pattern, family) for family, patterns in both for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Base:
    """A base model: its Hub id, the name of its architecture, and other names of the same weights."""

    name: str
    family: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Paper:
    """A published system that something here implements, and what verifies it."""

    key: str
    title: str
    authors: str
    venue: str
    source: str
    implements: str
    """The module that implements it."""
    where: str
    """The section or formula of the source."""
    test: str
    """The test that verifies it, as pytest names it."""
    differs: str
    """What is done differently here, and why."""


@cache
def architectures() -> Mapping[str, Architecture]:
    """All naming schemes by name."""
    entries = _read("bases.yaml")["families"].items()
    return {name: Architecture(name=name, **_tupled(entry)) for name, entry in entries}


@cache
def bases() -> Mapping[str, Base]:
    """All base models by Hub id."""
    entries = _read("bases.yaml")["bases"].items()
    return {name: Base(name=name, **_tupled(entry)) for name, entry in entries}


@cache
def papers() -> tuple[Paper, ...]:
    """All papers, in the catalog's order."""
    entries = _read("papers.yaml").items()
    return tuple(Paper(key=key, **entry) for key, entry in entries)


def canonical_base(name: str | None, aliases: Mapping[str, str] = _NONE) -> str | None:
    """The Hub id under which a base is known; a name that nobody knows comes back unchanged.

    Case does not count in names that are known. `aliases` are the user's own, NAME to PATH: both then
    name one base, NAME's unless only PATH's is known.
    """
    if name is None:
        return None
    merged: dict[str, str] = {}
    for left, right in aliases.items():
        keep, drop = _root(left, merged), _root(right, merged)
        if drop in bases() and keep not in bases():
            keep, drop = drop, keep
        if keep.casefold() != drop.casefold():
            merged[drop.casefold()] = keep
    return _root(name, merged)


def _root(name: str, merged: Mapping[str, str]) -> str:
    found = _aliases().get(name.casefold(), name)
    while found.casefold() in merged:
        found = merged[found.casefold()]
    return found


@cache
def _aliases() -> Mapping[str, str]:
    return {alias.casefold(): base.name for base in bases().values() for alias in (base.name, *base.aliases)}


def same_base(a: str | None, b: str | None, aliases: Mapping[str, str] = _NONE) -> bool:
    """Whether two names may mean the same weights. A missing name contradicts none."""
    # The same name is the same base, whatever the catalog says; it takes a while to read.
    return None in (a, b) or a == b or canonical_base(a, aliases) == canonical_base(b, aliases)


def architecture(name: str | None) -> Architecture | None:
    """The naming scheme of a base model or of transformers' `model_type`; None where it is not known."""
    base = bases().get(canonical_base(name) or "")
    if base is not None:
        return architectures()[base.family]
    return next((scheme for scheme in architectures().values() if name in scheme.model_types), None)


@lru_cache(maxsize=1 << 16)
def family_of(module: str, base: str | None = None) -> str:
    """The family of a module, such as "attention.q".

    `base` is a base model or a `model_type`, whose scheme is asked first; then all are, in the
    catalog's order. A name that none knows is its own family, less its numbers.
    """
    return next((family for pattern, family in _patterns(base) if matches(pattern, module)), suffix(module))


@lru_cache(maxsize=1 << 10)
def _patterns(base: str | None) -> tuple[tuple[str, str], ...]:
    own = architecture(base)
    others = (pair for scheme in architectures().values() for pair in scheme.patterns)
    return tuple(dict.fromkeys((*(own.patterns if own else ()), *others)))


def _tupled(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the YAML with tuples for lists, one level of mappings deep."""
    return {
        key: tuple(value) if isinstance(value, list) else _tupled(value) if isinstance(value, dict) else value
        for key, value in entry.items()
    }


@cache
def _read(file: str) -> Any:
    from importlib import resources

    import yaml

    # libyaml's loader where there is one: as safe, and nine times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = folder(resources.files("loramerge")).joinpath(file).read_text(encoding="utf-8")
    return yaml.load(text, Loader=loader)


def folder(package: Traversable) -> Traversable:
    """Where the catalogs lie: inside the package, as in a wheel, else beside it, as in a checkout."""
    inside = package.joinpath("catalogs")
    return inside if inside.is_dir() else Path(str(package)).parent / "catalogs"
