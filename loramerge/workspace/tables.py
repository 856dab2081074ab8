"""Plain files beside adapters: rows of numbers that are read, texts that appear whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from loramerge.errors import FormatError, LoramergeError, NotFound, OutputExists


def check_output(path: Path, force: bool) -> None:
    """Raises, before the work, OutputExists; NotFound and LoramergeError for a folder that takes no file."""
    if path.is_dir() or (path.exists() and not force):
        raise OutputExists("The output is there already.", where=str(path), hint="--force, or another -o")
    if not path.parent.is_dir():
        raise NotFound("There is no such folder.", where=str(path.parent), hint="another -o")
    if not os.access(path.parent, os.W_OK):
        raise LoramergeError("The output cannot be written: Permission denied.", where=str(path), hint="another -o")


def read_rows(path: Path) -> list[Any]:
    """A list from a file of JSON, or of JSON lines. Raises NotFound, FormatError."""
    try:
        text = path.read_text(encoding="utf-8")
        found = [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else None
        rows = json.loads(text) if found is None else found
    except FileNotFoundError:
        raise NotFound("There is no such file.", where=str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"The file cannot be read: {error}.", where=str(path)) from None
    if not isinstance(rows, list) or not rows:
        raise FormatError("The file is no list with rows.", where=str(path), hint="[[0.5, 0.5], [1, 0]]")
    return rows


def write_whole(path: Path, text: str) -> None:
    """Write a text that appears when all of it is written. Raises LoramergeError where the disk does not take it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise LoramergeError(f"The output cannot be written: {error.strerror}.", where=str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)
