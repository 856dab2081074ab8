"""From what is named on the command line to what a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.errors import NotFound
from loramerge.report.inputs import Evaluation, Search, read
from loramerge.report.words import short

if TYPE_CHECKING:
    from pathlib import Path

    from loramerge.api.lineage import Tree
    from loramerge.api.session import Session
    from loramerge.report.measure import Measured
    from loramerge.workspace.results import Record


@dataclass(frozen=True)
class Result:
    """A result: its record, its lineage, and what was measured of it and its parents."""

    name: str
    record: Record
    tree: Tree
    measured: Measured

    @property
    def families(self) -> list[Mapping[str, Any]]:
        """The record's rows by family; none where it has something else there."""
        rows = self.record.report.get("families")
        return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []

    @property
    def overall(self) -> Mapping[str, Any]:
        """The record's figures of all modules together."""
        return _mapping(self.record.report.get("overall"))

    @property
    def modules(self) -> Mapping[str, Mapping[str, Any]]:
        """The record's figures of each module."""
        rows = _mapping(self.record.report.get("modules"))
        return {str(name): _mapping(row) for name, row in rows.items()}

    @property
    def notes(self) -> list[str]:
        """What the record says beside numbers, then what was met while measuring."""
        said = self.record.report.get("notes")
        return [*map(str, said if isinstance(said, list) else []), *self.measured.notes]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True)
class Material:
    """All that a report is about, each with its name, in the order given."""

    results: Sequence[Result] = ()
    evaluations: Sequence[tuple[str, Evaluation]] = ()
    searches: Sequence[tuple[str, Search]] = ()

    @property
    def scores(self) -> list[tuple[str, Evaluation]]:
        """The evaluations, and those that searches did on rows they had not seen."""
        held = [(f"{name}, held out", found.held_out) for name, found in self.searches if found.held_out]
        return [*self.evaluations, *held]

    @property
    def title(self) -> str:
        """What to call a report of it."""
        names = [*(one.name for one in self.results), *(name for name, _ in (*self.evaluations, *self.searches))]
        return ", ".join(short(name, 40) for name in names[:3]) + (" …" if len(names) > 3 else "")


def gather(session: Session, inputs: Sequence[str]) -> Material:
    """What the inputs name: files that `eval` and `tune` wrote, and results; none: the newest result.

    Raises NotFound, UnknownFormat and BadConfig for files, and what opening a result and its record raises.
    """
    results, evaluations, searches = [], [], []
    for text in inputs or [session.workspace.newest_result().name]:
        path = _file(session, text)
        if path is None:
            results.append(_result(session, text))
            continue
        found = read(path)
        if isinstance(found, Evaluation):
            evaluations.append((path.stem, found))
        else:
            searches.append((path.stem, found))
    return Material(results, evaluations, searches)


def _file(session: Session, text: str) -> Path | None:
    """The JSON file that is meant; None where an adapter is."""
    from pathlib import Path

    given = Path(text)
    path = session.workspace.root / (given.expanduser() if text.startswith("~/") else given)
    if path.is_file() and path.suffix not in (".safetensors", ".bin"):
        return path
    if path.suffix == ".json":
        raise NotFound("There is no such file.", where=str(path), hint="what `loramerge eval` or `tune` wrote")
    return None


def _result(session: Session, text: str) -> Result:
    from loramerge.api.lineage import log
    from loramerge.api.opening import open_ref
    from loramerge.report.measure import measure
    from loramerge.workspace.results import read_record

    opened = open_ref(session, text)
    record = read_record(opened.folder)
    return Result(opened.adapter.name, record, log(session, text), measure(session, record, opened))
