"""Fetching adapters: from a Hub or a path into the lock, and from the lock back to files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.api.sources import Row, entry_row
from loramerge.core.provenance import FilePin, changed, pin
from loramerge.errors import BadOption, LockMismatch, OutputExists, UsageError
from loramerge.formats._format import open_adapter
from loramerge.hub.text import plain
from loramerge.workspace.lock import Entry
from loramerge.workspace.references import resolve
from loramerge.workspace.results import copy, new_folder

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter
    from loramerge.hub.pull import Pinned, Remote
    from loramerge.hub.reference import HubRef

Say = Callable[[str], None]


def nobody(text: str) -> None:
    """Remarks that nobody reads."""


def pull(
    session: Session,
    refs: Sequence[str] = (),
    *,
    name: str | None = None,
    allow_pickle: bool = False,
    to: Path | None = None,
    dry_run: bool = False,
    frozen: bool = False,
    say: Say = nobody,
) -> list[Row]:
    """Fetch, verify and lock adapters; without `refs`, restore what the lock pins.

    `to` copies each adapter's files into `to/NAME` as well. With `frozen` a tag or branch that has
    moved since it was locked is a LockMismatch. A dry run checks that and headers, and fetches nothing.
    Each adapter is recorded when it is whole, so a failure leaves those before it. Raises what the
    Hub, the readers and the lock raise.
    """
    if name and len(refs) != 1:
        raise BadOption("--as names one adapter, so it takes one REF.", hint="one pull each")
    job = _Pull(session, name, allow_pickle, to, dry_run, frozen, say)
    return [job.one(ref) for ref in refs] if refs else [job.restore(entry) for entry in _locked(session)]


def fetch(session: Session, pinned: Pinned) -> tuple[Path, tuple[FilePin, ...]]:
    """Pinned files in the cache, downloaded where they are missing, each one verified."""
    from loramerge.hub.download import download

    return download(session.hub, pinned, lambda what, done, total: session.progress(what, done, total, "B"))


@dataclass(frozen=True)
class _Pull:
    """One call of `pull`: what all its adapters have in common."""

    session: Session
    name: str | None
    allow_pickle: bool
    to: Path | None
    dry_run: bool
    frozen: bool
    say: Say

    def one(self, ref: str) -> Row:
        """Fetch what a reference names, and record it."""
        found = resolve(ref, self.session.workspace)
        if isinstance(found, Entry):
            if self.name not in (None, found.name):
                raise BadOption(
                    f"{found.name!r} is the name of this adapter here.", hint=f"loramerge rm {found.name}, then pull"
                )
            return self.restore(found)
        entry, folder = self._local(found) if isinstance(found, Path) else self._remote(found)
        if not self.dry_run:
            self._copy(entry, folder)
            entry = self.session.workspace.add(entry)
        return entry_row(entry)

    def restore(self, entry: Entry) -> Row:
        """The pinned bytes of an entry, fetched where they are missing, and hashed; a dry run does neither."""
        if entry.repo and self.frozen and entry.revision != entry.commit:
            self._check_head(entry)
        if not self.dry_run:
            if entry.repo:
                folder, _ = fetch(self.session, _pinned(entry))
            else:
                self.session.workspace.verify(entry, self.session.hub)
                folder = self.session.workspace.path_of(entry, self.session.hub)
            self._copy(entry, folder)
        return entry_row(entry)

    def _local(self, path: Path) -> tuple[Entry, Path]:
        adapter = open_adapter(path, name=self.name, allow_pickle=self.allow_pickle)
        folder = adapter.path or path
        files = pin(folder if folder.is_dir() else folder.parent, adapter.files)
        entry = _entry(adapter, files, path=self.session.workspace.relative(folder))
        self.session.workspace.check(entry)
        return entry, path

    def _remote(self, ref: HubRef) -> tuple[Entry, Path]:
        from loramerge.hub.pull import plan_pull

        remote = plan_pull(self.session.hub, ref, allow_pickle=self.allow_pickle)
        for note in remote.notes:
            self.say(note)
        self._check_moved(ref, remote)
        where = {"repo": remote.repo, "revision": ref.revision or "", "commit": remote.commit}
        where["subfolder"] = ref.subfolder
        promised = _promised(remote, self.name or ref.name, where)
        self.session.workspace.check(promised)
        if self.dry_run:
            return promised, Path()
        folder, pins = fetch(self.session, remote.pinned)
        adapter = open_adapter(folder, name=self.name or ref.name, allow_pickle=self.allow_pickle)
        return _entry(adapter, pins, **where), folder

    def _check_moved(self, ref: HubRef, remote: Remote) -> None:
        """Say where a tag or branch that the lock pins has moved, or refuse it when frozen."""
        origin = (remote.repo, ref.subfolder)
        sources = self.session.workspace.sources()
        known = next((entry for entry in sources if (entry.repo, entry.subfolder) == origin), None)
        if known is None or known.commit == remote.commit:
            return
        if self.frozen:
            raise _moved(known, remote.commit)
        self.say(f"{known.name}: pinned to {remote.commit[:12]} from now on, {known.commit[:12]} so far")

    def _check_head(self, entry: Entry) -> None:
        revision = entry.revision or None
        info = self.session.hub.ask(entry.repo, lambda api: api.model_info(entry.repo, revision=revision))
        if info.sha != entry.commit:
            raise _moved(entry, str(info.sha))

    def _copy(self, entry: Entry, folder: Path) -> None:
        if self.to is None:
            return
        target = self.session.workspace.root / self.to.expanduser() / entry.name
        if target.is_dir() and not changed(target, entry.files):
            return
        if target.exists():
            raise OutputExists("Something else is there already.", where=str(target), hint="another --to")
        with new_folder(target) as made:
            copy(folder if folder.is_dir() else folder.parent, entry.files, made)


def _locked(session: Session) -> list[Entry]:
    entries = session.workspace.sources()
    if not entries:
        raise UsageError(
            "There is nothing to restore: the lock has no sources.",
            where=str(session.workspace.lock),
            hint="loramerge pull USER/ADAPTER",
        )
    return entries


def _moved(entry: Entry, commit: str) -> LockMismatch:
    return LockMismatch(
        f"{entry.revision or 'main'} of {entry.repo} is not what the lock pins:"
        f" {commit[:12]} now, {entry.commit[:12]} then.",
        where=entry.name,
        hint=f"loramerge pull {entry.reference}, to pin the new one",
    )


def _pinned(entry: Entry) -> Pinned:
    from loramerge.hub.pull import Pinned, RemoteFile

    files = tuple(RemoteFile(pinned.path, pinned.size, pinned.sha256) for pinned in entry.files)
    return Pinned(entry.repo, entry.commit, entry.subfolder, files)


def _entry(adapter: Adapter, files: tuple[FilePin, ...], **where: Any) -> Entry:
    return Entry(
        name=adapter.name,
        role="source",
        files=files,
        format=adapter.format,
        base=plain(adapter.base or ""),
        rank=adapter.rank,
        modules=len(adapter.modules),
        size=sum(file.size for file in files),
        pickle=any(file.path.endswith(".bin") for file in files),
        **where,
    )


def _promised(remote: Remote, name: str, where: dict[str, Any]) -> Entry:
    """What an entry would be, from the header alone (a pickle has none)."""
    adapter = remote.adapter
    return Entry(
        name=name,
        role="source",
        files=(),
        base=remote.base or "",
        rank=adapter.rank if adapter else 0,
        modules=len(adapter.modules) if adapter else 0,
        size=remote.pinned.size,
        pickle=adapter is None,
        **where,
    )
