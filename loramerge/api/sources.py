"""Sources and the lock: pull, list, forget, verify, search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.core.provenance import FilePin, changed, pin
from loramerge.errors import BadOption, IntegrityError, LockMismatch, LoramergeError, OutputExists, UsageError
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

Row = dict[str, Any]
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
    if not refs:
        return [_restore(session, entry, to, dry_run, frozen) for entry in _locked(session)]
    return [_pull_one(session, ref, name, allow_pickle, to, dry_run, frozen, say) for ref in refs]


def fetch(session: Session, ref: HubRef, *, allow_pickle: bool) -> tuple[Remote, Path, tuple[FilePin, ...]]:
    """Pin, check and download one repo's adapter into the cache, every file verified."""
    from loramerge.hub.download import download
    from loramerge.hub.pull import plan_pull

    remote = plan_pull(session.hub, ref, allow_pickle=allow_pickle)
    folder, pins = download(session.hub, remote.pinned, _bytes(session))
    return remote, folder, pins


def listing(session: Session) -> list[Row]:
    """One row per source and result of the workspace."""
    return [_row(entry) for entry in session.workspace.entries()]


def remove(session: Session, names: Sequence[str], *, purge: bool = False) -> list[Row]:
    """Forget entries; with `purge` also drop what the cache holds of them. Raises UnknownName before any change."""
    from loramerge.hub import cache

    entries = [session.workspace.get(name) for name in dict.fromkeys(names)]
    rows = []
    for entry in entries:
        session.workspace.remove(entry.name)
        # Two adapters can be folders of one commit: the other's files stay.
        needed = {(other.repo, other.commit) for other in session.workspace.entries()}
        alone = entry.repo and (entry.repo, entry.commit) not in needed
        freed = cache.purge(session.hub, entry.repo, entry.commit) if purge and alone else 0
        rows.append({"name": entry.name, "role": entry.role, "source": _source(entry), "freed": freed})
    return rows


def verify(session: Session, names: Sequence[str] = ()) -> list[Row]:
    """Hash entries' files again (all without `names`). Raises IntegrityError that names every broken one."""
    entries = [session.workspace.get(name) for name in names] or session.workspace.entries()
    broken: list[LoramergeError] = []
    rows = []
    for entry in entries:
        try:
            session.workspace.verify(entry, session.hub)
            rows.append({"name": entry.name, "role": entry.role, "files": len(entry.files), "size": entry.size})
        except LoramergeError as error:
            broken.append(error)
    if len(broken) == 1:
        raise broken[0]
    if broken:
        raise IntegrityError(
            " ".join(error.message for error in broken),
            where=", ".join(error.where for error in broken),
            hint="loramerge rm --purge NAME, then pull it again",
        )
    return rows


def search(session: Session, text: str = "", *, base: str | None = None, limit: int = 20) -> list[Row]:
    """Adapters on the Hub by text and base model, most downloaded first."""
    from loramerge.hub.search import search as ask

    return [asdict(found) for found in ask(session.hub, text, base, limit)]


def _locked(session: Session) -> list[Entry]:
    entries = session.workspace.sources()
    if not entries:
        raise UsageError(
            "There is nothing to restore: the lock has no sources.",
            where=str(session.workspace.lock),
            hint="loramerge pull USER/ADAPTER",
        )
    return entries


def _pull_one(
    session: Session,
    ref: str,
    name: str | None,
    allow_pickle: bool,
    to: Path | None,
    dry_run: bool,
    frozen: bool,
    say: Say,
) -> Row:
    found = resolve(ref, session.workspace)
    if isinstance(found, Entry):
        if name not in (None, found.name):
            raise BadOption(
                f"{found.name!r} is the name of this adapter here.", hint=f"loramerge rm {found.name}, then pull"
            )
        return _restore(session, found, to, dry_run, frozen)
    if isinstance(found, Path):
        entry, folder = _local(session, found, name, allow_pickle), found
    else:
        entry, folder = _remote(session, found, name, allow_pickle, dry_run, frozen, say)
    if dry_run:
        return _row(entry)
    _copy(session, entry, folder, to)
    return _row(session.workspace.add(entry))


def _local(session: Session, path: Path, name: str | None, allow_pickle: bool) -> Entry:
    adapter = open_adapter(path, name=name, allow_pickle=allow_pickle)
    folder = adapter.path or path
    files = pin(folder if folder.is_dir() else folder.parent, adapter.files)
    entry = _entry(adapter, files, path=session.workspace.relative(folder))
    session.workspace.check(entry)
    return entry


def _remote(
    session: Session, ref: HubRef, name: str | None, allow_pickle: bool, dry_run: bool, frozen: bool, say: Say
) -> tuple[Entry, Path]:
    from loramerge.hub.download import download
    from loramerge.hub.pull import plan_pull

    remote = plan_pull(session.hub, ref, allow_pickle=allow_pickle)
    for note in remote.notes:
        say(note)
    _check_moved(session, ref, remote, frozen, say)
    where = {"repo": remote.repo, "revision": ref.revision or "", "commit": remote.commit, "subfolder": ref.subfolder}
    promised = _promised(remote, name or ref.name, where)
    session.workspace.check(promised)
    if dry_run:
        return promised, Path()
    folder, pins = download(session.hub, remote.pinned, _bytes(session))
    adapter = open_adapter(folder, name=name or ref.name, allow_pickle=allow_pickle)
    return _entry(adapter, pins, **where), folder


def _check_moved(session: Session, ref: HubRef, remote: Remote, frozen: bool, say: Say) -> None:
    """Say where a tag or branch that the lock pins has moved, or refuse it when frozen."""
    origin = (remote.repo, ref.subfolder)
    known = next((e for e in session.workspace.sources() if (e.repo, e.subfolder) == origin), None)
    if known is None or known.commit == remote.commit:
        return
    if frozen:
        raise _moved(known, remote.commit)
    say(f"{known.name}: pinned to {remote.commit[:12]} from now on, {known.commit[:12]} so far")


def _moved(entry: Entry, commit: str) -> LockMismatch:
    return LockMismatch(
        f"{entry.revision or 'main'} of {entry.repo} is not what the lock pins:"
        f" {commit[:12]} now, {entry.commit[:12]} then.",
        where=entry.name,
        hint=f"loramerge pull {entry.reference}, to pin the new one",
    )


def _restore(session: Session, entry: Entry, to: Path | None, dry_run: bool, frozen: bool) -> Row:
    """The pinned bytes of an entry, fetched where they are missing, and hashed; a dry run does neither."""
    if entry.repo and frozen and entry.revision != entry.commit:
        _check_head(session, entry)
    if dry_run:
        return _row(entry)
    if entry.repo:
        from loramerge.hub.download import download

        folder, _ = download(session.hub, _pinned(entry), _bytes(session))
    else:
        session.workspace.verify(entry, session.hub)
        folder = session.workspace.path_of(entry, session.hub)
    _copy(session, entry, folder, to)
    return _row(entry)


def _check_head(session: Session, entry: Entry) -> None:
    revision = entry.revision or None
    info = session.hub.ask(entry.repo, lambda api: api.model_info(entry.repo, revision=revision))
    if info.sha != entry.commit:
        raise _moved(entry, str(info.sha))


def _pinned(entry: Entry) -> Pinned:
    from loramerge.hub.pull import Pinned, RemoteFile

    files = tuple(RemoteFile(pinned.path, pinned.size, pinned.sha256) for pinned in entry.files)
    return Pinned(entry.repo, entry.commit, entry.subfolder, files)


def _copy(session: Session, entry: Entry, folder: Path, to: Path | None) -> None:
    if to is not None:
        target = session.workspace.root / to.expanduser() / entry.name
        if target.is_dir() and not changed(target, entry.files):
            return
        if target.exists():
            raise OutputExists("Something else is there already.", where=str(target), hint="another --to")
        with new_folder(target) as made:
            copy(folder if folder.is_dir() else folder.parent, entry.files, made)


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


def _promised(remote: Remote, name: str, where: Mapping[str, Any]) -> Entry:
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


def _row(entry: Entry) -> Row:
    return {
        "name": entry.name,
        "role": entry.role,
        "base": entry.base or None,
        "format": entry.format,
        "rank": entry.rank,
        "modules": entry.modules,
        "size": entry.size,
        "source": _source(entry),
    }


def _source(entry: Entry) -> str:
    if not entry.repo:
        return entry.path
    folder = f":{entry.subfolder}" if entry.subfolder else ""
    return f"{entry.repo}@{entry.commit[:12]}{folder}"


def _bytes(session: Session) -> Callable[[str, int, int], None]:
    return lambda what, done, total: session.progress(what, done, total, "B")
