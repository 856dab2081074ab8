"""The journal of a search: what was observed of which point on which rows, in one SQLite file.

    identity      name, value                    what makes two searches the same; another one is refused
    observations  point, start, stop, task, …    rows start … stop - 1 of a task, as an array (rows, R)
    reasons       point, why                     why a point could not be scored
    trials        number, point, state, …        what came of each point, to be read by people

A search goes on by being gone through again: what stands here is not evaluated a second time. All observations of a
rung are committed together, so a process that is killed loses no more than the rung at work.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import NamedTuple

import numpy as np

from loramerge.errors import BadConfig, BadOption, LoramergeError
from loramerge.evaluation.metrics import Array
from loramerge.search.space import Point

_TABLES = """
CREATE TABLE IF NOT EXISTS identity (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS observations (
    point TEXT, start INTEGER, stop INTEGER, task TEXT, rows INTEGER, data BLOB NOT NULL,
    PRIMARY KEY (point, task, start, stop));
CREATE TABLE IF NOT EXISTS reasons (point TEXT PRIMARY KEY, why TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    number INTEGER PRIMARY KEY, point TEXT, state TEXT, rows INTEGER, value REAL, low REAL, high REAL);
"""


class Noted(NamedTuple):
    """A trial as people read it: `state` is finished or dropped; the score and its interval on its last rows."""

    number: int
    point: Point
    state: str
    rows: int
    value: float
    low: float
    high: float


class Journal(AbstractContextManager["Journal"]):
    """An open journal; only one process has it at a time. All that works on it raises LoramergeError where it fails."""

    def __init__(self, path: Path | None, identity: Mapping[str, str], *, anew: bool = False) -> None:
        """Open or begin the journal of a search (None: in memory, for this process only).

        Raises BadOption where it is another search's, which `anew` empties instead, or another process has it open,
        and BadConfig where the file is no journal.
        """
        self._where = str(path or ":memory:")
        try:
            self._database = sqlite3.connect(self._where, timeout=1.0)
            with ExitStack() as stack:
                stack.callback(self._database.close)
                self._begin(identity, anew)
                stack.pop_all()
        except sqlite3.OperationalError as error:
            raise BadOption(f"The journal cannot be used: {error}.", where=self._where, hint="another file") from None
        except sqlite3.DatabaseError as error:
            raise BadConfig(f"This is no journal: {error}.", where=self._where, hint="another file") from None

    def _begin(self, identity: Mapping[str, str], anew: bool) -> None:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._database.executescript(_TABLES)
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            kept = dict(self._database.execute("SELECT name, value FROM identity"))
            if kept and kept != dict(identity):
                self._leave_others(kept, identity, anew)
            self._database.executemany("INSERT OR IGNORE INTO identity VALUES (?, ?)", identity.items())

    def _leave_others(self, kept: Mapping[str, str], asked: Mapping[str, str], anew: bool) -> None:
        if anew:
            for table in ("identity", "observations", "reasons", "trials"):
                self._database.execute(f"DELETE FROM {table}")
            return
        differing = [name for name in {**kept, **asked} if kept.get(name) != asked.get(name)]
        pairs = [(name, _brief(kept.get(name)), _brief(asked.get(name))) for name in differing]
        told = "; ".join(f"{name} was {before}, now {now}" for name, before, now in pairs)
        raise BadOption(
            f"The journal is that of another search: {told}.",
            where=self._where,
            hint="--force to begin anew, another -o, or the settings as before",
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others have it."""
        self._database.close()

    def missing(self, points: Iterable[Point], rows: range) -> list[Point]:
        """Those of which these rows have not been observed."""
        query = "SELECT 1 FROM observations WHERE point = ? AND start = ? AND stop = ?"
        with self._at_work():
            return [p for p in points if not self._database.execute(query, (key(p), rows.start, rows.stop)).fetchone()]

    def add(
        self,
        points: Sequence[Point],
        rows: range,
        observed: Mapping[str, Array],
        why: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Keep what was observed of some points, all or nothing: for each task (points, rows or as many as it has, R).

        `why` says by their places which of them cannot be scored, and the reason, of which the first is kept.
        """
        found = [
            (key(point), rows.start, rows.stop, task, len(one), np.ascontiguousarray(one, "<f8").tobytes())
            for task, arrays in observed.items()
            for point, one in zip(points, arrays, strict=True)
        ]
        reasons = [(key(points[at]), reason) for at, reason in why.items()]
        with self._at_work():
            self._database.executemany("INSERT INTO observations VALUES (?, ?, ?, ?, ?, ?)", found)
            self._database.executemany("INSERT OR IGNORE INTO reasons VALUES (?, ?)", reasons)

    def why(self, point: Point) -> str:
        """The reason why a point could not be scored, or nothing."""
        with self._at_work():
            found = self._database.execute("SELECT why FROM reasons WHERE point = ?", (key(point),)).fetchone()
        return found[0] if found else ""

    def observed(self, points: Sequence[Point], rows: int) -> dict[str, Array]:
        """For each task what was observed of some points on the first rows: (points, rows or as many as it has, R)."""
        found: dict[str, list[Array]] = {}
        for point in points:
            for task, array in self._of(point, rows).items():
                found.setdefault(task, []).append(array)
        return {task: np.stack(arrays) for task, arrays in found.items()}

    def _of(self, point: Point, rows: int) -> dict[str, Array]:
        query = "SELECT task, rows, data FROM observations WHERE point = ? AND stop <= ? ORDER BY task, start"
        parts: dict[str, list[Array]] = {}
        with self._at_work():
            found = self._database.execute(query, (key(point), rows)).fetchall()
        for task, count, data in found:
            if count:
                parts.setdefault(task, []).append(np.frombuffer(data, "<f8").reshape(count, -1))
        return {task: np.concatenate(arrays) for task, arrays in parts.items()}

    def note(self, trials: Iterable[Noted]) -> None:
        """What came of some trials."""
        rows = [(one.number, key(one.point), *one[2:]) for one in trials]
        with self._at_work():
            self._database.executemany("INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """One transaction."""
        try:
            with self._database:
                yield
        except sqlite3.Error as error:
            hint = "free some disk, then the same call goes on where it was"
            raise LoramergeError(f"The journal cannot be used: {error}.", where=self._where, hint=hint) from None


def trials(path: Path) -> list[Noted]:
    """The trials that a journal tells of, in order."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute("SELECT * FROM trials ORDER BY number").fetchall()
    return [Noted(number, json.loads(point), *rest[:2], *map(_number, rest[2:])) for number, point, *rest in rows]


def key(point: Point) -> str:
    """One text for equal points."""
    return json.dumps(point, sort_keys=True)


def _number(value: float | None) -> float:
    """SQLite keeps a NaN as NULL."""
    return math.nan if value is None else value


def _brief(value: str | None) -> str:
    return "nothing" if value is None else value if len(value) <= 60 else value[:57] + "…"
