"""`loramerge.lock`: what a workspace holds, as TOML that is sorted, meant for git, and never half-written.

    schema = 1

    [[adapter]]
    name = "math-lora"              the short name in this workspace
    role = "source"                 or "result"; results also have their `number` in order of making
    repo = "acme/math-lora"         with revision (if one was asked for), commit and subfolder,
                                    or `path`, relative to the workspace
    format, base, rank, modules, size, pickle
    [[adapter.files]]               path, size, sha256

The array's name is the entry's kind. Unknown keys are errors: a later schema says so itself.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from loramerge.core.provenance import FilePin
from loramerge.errors import LockMismatch, LoramergeError
from loramerge.hub.paths import unsafe
from loramerge.hub.reference import HubRef
from loramerge.hub.text import plain

NAME = "loramerge.lock"
SCHEMA = 1
_GUARD = ".loramerge.guard"
_KINDS = ("adapter",)
_MAX_SIZE = 64 << 20
_SHORT = re.compile(r"[^\W_][\w.+-]{0,127}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One adapter of a workspace, pinned."""

    name: str
    role: Literal["source", "result"]
    files: tuple[FilePin, ...]
    kind: str = "adapter"
    repo: str = ""
    revision: str = ""
    commit: str = ""
    subfolder: str = ""
    path: str = ""
    format: str = "peft"
    base: str = ""
    rank: int = 0
    modules: int = 0
    size: int = 0
    pickle: bool = False
    number: int = 0

    @property
    def origin(self) -> tuple[str, str, str]:
        """Where it is from, whatever the revision: the same origin again is an update, not another adapter."""
        return self.repo, self.subfolder, self.path

    @property
    def reference(self) -> str:
        """How a command line names where it is from, so that it is pulled from there again."""
        if self.repo:
            return str(HubRef(self.repo, self.revision or None, self.subfolder))
        return self.path if self.path.startswith(("/", "../")) else f"./{self.path}"


def is_name(text: str) -> bool:
    """Whether a text can be an entry's name: it must not read as a path or a repo."""
    return _SHORT.fullmatch(text) is not None and not unsafe(text)


def fault(entry: Entry) -> str:
    """Why a lock cannot hold an entry ("" when it can)."""
    for name, good in _RULES.items():
        if not good(value := getattr(entry, name)):
            return f"{name} cannot be {value!r}"
    either = bool(entry.repo) != bool(entry.path) and bool(entry.repo) == bool(entry.commit)
    return "" if either else "it needs either repo and commit or path"


def load(path: Path) -> list[Entry]:
    """The entries of a lock, sorted by name; none where there is no file. Raises LockMismatch."""
    try:
        if path.stat().st_size > _MAX_SIZE:
            raise _damaged(path, f"it has more than {_MAX_SIZE:,} bytes")
        return list(_parsed(path.read_text(encoding="utf-8"), path))
    except FileNotFoundError:
        return []
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    except OSError as error:
        raise LoramergeError(f"The lock cannot be read: {error.strerror}.", where=str(path)) from None


@lru_cache(maxsize=1)
def _parsed(text: str, path: Path) -> tuple[Entry, ...]:
    """Once for the same text: hundreds of references are looked up in one lock."""
    found = tomllib.loads(text)
    if found.pop("schema", None) != SCHEMA:
        raise _damaged(path, f"its schema is not {SCHEMA}", hint="a newer loramerge")
    return tuple(_entries(found, path))


def save(path: Path, entries: list[Entry]) -> None:
    """Write the lock so that, whenever the process dies, the old or the new one is there, whole."""
    import tomli_w

    tables: dict[str, Any] = {kind: [] for kind in _KINDS}
    for entry in sorted(entries, key=lambda entry: entry.name):
        plain_values = {key: value for key, value in asdict(entry).items() if value and key != "kind"}
        tables[entry.kind].append({**plain_values, "files": [asdict(pin) for pin in sorted(entry.files)]})
    text = tomli_w.dumps({"schema": SCHEMA, **{kind: table for kind, table in tables.items() if table}})
    temporary = path.with_name(f".{path.name}.new")  # one writer at a time, so one name is enough
    try:
        with temporary.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """No other process of this machine changes the lock meanwhile; waits for those that do."""
    from filelock import FileLock

    try:
        with FileLock(path.with_name(_GUARD)):
            yield
    except OSError as error:
        raise LoramergeError(
            f"The lock cannot be written: {error.strerror}; it is as it was.",
            where=str(path),
            hint="-C names another folder to work in",
        ) from None


def sync(folder: Path) -> None:
    """Make the names in a folder as durable as its files' bytes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _entries(found: Mapping[str, Any], path: Path) -> list[Entry]:
    entries: dict[str, Entry] = {}
    for kind, tables in found.items():
        if kind not in _KINDS or not isinstance(tables, list):
            raise _damaged(path, f"{plain(kind, 40)!r} is no kind of entry")
        for number, table in enumerate(tables, 1):
            where = f"{kind} {number}"
            entry = _entry(kind, table, path, where)
            if entry.name in entries:
                raise _damaged(path, f"{where}: there are two entries {entry.name!r}")
            entries[entry.name] = entry
    return sorted(entries.values(), key=lambda entry: entry.name)


def _entry(kind: str, table: Any, path: Path, where: str) -> Entry:
    try:
        files = tuple(_pin(pin, path, where) for pin in table["files"])
        entry = Entry(**{**table, "kind": kind, "files": files})
    except (KeyError, TypeError) as error:
        raise _damaged(path, f"{where}: {_misfit(error)}") from None
    if why := fault(entry) or ("" if files else "it pins no files"):
        raise _damaged(path, f"{where}: {why}")
    return entry


def _misfit(error: KeyError | TypeError) -> str:
    """What a table lacks, or has too much: as Python says it of the class that it does not fit."""
    return f"{error} is missing" if isinstance(error, KeyError) else str(error).rpartition("() ")[2]


def _pin(table: Mapping[str, Any], path: Path, where: str) -> FilePin:
    pinned = FilePin(**table)
    if not _text(pinned.path) or unsafe(pinned.path) or not _hex(64)(pinned.sha256) or not _count(pinned.size):
        raise _damaged(path, f"{where}: {pinned.path!r} is not a pinned file")
    return pinned


def _text(value: Any) -> bool:
    return isinstance(value, str) and (value.isprintable() and len(value) <= 4096)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60


def _hex(length: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{length}}}", value) is not None


_RULES: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: _text(value) and is_name(value),
    "role": lambda value: value in ("source", "result"),
    "repo": lambda value: _text(value) and re.fullmatch(r"([\w.-]+/[\w.-]+)?", value) is not None,
    "revision": _text,
    "commit": lambda value: value == "" or _hex(40)(value),
    "subfolder": lambda value: value == "" or (_text(value) and not unsafe(value)),
    "path": _text,
    "format": _text,
    "base": _text,
    "rank": _count,
    "modules": _count,
    "size": _count,
    "pickle": lambda value: isinstance(value, bool),
    "number": _count,
}
assert {*_RULES, "files", "kind"} == {field.name for field in fields(Entry)}


def _damaged(
    path: Path, why: str, hint: str = "git checkout loramerge.lock, or delete it and pull again"
) -> LockMismatch:
    return LockMismatch(f"The lock is damaged: {plain(why, 160)}.", where=str(path), hint=hint)
