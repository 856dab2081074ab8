"""The one place that prints: data to stdout, talk and progress to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from loramerge.cli._progress import Bars

Row = Mapping[str, Any]


@dataclass
class Output:
    """How results are shown. `mode` is human, json or quiet (one id per line)."""

    mode: str = "human"
    _bars: Bars | None = None

    def table(self, rows: Sequence[Row], *, id: str, title: str = "", data: Any = None) -> None:
        """Rows of data: a table, a JSON array (or `data` instead), or the `id` column alone."""
        if self.mode == "json":
            self._json(list(rows) if data is None else data)
        elif self.mode == "quiet":
            for row in rows:
                self._line(str(row[id]))
        else:
            self._rich_table(rows, title, stderr=False)

    def result(self, what: str, fields: Row, *, id: str, more: Row | None = None, notes: Sequence[str] = ()) -> None:
        """One result: a line, its fields and notes, a JSON object (with `more`), or the field `id` alone."""
        if self.mode == "json":
            self._json({**fields, **(more or {}), "notes": list(notes)})
        elif self.mode == "quiet":
            self._line(str(fields[id]))
        else:
            self._line(f"✓ {what}")
            for key, value in fields.items():
                if value not in (None, "", (), [], {}):
                    self._line(f"  {key.replace('_', ' ')}: {_cell(value)}")
            self._notes(notes)

    def record(self, facts: Row, *, more: tuple[str, Sequence[Row]], id: str, notes: Sequence[str] = ()) -> None:
        """Facts about one thing, a table that belongs to them, and notes; in JSON one object."""
        if self.mode == "json":
            self._json({**facts, more[0]: list(more[1]), "notes": list(notes)})
        elif self.mode == "quiet":
            self._line(str(facts[id]))
        else:
            for key, value in facts.items():
                if value not in (None, "", (), [], {}):
                    self._line(f"{key.replace('_', ' ')}: {_cell(value)}")
            self._rich_table(more[1], "", stderr=False)
            self._notes(notes)

    def text(self, lines: Iterable[str], data: Any) -> None:
        """Lines of text as data; `data` is what JSON shows instead."""
        if self.mode == "json":
            self._json(data)
        else:
            for line in lines:
                self._line(line)

    def talk_table(self, rows: Sequence[Row], *, title: str = "") -> None:
        """A table that explains rather than answers: on stderr, and only for people."""
        if self.mode == "human" and rows:
            self._rich_table(rows, title, stderr=True)

    def note(self, text: str) -> None:
        """Something worth knowing, for people."""
        if self.mode == "human":
            self._err(f"  {text}")

    def hint(self, command: str) -> None:
        """What to type next, for people."""
        if self.mode == "human":
            self._err(f"  next: {command}")

    def error(self, message: str, where: str, hint: str, exit_code: int) -> None:
        """A failure, in up to three lines, or as one JSON object."""
        if self.mode == "json":
            found = {"error": message, "where": where, "hint": hint, "exit_code": exit_code}
            self._write(json.dumps(found) + "\n", stderr=True)
            return
        lines = [f"Error: {message}", f"  at: {where}" if where else "", f"  try: {hint}" if hint else ""]
        for line in filter(None, lines):
            self._err(line)

    @contextmanager
    def progress(self) -> Iterator[Any]:
        """A callable `(task, done, total, unit)` that draws bars on a terminal's stderr."""
        if self.mode != "human" or not sys.stderr.isatty():
            yield lambda task, done, total, unit: None
            return
        from loramerge.cli._progress import Bars

        self._bars = Bars()
        try:
            yield self._bars.update
        finally:
            self._bars.stop()

    def _notes(self, notes: Sequence[str]) -> None:
        for text in notes:
            self.note(text)

    def _rich_table(self, rows: Sequence[Row], title: str, *, stderr: bool) -> None:
        from rich.table import Table
        from rich.text import Text

        console = _console(stderr=stderr)
        table = Table(title=Text(clean(title)) if title else None, title_justify="left", box=_box(), pad_edge=False)
        names = list(dict.fromkeys(name for row in rows for name in row))
        columns = [_column([row.get(name) for row in rows]) for name in names]
        for name, (_, justify) in zip(names, columns, strict=True):
            table.add_column(name.replace("_", " "), justify=justify, overflow="fold")
        for cells in zip(*(cells for cells, _ in columns), strict=True):
            table.add_row(*(Text(clean(cell)) for cell in cells))
        if rows:
            with console.capture() as printed:
                console.print(table)
            self._write(printed.get(), stderr=stderr)

    def _json(self, data: Any) -> None:
        self._write(json.dumps(data, default=str) + "\n")

    def _line(self, text: str) -> None:
        self._write(clean(text) + "\n")

    def _err(self, text: str) -> None:
        self._write(clean(text) + "\n", stderr=True)

    def _write(self, text: str, *, stderr: bool = False) -> None:
        if self._bars:
            self._bars.stop()
        if stderr:
            sys.stdout.flush()
        (sys.stderr if stderr else sys.stdout).write(text)


def clean(text: str) -> str:
    """One printable line: names and cards come from strangers, who may know what moves a cursor."""
    return "".join(c if c.isprintable() else " " for c in text)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    wide = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, markup=False, width=None if wide else 160)


def _box() -> Any:
    from rich import box

    return box.SIMPLE_HEAD


def _column(values: Sequence[Any]) -> tuple[list[str], Literal["left", "right"]]:
    """A column's cells and its side; numbers that are not whole get three decimals where that shows them."""
    if not all(isinstance(value, int | float | None) for value in values):
        return [_cell(value) for value in values], "left"
    fractions = [abs(value) for value in values if isinstance(value, float)]
    if fractions and all(size == 0 or 1e-3 <= size < 1e4 for size in fractions):
        return [f"{value:.3f}" if isinstance(value, float) else _cell(value) for value in values], "right"
    return [_cell(value) for value in values], "right"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{count} {name}" for name, count in value.items())
    return str(value)
