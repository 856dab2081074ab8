"""Which names of a repo's files may become names on this machine."""

from __future__ import annotations

from pathlib import PurePosixPath

_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def escapes(path: str) -> bool:
    """Whether a path could point out of the folder it is written to; no honest repo lists such a name."""
    parts = path.split("/")
    return "\\" in path or any(part in ("", ".", "..") for part in parts) or not path.isprintable()


def unsafe(path: str) -> str:
    """Why a path must not be written on any system ("" when it may): one rule for all of them.

    Windows gives a meaning to `:`, to device names and to a trailing dot or space; the lengths are
    those of common file systems.
    """
    if escapes(path):
        return "it leaves its folder or hides characters"
    if ":" in path:
        return "it has a colon"
    for part in PurePosixPath(path).parts:
        if len(part.encode()) > 255:
            return "a part of it is longer than 255 bytes"
        if part.split(".")[0].lower() in _DEVICES or part != part.rstrip(". "):
            return "Windows cannot store it"
    return "it is longer than 1024 bytes" if len(path.encode()) > 1024 else ""


def collisions(paths: list[str]) -> list[str]:
    """Paths that differ from an earlier one in case only, so that one would overwrite the other."""
    first: dict[str, str] = {}
    return [path for path in sorted(paths) if first.setdefault(path.casefold(), path) != path]
