"""Everything but file contents: users, repos, commits and refs, in one SQLite file.

One connection serves all threads behind a lock, in autocommit mode; what must happen together
happens inside `transaction()`. The write-ahead log with full synchronisation means that a killed
process or machine leaves either all of a transaction or nothing of it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS users (name TEXT PRIMARY KEY COLLATE NOCASE);
CREATE TABLE IF NOT EXISTS tokens (
    hash TEXT PRIMARY KEY, user TEXT NOT NULL REFERENCES users ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS repos (
    key INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE COLLATE NOCASE, private INTEGER NOT NULL,
    gated TEXT NOT NULL DEFAULT '', created TEXT NOT NULL, downloads INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS renames (
    old TEXT PRIMARY KEY COLLATE NOCASE, repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE);
CREATE TABLE IF NOT EXISTS grants (
    repo INTEGER REFERENCES repos ON DELETE CASCADE, user TEXT REFERENCES users COLLATE NOCASE,
    PRIMARY KEY (repo, user));
CREATE TABLE IF NOT EXISTS commits (
    repo INTEGER REFERENCES repos ON DELETE CASCADE, oid TEXT, parent TEXT, title TEXT NOT NULL,
    message TEXT NOT NULL, author TEXT NOT NULL, date TEXT NOT NULL, card TEXT NOT NULL, tags TEXT NOT NULL,
    PRIMARY KEY (repo, oid));
CREATE TABLE IF NOT EXISTS files (
    repo INTEGER REFERENCES repos ON DELETE CASCADE, at TEXT, path TEXT, oid TEXT NOT NULL, size INTEGER NOT NULL,
    sha256 TEXT NOT NULL, lfs INTEGER NOT NULL, changed TEXT NOT NULL,
    PRIMARY KEY (repo, at, path)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refs (
    repo INTEGER REFERENCES repos ON DELETE CASCADE, name TEXT, oid TEXT NOT NULL, PRIMARY KEY (repo, name));
CREATE TABLE IF NOT EXISTS objects (
    sha256 TEXT, repo INTEGER REFERENCES repos ON DELETE CASCADE, size INTEGER NOT NULL, PRIMARY KEY (sha256, repo));
CREATE TABLE IF NOT EXISTS discussions (
    repo INTEGER REFERENCES repos ON DELETE CASCADE, num INTEGER, title TEXT NOT NULL, description TEXT NOT NULL,
    author TEXT NOT NULL, pull INTEGER NOT NULL, status TEXT NOT NULL, created TEXT NOT NULL,
    PRIMARY KEY (repo, num));
"""


class Database:
    """The file at `path`, made if it is not there."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        self._connection.row_factory = sqlite3.Row
        self._connection.executescript(
            f"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; {_SCHEMA}"
        )

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._connection.close()

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """All rows of one statement."""
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """The first row, or None."""
        return next(iter(self.rows(sql, *values)), None)

    def many(self, sql: str, values: Iterator[tuple[Any, ...]]) -> None:
        """One statement for each of the values."""
        with self._lock:
            self._connection.executemany(sql, values)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of the block's statements, or none; other writers wait."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite may have rolled back by itself, on a full disk
                    self._connection.execute("ROLLBACK")
                raise

    def setting(self, name: str, value: str) -> str:
        """The stored setting; `value` is stored first where there is none."""
        self.rows("INSERT OR IGNORE INTO settings VALUES (?, ?)", name, value)
        return str(self.rows("SELECT value FROM settings WHERE name = ?", name)[0]["value"])
