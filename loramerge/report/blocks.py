"""Blocks as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatch

from loramerge.report.html import Html, el, join, lines
from loramerge.report.section import Block, Code, Figure, Gallery, Points, Table, Tree


@singledispatch
def render(block: Block) -> Html:
    """One block as HTML."""
    raise TypeError(type(block))


@render.register
def _figure(block: Figure) -> Html:
    return el("figure", block.drawing, el("figcaption", block.caption) if block.caption else None)


@render.register
def _gallery(block: Gallery) -> Html:
    class_ = "gallery one" if len(block.figures) == 1 else "gallery"
    figures = el("div", *map(render, block.figures), class_=class_)
    return join(figures, el("p", block.caption, class_="how") if block.caption else None)


@render.register
def _table(block: Table) -> Html:
    heads = [el("th", head, scope="col", class_=_class(block, at)) for at, head in enumerate(block.columns)]
    rows = [_row(block, row) for row in block.rows]
    caption = el("caption", block.caption) if block.caption else None
    table = el("table", caption, el("thead", el("tr", *heads)), el("tbody", *rows))
    return el("div", table, class_="scroll", tabindex="0", role="region", aria_label="table")


def _row(block: Table, row: Sequence[object]) -> Html:
    first, *others = row
    cells = [el("td", cell, class_=_class(block, at)) for at, cell in enumerate(others, 1)]
    return el("tr", el("th", first, scope="row", class_=_class(block, 0)), *cells)


def _class(block: Table, column: int) -> str | None:
    return "number" if column in block.numbers else None


@render.register
def _points(block: Points) -> Html:
    return el("ul", *(el("li", item) for item in block.items), class_="points")


@render.register
def _tree(block: Tree) -> Html:
    return el("div", block.root)


@render.register
def _code(block: Code) -> Html:
    caption = el("p", block.caption) if block.caption else None
    return el("div", caption, el("pre", el("code", lines(block.text.rstrip("\n")))), class_="code")
