"""From references to open adapters, each with the pin that a lineage records."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from loramerge.core.provenance import FilePin, Parent, changed, pin
from loramerge.errors import BadOption, IntegrityError, UsageError
from loramerge.formats._format import open_adapter
from loramerge.hub.licence import declared
from loramerge.workspace.lock import Entry, is_name
from loramerge.workspace.references import is_path, resolve

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter
    from loramerge.hub.reference import HubRef
    from loramerge.recipe import Ingredient


@dataclass(frozen=True)
class Opened:
    """An open adapter, where its files are, and what is known of where they came from.

    `pins` are hashes promised beforehand (by the lock or the Hub); a path has none.
    """

    adapter: Adapter
    folder: Path
    origin: Parent
    pins: tuple[FilePin, ...] = ()

    def verify(self) -> None:
        """Hash what is pinned again. Raises IntegrityError where a pin is broken."""
        if differences := changed(self.folder, self.pins):
            raise IntegrityError(
                f"{self.adapter.name!r} is not what was pinned: {'; '.join(differences)}.",
                where=str(self.folder),
                hint="loramerge pull restores what the lock pins; loramerge pull ./PATH pins it as it is",
            )

    def parent(self, weight: float) -> Parent:
        """The lineage's record: every file hashed now. Raises IntegrityError where a pin is broken."""
        self.verify()
        files = self.pins or pin(self.folder, self.adapter.files)
        return replace(self.origin, weight=weight, files=files, licence=declared(self.folder))


def short_name(ref: str) -> str:
    """The name an adapter gets from its reference when nobody names it: its last part, fit to be a name."""
    if is_path(ref):
        path = Path(ref)
        named = path.parent if path.suffix in (".safetensors", ".bin", ".json") else path
        return _fit(named.name or named.resolve().name)
    last = ref.rstrip("/").rpartition("/")[2]
    folder = ref.rpartition(":")[2] if ":" in last else ""
    return _fit(folder.rpartition("/")[2] or last.partition("@")[0] or ref)


def _fit(name: str) -> str:
    """The name with what the lock cannot take replaced: it becomes part of file names."""
    return name if is_name(name) else re.sub(r"[^\w.+-]+", "-", name).strip("-._ ")[:100] or "adapter"


def open_ref(
    session: Session, ref: str, *, name: str | None = None, allow_pickle: bool = False, headers_only: bool = False
) -> Opened:
    """Open one reference: a path, a name of the workspace, or a Hub repo (pulled into the cache).

    With `headers_only` a repo's weights stay on the Hub, and its adapter cannot load.
    Raises what the readers, the Hub and `resolve` raise.
    """
    found = resolve(ref, session.workspace)
    if isinstance(found, Path):
        return _from_path(session, found, name or short_name(ref), allow_pickle)
    if isinstance(found, Entry):
        return _from_entry(session, found, name, allow_pickle)
    pinned = _pinned(session, found)
    if pinned:
        return _from_entry(session, pinned, name, allow_pickle)
    return (_listed if headers_only else _from_hub)(session, found, name, allow_pickle)


def open_all(
    session: Session, items: Sequence[Ingredient], *, allow_pickle: bool = False, headers_only: bool = False
) -> list[Opened]:
    """Open all adapters of a recipe, in its order. Raises UsageError where there are none."""
    if not items:
        raise UsageError(
            "There are no adapters to work on.",
            where=str(session.workspace.root),
            hint="loramerge pull USER/ADAPTER, or name some",
        )
    how = {"allow_pickle": allow_pickle, "headers_only": headers_only}
    opened = [open_ref(session, item.ref, name=item.name, **how) for item in items]
    names = distinct([one.adapter.name for one in opened])
    return [_named(one, name) for one, name in zip(opened, names, strict=True)]


def check_names(adapters: Sequence[Adapter]) -> None:
    """Raises BadOption for a name that cannot be part of a file's: recipes and records name adapters too."""
    for adapter in adapters:
        if not is_name(adapter.name):
            raise BadOption(f"{adapter.name!r} cannot be the name of an adapter.", hint="letters, digits, -")


def distinct(names: Sequence[str]) -> list[str]:
    """The same names, made different where they are not ("a", "a-2"): heads and weights are told apart by them."""
    made: list[str] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in count(2))
        made.append(next(free for free in chain([name], numbered) if free not in made))
    return made


def _named(one: Opened, name: str) -> Opened:
    return replace(one, adapter=replace(one.adapter, name=name), origin=replace(one.origin, name=name))


def _pinned(session: Session, ref: HubRef) -> Entry | None:
    """What the lock pins for a reference to the Hub, so that the same reference means the same bytes."""
    wanted = ref.revision or ""
    same = [e for e in session.workspace.entries() if (e.repo, e.subfolder) == (ref.repo, ref.subfolder)]
    return next((entry for entry in same if wanted in (entry.revision, entry.commit)), None)


def _from_path(session: Session, path: Path, name: str, allow_pickle: bool) -> Opened:
    adapter = open_adapter(path, name=name, allow_pickle=allow_pickle)
    folder = adapter.path or path
    origin = Parent(adapter.name, 1.0, path=session.workspace.relative(folder), base=adapter.base)
    return Opened(adapter, folder if folder.is_dir() else folder.parent, origin)


def _from_entry(session: Session, entry: Entry, name: str | None, allow_pickle: bool) -> Opened:
    path = session.workspace.path_of(entry, session.hub)
    adapter = open_adapter(path, name=name or entry.name, allow_pickle=allow_pickle or entry.pickle)
    origin = Parent(
        adapter.name,
        1.0,
        repo=entry.repo or None,
        revision=entry.revision or None,
        commit=entry.commit or None,
        subfolder=entry.subfolder,
        path=entry.path or None,
        base=adapter.base,
    )
    return Opened(adapter, path if path.is_dir() else path.parent, origin, entry.files)


def _from_hub(session: Session, ref: HubRef, name: str | None, allow_pickle: bool) -> Opened:
    from loramerge.api.pulling import fetch
    from loramerge.hub.pull import plan_pull

    remote = plan_pull(session.hub, ref, allow_pickle=allow_pickle)
    folder, pins = fetch(session, remote.pinned)
    adapter = open_adapter(folder, name=name or _fit(ref.name), allow_pickle=allow_pickle)
    origin = Parent(
        adapter.name,
        1.0,
        repo=remote.repo,
        revision=ref.revision,
        commit=remote.commit,
        subfolder=ref.subfolder,
        base=adapter.base,
    )
    return Opened(adapter, folder, origin, pins)


def _listed(session: Session, ref: HubRef, name: str | None, allow_pickle: bool) -> Opened:
    """A repo's adapter as its header describes it; a pickle, which has none, is fetched."""
    from loramerge.hub.pull import plan_pull

    adapter = plan_pull(session.hub, ref, allow_pickle=allow_pickle).adapter
    if adapter is None:
        return _from_hub(session, ref, name, allow_pickle)
    adapter = replace(adapter, name=name or _fit(ref.name))
    return Opened(adapter, Path(), Parent(adapter.name, 1.0, repo=ref.repo))
