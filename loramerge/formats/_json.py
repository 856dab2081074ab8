"""JSON from files that anybody may have written: objects only, no key twice, no NaN, no abyss."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from loramerge.errors import FormatError


def read(path: Path, *, limit: int, error: type[FormatError]) -> dict[str, Any]:
    """The object in a file of at most `limit` bytes; raises `error`."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as failure:
        raise error(f"{path.name} cannot be read: {failure.strerror}.", where=str(path)) from None
    if len(data) > limit:
        raise error(f"{path.name} is longer than {limit:,} bytes.", where=str(path))
    return parse(data, where=str(path), error=error)


def parse(data: bytes, *, where: str, error: type[FormatError], depth: int = 16) -> dict[str, Any]:
    """The object that `data` spells; raises `error` for anything else, and where values nest deeper than `depth`."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant)
        found = value if isinstance(value, dict) and _shallow(value, depth) else None
    except RecursionError:
        found = None
    except ValueError as failure:
        raise error(f"This is not valid JSON: {failure}.", where=where) from None
    if found is None:
        raise error(f"This is not a JSON object of at most {depth} levels.", where=where)
    return found


def write(path: Path, value: Mapping[str, Any]) -> None:
    """The same bytes for the same value, safely on disk: top-level keys sorted, line feeds, two spaces.

    Only the top level is sorted: PEFT takes the first of a config's patterns that matches, so inside
    them the order means something.
    """
    ordered = {key: value[key] for key in sorted(value)}
    with path.open("wb") as file:
        file.write((json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"{twice!r} stands there twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _shallow(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        nested = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [inner for group in nested for inner in group]
        if not level:
            return True
    return False
