"""What was observed of candidates, in a file that grows while an evaluation runs: SQLite, committed pass by pass."""

from __future__ import annotations

import array
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from loramerge.errors import FormatError, LoramergeError


class Journal:
    """A file of observations, of any tasks and candidates. Interrupted, it keeps what was committed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = sqlite3.connect(path)
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS observed "
                "(task TEXT, candidate TEXT, item INTEGER, numbers BLOB, PRIMARY KEY (task, candidate, item))"
            )
            self._file.commit()
        except sqlite3.Error as error:
            raise FormatError(f"The journal cannot be used: {error}.", where=str(path), hint="another -o") from None

    def of(self, task: str) -> Table:
        """The observations of one task, whose items and settings the text identifies."""
        return Table(self, task)

    def close(self) -> None:
        """End the work on the file, which goes where nothing is in it."""
        with closing(self._file.execute("SELECT 1 FROM observed LIMIT 1")) as found:
            empty = found.fetchone() is None
        self._file.close()
        if empty:
            self.path.unlink(missing_ok=True)

    def rows(self, task: str, candidate: str) -> list[tuple[int, bytes]]:
        """(item, numbers) of a candidate."""
        query = "SELECT item, numbers FROM observed WHERE task = ? AND candidate = ?"
        with closing(self._file.execute(query, (task, candidate))) as found:
            return found.fetchall()

    def insert(self, rows: Sequence[tuple[str, str, int, bytes]]) -> None:
        """Keep rows, all or none. Raises LoramergeError where the disk does not take them."""
        try:
            with self._file:
                self._file.executemany("INSERT OR REPLACE INTO observed VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as error:
            raise LoramergeError(f"The journal cannot be written: {error}.", where=str(self.path)) from None


class Table:
    """The observations of one task: what the harness asks for."""

    def __init__(self, journal: Journal, task: str) -> None:
        self._journal = journal
        self._task = task

    def known(self, candidate: str) -> Mapping[int, Sequence[float]]:
        """The observations of one candidate, by item."""
        return {item: array.array("d", numbers) for item, numbers in self._journal.rows(self._task, candidate)}

    def add(self, items: Sequence[int], observed: Mapping[str, Any]) -> None:
        """Keep the observations (items, R) of a pass, of each candidate, all or none."""
        self._journal.insert(
            [
                (self._task, candidate, item, array.array("d", row).tobytes())
                for candidate, rows in observed.items()
                for item, row in zip(items, rows.tolist(), strict=True)
            ]
        )
