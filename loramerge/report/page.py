"""Whole files of HTML: a page to read and print, and a deck to show. Nothing in them asks the network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources

from loramerge.report.blocks import render
from loramerge.report.html import Html, el, join
from loramerge.report.section import Block, Code, Gallery, Points, Section, Table

_PAGE, _SLIDE = 5, 9
"""Columns of numbers that a page and a slide hold."""
_POINTS, _FIGURES, _CODE = 6, 2, 18
"""What a slide holds: sentences, drawings, lines of code."""
_HEIGHT = 26
"""And lines of a table: a row is as many as its highest cell, and half a line more."""
_KEYS = "Arrow keys, space and page keys turn the slides; Home and End go to the ends; n shows and hides notes."


def page(title: str, subtitle: str, sections: Sequence[Section], made_by: str) -> str:
    """All sections below each other, with a table of contents."""
    ids = [f"part-{number}" for number in range(1, len(sections) + 1)]
    items = [el("li", el("a", one.title, href=f"#{id_}")) for one, id_ in zip(sections, ids, strict=True)]
    head = el("header", el("h1", title), el("p", subtitle, class_="soft"), el("nav", el("ul", *items)))
    parts = [_section(one, id_) for one, id_ in zip(sections, ids, strict=True)]
    return _document(title, [_asset("page.css")], join(head, el("main", *parts), el("footer", made_by)))


def _section(one: Section, id_: str) -> Html:
    how = el("p", one.notes, class_="how") if one.notes else None
    return el("section", el("h2", one.title), how, *map(_paged, one.blocks), id=id_)


def _paged(block: Block) -> Html:
    return join(*map(render, block.folded(_PAGE))) if isinstance(block, Table) else render(block)


def deck(title: str, subtitle: str, sections: Sequence[Section], made_by: str) -> str:
    """The same as slides: what is too much for one goes on on the next."""
    slides = [(one, block) for section in sections for one, block in _slides(section)]
    total = len(slides) + 1
    told = [
        el("p", words, class_=class_) for words, class_ in ((subtitle, "soft"), (made_by, "soft"), (_KEYS, "soft keys"))
    ]
    head = el("div", el("h1", title), *told, class_="body")
    first = el("section", head, _counter(1, total), class_="slide first", id="slide-1")
    parts = [_slide(one, block, number, total) for number, (one, block) in enumerate(slides, 2)]
    script = _asset("deck.js")
    body = join(el("main", first, *parts), Html(f"<script>{script}</script>"))
    return _document(title, [_asset("page.css"), _asset("deck.css")], body, script)


def _slides(section: Section) -> Iterator[tuple[Section, Block]]:
    """The section's blocks in pieces that fit, each under the title with its number."""
    pieces = [piece for block in section.blocks for piece in _pieces(block)]
    for number, piece in enumerate(pieces, 1):
        part = el("span", f"{number} of {len(pieces)}", class_="part") if len(pieces) > 1 else None
        yield Section(join(section.title, part), (), section.notes), piece


def _pieces(block: Block) -> Iterator[Block]:
    if isinstance(block, Points):
        yield from (Points(block.items[at : at + _POINTS]) for at in range(0, len(block.items), _POINTS))
    elif isinstance(block, Gallery):
        step = 1 if block.tall else _FIGURES
        for at in range(0, len(block.figures), step):
            yield Gallery(block.figures[at : at + step], block.caption)
    elif isinstance(block, Code):
        rows = block.text.rstrip("\n").split("\n")
        yield from (Code("\n".join(rows[at : at + _CODE]), block.caption) for at in range(0, len(rows), _CODE))
    elif isinstance(block, Table):
        for piece in block.folded(_SLIDE):
            yield from (replace(piece, rows=rows) for rows in _fitting(piece.rows))
    else:
        yield block


def _fitting(rows: Sequence[Sequence[object]]) -> Iterator[Sequence[Sequence[object]]]:
    """Rows in pieces of a slide's height."""
    start, height = 0, 0.0
    for at, row in enumerate(rows):
        lines = 0.5 + max(1 + str(cell).count("<br>") + len(str(cell)) // 400 for cell in row)
        if height + lines > _HEIGHT and at > start:
            yield rows[start:at]
            start, height = at, 0.0
        height += lines
    yield rows[start:]


def _slide(one: Section, block: Block, number: int, total: int) -> Html:
    body = el("div", render(block), class_="body")
    speaker = _speaker(one.notes) if one.notes else None
    counter = _counter(number, total)
    return el("section", el("h2", one.title), body, speaker, counter, class_="slide", id=f"slide-{number}")


def _speaker(notes: str) -> Html:
    return el("aside", notes, class_="speaker", aria_label="notes")


def _counter(number: int, total: int) -> Html:
    return el("div", f"{number} / {total}", class_="counter")


def _document(title: str, styles: Sequence[str], body: Html, script: str = "") -> str:
    allowed = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" if script else "'none'"
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; base-uri 'none'; form-action 'none'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        Html(f"<style>\n{''.join(styles)}</style>"),
    )
    return f"<!doctype html>\n{el('html', head, el('body', body), lang='en')}\n"


def _asset(name: str) -> str:
    return resources.files("loramerge.report").joinpath("assets", name).read_text(encoding="utf-8")
