"""Plugins found by file name: `methods/merge/lego.py` *is* the method `lego`.

A registry lists names without importing anything and imports a plugin when it is asked for. Other
packages join through an entry point whose group is the registry's package name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib import import_module, util
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from loramerge.errors import UnknownName

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


def near(name: str, known: Iterable[str]) -> list[str]:
    """Up to three of `known` that look like `name`, best first."""
    return difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)


class Registry(Generic[T]):
    """The plugins of one package: each module's last statement binds `attribute` to a `T`.

    A file name's underscores are dashes in the plugin's name; files that begin with an underscore
    are shared pieces, not plugins.
    """

    def __init__(self, package: str, attribute: str, noun: str) -> None:
        self.package = package
        self.attribute = attribute
        self.noun = noun
        self._loaded: dict[str, T] = {}

    @cached_property
    def _own(self) -> dict[str, str]:
        spec = util.find_spec(self.package)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        files = (file for folder in folders for file in Path(folder).iterdir())
        stems = sorted(f.stem for f in files if f.suffix == ".py" and not f.stem.startswith("_"))
        return {stem.removesuffix("_").replace("_", "-"): f"{self.package}.{stem}" for stem in stems}

    @cached_property
    def _foreign(self) -> dict[str, EntryPoint]:
        from importlib import metadata  # takes longer to import than most commands need in all

        return {point.name: point for point in metadata.entry_points(group=self.package)}

    def names(self) -> list[str]:
        """All plugin names, sorted; imports none of them."""
        return sorted({*self._own, *self._foreign})

    def __iter__(self) -> Iterator[str]:
        """All plugin names, our own first: whoever stops among those never asks what is installed."""
        yield from self._own
        yield from sorted(self._foreign.keys() - self._own.keys())

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._foreign

    def __getitem__(self, name: str) -> T:
        """The plugin of that name; raises UnknownName with its neighbours."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> T:
        if name in self._own:
            plugin: T = getattr(import_module(self._own[name]), self.attribute)
            return plugin
        if name in self._foreign:
            loaded: T = self._foreign[name].load()
            return loaded
        raise UnknownName(
            f"There is no {self.noun} named {name!r}.",
            hint=", ".join(near(name, self.names()) or self.names()),
        )
