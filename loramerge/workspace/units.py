"""A decomposed adapter on disk: its own files, and a table with one line per rank-one unit.

    units.jsonl    module, unit, norm, share, nearest, cosine; one unit a line, for any editor or script
    adapter/       the adapter as it is, bit for bit

`assemble` keeps the units whose line is still there; the numbers in a line are for the reader only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from loramerge.errors import BadConfig, NotFound

TABLE = "units.jsonl"
ADAPTER = "adapter"
_LONGEST = 4096
_MOST = 10_000_000


def write_table(folder: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write the table; returns the number of units."""
    count = 0
    with (folder / TABLE).open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_table(folder: Path) -> list[dict[str, Any]]:
    """The lines of the table. Raises NotFound where there is none, BadConfig that names a broken line."""
    path = folder / TABLE
    if not path.is_file():
        raise NotFound(f"There is no {TABLE} here.", where=str(folder), hint="loramerge decompose REF -o DIR")
    rows = []
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if number > _MOST:
                raise BadConfig(f"The table has more than {_MOST:,} lines.", where=str(path))
            if line.strip():
                rows.append(_row(line, f"{path}:{number}"))
    return rows


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line) if len(line) <= _LONGEST else None
    except (ValueError, RecursionError):
        row = None
    unit = row.get("unit") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(row.get("module"), str) or type(unit) is not int:
        raise BadConfig("This line is not a unit.", where=where, hint='{"module": "...", "unit": 0, ...}')
    return row
