"""A folder with a lock: the sources pulled or added to it, and the results made in it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loramerge.core.provenance import changed
from loramerge.errors import AmbiguousName, BadOption, IntegrityError, NotFound, UnknownName
from loramerge.hub import cache
from loramerge.hub.text import plain
from loramerge.registry import near
from loramerge.workspace import lock
from loramerge.workspace.lock import Entry

if TYPE_CHECKING:
    from loramerge.hub.session import Hub


class Workspace:
    """Entries are read from the lock each time: another process may have changed it."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self.lock = self.root / lock.NAME

    def entries(self) -> list[Entry]:
        """All entries, sorted by name. Raises LockMismatch where the lock is damaged."""
        return lock.load(self.lock)

    def sources(self) -> list[Entry]:
        """What commands work on that are given no reference."""
        return [entry for entry in self.entries() if entry.role == "source"]

    def results(self) -> list[Entry]:
        """What was made here, oldest first."""
        made = [entry for entry in self.entries() if entry.role == "result"]
        return sorted(made, key=lambda entry: entry.number)

    def newest_result(self) -> Entry:
        """The result made last. Raises UnknownName where there is none."""
        results = self.results()
        if not results:
            raise UnknownName("There is no result in this workspace.", where=str(self.root), hint="loramerge merge")
        return results[-1]

    def get(self, name: str) -> Entry:
        """The entry of that name; raises UnknownName with its neighbours."""
        entries = {entry.name: entry for entry in self.entries()}
        if name in entries:
            return entries[name]
        raise UnknownName(
            f"This workspace has no adapter named {name!r}.",
            where=str(self.root),
            hint=", ".join(near(name, entries) or sorted(entries)[:5]) or "loramerge pull user/name",
        )

    def add(self, entry: Entry, *, replace_other: bool = False) -> Entry:
        """Record an entry; the same origin again updates it. Returns it as recorded (a result numbered).

        Raises what `check` raises, and BadOption for what a lock cannot hold; with `replace_other` a name
        may change its owner.
        """
        with lock.exclusive(self.lock):
            self.check(entry, replace_other=replace_other)
            if why := lock.fault(entry):
                raise BadOption(f"The lock cannot hold {entry.name!r}: {plain(why)}.")
            entries = {known.name: known for known in self.entries()}
            if entry.role == "result":
                entry = replace(entry, number=1 + max((other.number for other in entries.values()), default=0))
            lock.save(self.lock, list({**entries, entry.name: entry}.values()))
        return entry

    def check(self, entry: Entry, *, replace_other: bool = False) -> None:
        """Whether an entry may have its name: asked before a download rather than after it.

        Raises AmbiguousName where the name belongs to an adapter of another origin (unless
        `replace_other`), BadOption where it cannot be a name.
        """
        if not lock.is_name(entry.name):
            raise BadOption(
                f"{entry.name!r} cannot be the name of an adapter.", hint="--as NAME, of letters, digits, -"
            )
        known = next((other for other in self.entries() if other.name == entry.name), None)
        if known and known.origin != entry.origin and not replace_other:
            raise AmbiguousName(
                f"{entry.name!r} is the name of {known.repo or known.path} already.",
                where=str(self.lock),
                hint=f"--as NAME, for {entry.reference}",
            )

    def remove(self, name: str) -> Entry:
        """Forget an entry, and return it; files stay where they are. Raises UnknownName."""
        with lock.exclusive(self.lock):
            entry = self.get(name)
            lock.save(self.lock, [other for other in self.entries() if other.name != name])
        return entry

    def relative(self, path: Path) -> str:
        """How the lock writes a path: from the workspace, with `/`, so that a clone of both still finds it."""
        return Path(os.path.relpath(path.resolve(), self.root)).as_posix()

    def path_of(self, entry: Entry, hub: Hub) -> Path:
        """Where the adapter's files are: its folder (or file) here, or its folder in the cache.

        Asks the Hub nothing. Raises NotFound where they are gone.
        """
        if entry.path:
            path = self.root / entry.path
            found = path if path.exists() else None
        else:
            found = cache.find(hub, entry.repo, entry.commit, entry.subfolder, [pin.path for pin in entry.files])
        if found is None:
            where = str(self.root / entry.path) if entry.path else f"{entry.repo}@{entry.commit[:12]}"
            hint = f"loramerge rm {entry.name}" if entry.path else f"loramerge pull {entry.name}, which restores them"
            raise NotFound(f"The files of {entry.name!r} are gone.", where=where, hint=hint)
        return found

    def verify(self, entry: Entry, hub: Hub) -> None:
        """Hash the entry's files again. Raises IntegrityError that names those that are not as pinned."""
        path = self.path_of(entry, hub)
        if differences := changed(path if path.is_dir() else path.parent, entry.files):
            raise IntegrityError(
                f"{entry.name!r} is not what the lock pins: {'; '.join(differences)}.",
                where=str(path),
                hint=_remedy(entry),
            )


def _remedy(entry: Entry) -> str:
    """What to do about bytes that are not as pinned."""
    if entry.repo:
        return f"loramerge pull {entry.name}, twice: it removes them, then it fetches them anew"
    if entry.role == "result":
        return "make it again with --force"
    return f"loramerge pull {entry.reference} --as {entry.name}, to pin it as it is"
