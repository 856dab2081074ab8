"""One commit to the Hub by Xet where it has that storage, else by LFS, with progress where the way allows it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loramerge.errors import LoramergeError, NetworkError
from loramerge.hub.download import Progress
from loramerge.hub.session import quiet

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete

    from loramerge.hub.session import Hub


class Unanswered(NetworkError):
    """The commit was asked for, and no answer came: it may have been made."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Files of a folder (path → size) to become one commit of `repo` on top of `parent`, which loses `removed`."""

    folder: Path
    repo: str
    files: Mapping[str, int]
    parent: str | None
    message: str
    pr: bool
    removed: tuple[str, ...] = ()


def send(hub: Hub, commit: Commit, progress: Progress | None) -> tuple[str, str | None, tuple[str, ...]]:
    """Make the commit; its id, its pull request's address, and what is to be said about the way it went.

    The client does not ask a Hub whether it has Xet: it fails where there is none, inside a library
    that knows nothing of Hubs. Open files are always sent by LFS, so they are the other way.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_DISABLE_XET:
        return *_send(hub, commit, progress, by_lfs=True), ()
    try:
        return *_send(hub, commit, progress, by_lfs=False), ()
    except NetworkError as error:
        if "xet-write-token" not in str(error.__cause__):
            raise
    return *_send(hub, commit, progress, by_lfs=True), ("this Hub has no Xet storage; the files went by LFS",)


def _send(hub: Hub, commit: Commit, progress: Progress | None, *, by_lfs: bool) -> tuple[str, str | None]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    meter = _Meter(commit, progress)
    with quiet(), ExitStack() as stack:
        sources = {
            path: stack.enter_context(_Counted(commit.folder / path, path, meter)) if by_lfs else commit.folder / path
            for path in commit.files
        }
        added = [CommitOperationAdd(path, source) for path, source in sources.items()]
        removed = [CommitOperationDelete(path, is_folder=False) for path in commit.removed]
        meter.running = True
        with hub.translated(commit.repo):
            hub.api.preupload_lfs_files(commit.repo, added, create_pr=commit.pr)
        made = _commit(hub, commit, [*added, *removed])
    meter.done()
    return made.oid, made.pr_url


def _commit(hub: Hub, commit: Commit, operations: Sequence[CommitOperationAdd | CommitOperationDelete]) -> CommitInfo:
    """The commit of what was uploaded. Raises Unanswered where it may have been made all the same."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        with hub.translated(commit.repo):
            return hub.api.create_commit(
                commit.repo,
                operations,
                commit_message=commit.message,
                parent_commit=commit.parent,
                create_pr=commit.pr,
            )
    except NetworkError as error:
        raise Unanswered(error.message, where=error.where, hint=error.hint) from error.__cause__
    except LoramergeError as error:
        cause = error.__cause__
        if not isinstance(cause, HfHubHTTPError) or cause.response.status_code != 412:
            raise
        message = f"Somebody else pushed to {commit.repo} meanwhile."
        raise LoramergeError(message, where=hub.url, hint="push again, or --pr") from cause


class _Meter:
    """Adds up how far each file was read. Not while hashing, which reads them all before the first is sent."""

    def __init__(self, commit: Commit, progress: Progress | None) -> None:
        self.running = False
        self._what = commit.repo
        self._total = sum(commit.files.values())
        self._read = dict.fromkeys(commit.files, 0)
        self._progress = progress

    def at(self, path: str, position: int) -> None:
        if self.running and self._progress:
            self._read[path] = max(position, self._read[path])
            self._progress(self._what, sum(self._read.values()), self._total)

    def done(self) -> None:
        if self._progress:
            self._progress(self._what, self._total, self._total)


class _Counted(io.BufferedReader):
    """A file that tells a meter how far it was read."""

    def __init__(self, file: Path, path: str, meter: _Meter) -> None:
        super().__init__(io.FileIO(file))
        self._path, self._meter = path, meter

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._meter.at(self._path, self.tell())
        return data
