"""Foreign text made harmless: what repos, servers and configs say is shown, never interpreted."""

from __future__ import annotations

import re

_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def plain(text: str, limit: int = 300) -> str:
    """One printable line: control characters (escape sequences, line ends) become spaces, long text is cut."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def markdown(text: object, limit: int = 300) -> str:
    """Text that renders as itself in Markdown: no HTML, no links, no table cells, no emphasis."""
    escaped = _MARKDOWN.sub(r"\\\1", plain(str(text), limit))
    return "".join(_ENTITIES.get(c, c) for c in escaped)
