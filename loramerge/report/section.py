"""What reports are made of: sections of blocks. How a block looks on a page or a slide is the page's business."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from loramerge.report.html import Html


@dataclass(frozen=True)
class Figure:
    """A drawing and what it shows."""

    drawing: Html
    caption: object = ""


@dataclass(frozen=True)
class Gallery:
    """Drawings side by side, with one caption; `tall` ones fill a slide each."""

    figures: Sequence[Figure]
    caption: object = ""
    tall: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns; the first cell of a row is its name.

    `numbers` are columns set right. Where a table is `foldable`, columns that have no room go on in another.
    """

    columns: Sequence[object]
    rows: Sequence[Sequence[object]]
    caption: object = ""
    numbers: frozenset[int] = frozenset()
    foldable: bool = False

    def folded(self, most: int) -> Iterator[Table]:
        """The table in pieces of so many columns beside the names; as it is where it must not be folded."""
        count = len(self.columns)
        for at in range(1, max(2, count), most if self.foldable else count):
            kept = [0, *range(at, min(count, at + (most if self.foldable else count)))]
            rows = [[row[column] for column in kept] for row in self.rows]
            numbers = frozenset(place for place, column in enumerate(kept) if column in self.numbers)
            yield Table([self.columns[column] for column in kept], rows, self.caption, numbers)


@dataclass(frozen=True)
class Points:
    """Sentences."""

    items: Sequence[object]


@dataclass(frozen=True)
class Tree:
    """Nested names; each with what is known of it."""

    root: Html


@dataclass(frozen=True)
class Code:
    """Text to copy, and what it is."""

    text: str
    caption: object = ""


Block: TypeAlias = Figure | Gallery | Table | Points | Tree | Code


@dataclass(frozen=True)
class Section:
    """`notes` say how to read it: below its title on a page, the speaker's notes on a slide."""

    title: str
    blocks: Sequence[Block]
    notes: str = ""
