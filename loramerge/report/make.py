"""A report of results, evaluations and searches, written as one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loramerge.api.result import versions
from loramerge.errors import BadOption
from loramerge.report import words
from loramerge.report.material import Material, gather
from loramerge.report.page import deck, page
from loramerge.report.sections import (
    families,
    likeness,
    lineage,
    remarks,
    reproduce,
    scores,
    search,
    spectra,
    summary,
    units,
    way,
)
from loramerge.workspace.tables import check_output, write_whole

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.report.section import Section

OUT = Path("report.html")


@dataclass(frozen=True)
class Written:
    """The file that was written, how long it is, and what is in it."""

    path: Path
    size: int
    sections: tuple[str, ...]

    @property
    def facts(self) -> dict[str, object]:
        """As plain values."""
        return dict(vars(self))


def report(
    session: Session,
    inputs: Sequence[str] = (),
    *,
    out: Path = OUT,
    slides: bool = False,
    title: str | None = None,
    force: bool = False,
) -> Written:
    """Write an HTML file about results and the files of evaluations and searches (none: the newest result).

    `slides` makes a deck of it. The file needs nothing beside it, asks no network, and appears when it is whole.
    The same inputs give the same bytes. Raises OutputExists, NotFound and BadOption before the work for an output
    that cannot be, and what reading the inputs raises.
    """
    target = _target(session.workspace.root / out.expanduser(), force)
    found = gather(session, inputs)
    parts = sections(found)
    text = (deck if slides else page)(
        title or found.title, _subtitle(found), parts, f"loramerge {versions()['loramerge']}"
    )
    write_whole(target, text)
    return Written(target, target.stat().st_size, tuple(part.title for part in parts))


def sections(found: Material) -> list[Section]:
    """All sections there are data for, in reading order."""
    return [made for made in _sections(found) if made is not None]


def _sections(found: Material) -> Iterator[Section | None]:
    yield summary.section(found)
    for name, scored in found.evaluations:
        yield scores.section(name, scored)
        yield way.section(name, scored)
    for name, searched in found.searches:
        yield search.section(name, searched)
        if searched.held_out:
            yield scores.section(name, searched.held_out, "Held-out scores")
    for result in found.results:
        yield lineage.section(result)
        yield families.section(result)
        yield spectra.section(result)
        yield units.section(result)
        yield likeness.section(result)
    yield remarks.section(found)
    yield reproduce.section(found)


def _subtitle(found: Material) -> str:
    counts = [
        words.count(len(some), *noun)
        for some, noun in (
            (found.results, ("merge result",)),
            (found.evaluations, ("evaluation",)),
            (found.searches, ("search", "searches")),
        )
        if some
    ]
    bases = [*(one.record.lineage.base for one in found.results), *(one.base for _, one in found.evaluations)]
    known = list(dict.fromkeys(base for base in [*bases, *(one.base for _, one in found.searches)] if base))
    return "A report of " + words.listed(counts) + (f"; base model {words.listed(known, 3)}" if known else "")


def _target(path: Path, force: bool) -> Path:
    """The file to write. Raises before the work for one that is there, or cannot be."""
    if path.is_dir():
        raise BadOption("A report is a file, and this is a folder.", where=str(path), hint=f"-o {path / OUT}")
    check_output(path, force)
    return path
