"""HTML as values. Text and attributes are escaped unless they are `Html`, which is HTML already."""

from __future__ import annotations

from html import escape

from loramerge.report.words import LONGEST, clean

_VOID = {"meta", "br", "hr", "col"}


class Html(str):
    """Text that is HTML and goes into a page as it is. Only functions of this package make it."""

    __slots__ = ()


def text(value: object, limit: int = LONGEST) -> Html:
    """Anything as text: what is HTML stays, all else is cleaned and escaped."""
    return value if isinstance(value, Html) else Html(escape(clean(value, limit), quote=True))


def lines(value: str) -> Html:
    """Several lines of text as they are, escaped; what does not print becomes a space."""
    return Html("\n".join(escape("".join(c if c.isprintable() else " " for c in one)) for one in value.split("\n")))


def el(tag: str, *children: object, **attributes: object) -> Html:
    """An element. `class_` is class, other underscores are dashes; an attribute of None is left out."""
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(_plain(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID:
        return Html(f"<{tag}{given}>")
    return Html(f"<{tag}{given}>{join(*children)}</{tag}>")


def join(*parts: object) -> Html:
    """Parts one after the other; None is nothing."""
    return Html("".join(text(part) for part in parts if part is not None))


def _plain(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
