"""Sending a result to the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loramerge.errors import UsageError
from loramerge.workspace.lock import Entry
from loramerge.workspace.references import resolve

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.hub.push import Pushed


def push(
    session: Session,
    ref: str | None,
    repo: str,
    *,
    private: bool = False,
    pr: bool = False,
    message: str | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Send an adapter's folder (the newest result without `ref`) in one commit; compare the hashes there.

    A result is verified against the lock first: what was changed since it was made is not sent.
    Raises what `loramerge.hub.push.push` raises.
    """
    from loramerge.hub.push import push as send

    folder = _folder(session, ref)
    return send(
        session.hub,
        folder,
        repo,
        private=private,
        pr=pr,
        dry_run=dry_run,
        message=message,
        progress=lambda what, done, total: session.progress(what, done, total, "B"),
    )


def _folder(session: Session, ref: str | None) -> Path:
    found = resolve(ref, session.workspace) if ref else session.workspace.newest_result()
    if isinstance(found, Entry):
        session.workspace.verify(found, session.hub)
        return session.workspace.path_of(found, session.hub)
    if isinstance(found, Path):
        return found if found.is_dir() else found.parent
    raise UsageError("A push sends what is here, not what is on a Hub.", where=str(ref), hint=f"loramerge pull {ref}")
