"""Sources and the lock: list, forget, verify, search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from loramerge.errors import IntegrityError, LoramergeError

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.workspace.lock import Entry

Row = dict[str, Any]


def listing(session: Session) -> list[Row]:
    """One row per source and result of the workspace."""
    return [entry_row(entry) for entry in session.workspace.entries()]


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


def entry_row(entry: Entry) -> Row:
    """What `ls` and `pull` show of an entry."""
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
