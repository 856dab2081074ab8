"""File contents, stored under their sha256: blobs/ab/abcdef….

A file on its way in lies in incoming/ and is hashed while it is written. It is synchronised and
then renamed to its place, so that a blob that can be seen is whole, whatever was killed when.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Container
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO

from loramerge.hub.server.refusal import Refusal

_SHA256 = re.compile(r"[0-9a-f]{64}")
_A_DAY = 86_400


class Incoming:
    """A file being received; gone again on leaving the block unless `keep` was called."""

    def __init__(self, store: Blobs) -> None:
        self._store = store
        self._path = store.incoming / secrets.token_hex(16)
        self._hash = hashlib.sha256()

    def __enter__(self) -> Incoming:
        self._file: IO[bytes] = self._path.open("xb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        """Take in the next piece."""
        self._hash.update(chunk)
        self._file.write(chunk)

    def keep(self, promised: str | None = None) -> str:
        """Make it a blob and return its sha256; Refusal 400 if another one was promised."""
        sha256 = self._hash.hexdigest()
        if promised not in (None, sha256):
            raise Refusal(400, f"The content received has sha256 {sha256} and not {promised}.")
        self._file.flush()
        self._store.settle(self._path, sha256)
        return sha256


class Blobs:
    """The blobs of one server, below `root`."""

    def __init__(self, root: Path) -> None:
        self.incoming = root / "incoming"
        self._blobs = root / "blobs"
        for folder in (self.incoming, self._blobs):
            folder.mkdir(mode=0o700, exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where that blob lies or would lie; Refusal 400 for what is not 64 hex digits."""
        if not _SHA256.fullmatch(sha256):
            raise Refusal(400, "An object id must be 64 hex digits.")
        return self._blobs / sha256[:2] / sha256

    def add(self, content: bytes) -> str:
        """Store a small file; its sha256."""
        there = self.path(hashlib.sha256(content).hexdigest())
        try:
            os.utime(there)  # young again, so that no sweep takes it before the commit that it is for
        except FileNotFoundError:
            with Incoming(self) as incoming:
                incoming.write(content)
                incoming.keep()
        return there.name

    def settle(self, whole: Path, sha256: str) -> None:
        """Move a file that is whole to its place, safe against power loss."""
        final = self.path(sha256)
        if not final.parent.exists():
            final.parent.mkdir(exist_ok=True)
            _sync(self._blobs)
        _sync(whole)
        whole.replace(final)
        _sync(final.parent)

    def write_part(self, name: str, offset: int, content: bytes) -> None:
        """Put some bytes of a multipart upload where they belong in it; parts may come in any order."""
        handle = os.open(self.incoming / name, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            while content:
                written = os.pwrite(handle, content, offset)
                content, offset = content[written:], offset + written
        finally:
            os.close(handle)

    def complete(self, name: str, promised: str) -> None:
        """Make a multipart upload a blob; Refusal 400, and the upload is dropped, if it is not what was promised."""
        path = self.incoming / name
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            raise Refusal(404, "There is no such upload.") from None
        if sha256 != promised:
            path.unlink(missing_ok=True)
            raise Refusal(400, f"The parts received have sha256 {sha256} and not {promised}.")
        self.settle(path, sha256)

    def sweep(self, known: Container[str]) -> None:
        """Remove uploads left off and blobs that no repo knows, if they have lain a day.

        The day keeps this from racing with an upload: a blob is renamed into place, and so made young,
        before the repo that asked for it gets to know it.
        """
        before = time.time() - _A_DAY
        lost = [path for path in self._blobs.glob("??/*") if path.name not in known]
        for path in [*self.incoming.iterdir(), *lost]:
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
