"""What an adapter was made of, and hashes that say whether bytes are still the same."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_origin, get_type_hints

from loramerge.errors import BadConfig

T = TypeVar("T")

SCHEMA = 1
_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True, order=True)
class FilePin:
    """One file's bytes: its path relative to the adapter's folder (with `/`), size and sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Parent:
    """One adapter that went into a result, and what it counted for.

    Either `repo` with `commit` (and the `revision` that was asked for, and `subfolder`), or `path`
    for a local one. `files` pin its bytes in both cases.
    """

    name: str
    weight: float
    files: tuple[FilePin, ...] = ()
    repo: str | None = None
    revision: str | None = None
    commit: str | None = None
    subfolder: str = ""
    path: str | None = None
    base: str | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """How a result came to be; together with the parents' bytes enough to make it again.

    `base_files` pin the weights of the base, relative to their folder, where an update depended on them;
    `statistics` pin what methods and metrics were given, relative to the workspace.
    """

    method: str
    options: Mapping[str, Any]
    parents: tuple[Parent, ...]
    rank: str = "max"
    weights: str | None = None
    seed: int = 0
    base: str | None = None
    base_files: tuple[FilePin, ...] = ()
    statistics: tuple[FilePin, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def to_json(lineage: Lineage) -> dict[str, Any]:
    """The lineage as plain JSON values; what a parent does not have is left out."""
    found = finite(asdict(lineage))
    parents = [{k: v for k, v in parent.items() if v not in (None, "", [])} for parent in found["parents"]]
    return {"schema": SCHEMA, **found, "parents": parents}


def from_json(value: Any, where: str = "") -> Lineage:
    """A lineage from plain JSON values. Raises BadConfig where they are not one."""
    try:
        if value["schema"] != SCHEMA:
            raise BadConfig(f"A lineage of schema {value['schema']!r} is not known here.", where=where)
        fields = {key: item for key, item in value.items() if key != "schema"}
        parents = tuple(_parent(parent) for parent in value["parents"])
        pinned = {name: _pins(value.get(name, ())) for name in ("base_files", "statistics")}
        return _made(Lineage, {**fields, "parents": parents, **pinned})
    except (KeyError, TypeError, AttributeError) as error:
        raise BadConfig(f"The lineage is damaged: {type(error).__name__} {error}.", where=where) from None


def _parent(value: Mapping[str, Any]) -> Parent:
    return _made(Parent, {**value, "files": _pins(value.get("files", ()))})


def _pins(values: Iterable[Mapping[str, Any]]) -> tuple[FilePin, ...]:
    return tuple(_made(FilePin, pin) for pin in values)


def _made(kind: type[T], values: Mapping[str, Any]) -> T:
    hints = get_type_hints(kind)
    for key, value in values.items():
        wanted = get_origin(hints[key]) or hints[key]
        wanted = hints[key] if wanted is UnionType else (float, int) if wanted is float else wanted
        if not isinstance(value, wanted):
            raise TypeError(f"in {key}: {str(value)[:80]!r}")
    return kind(**values)


def finite(value: Any) -> Any:
    """Plain JSON values: tuples as lists, numbers that are not finite (JSON has none) as None."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sha256_file(path: Path) -> str:
    """The file's sha256 as hex, read in pieces of some megabytes."""
    return _hexdigest(hashlib.sha256(), path)


def git_blob_sha1(path: Path) -> str:
    """The id that git gives to a file of this content: sha1 of "blob <size>", a zero byte, the bytes."""
    start = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    return _hexdigest(start, path)


def _hexdigest(digest: hashlib._Hash, path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        piece = memoryview(bytearray(min(_CHUNK, path.stat().st_size + 1)))
        while size := file.readinto(piece):
            digest.update(piece[:size])
    return digest.hexdigest()


def pin(folder: Path, names: Iterable[str]) -> tuple[FilePin, ...]:
    """Pins of some files of a folder, sorted by path."""
    return tuple(
        FilePin(name, (folder / name).stat().st_size, sha256_file(folder / name)) for name in sorted(set(names))
    )


def changed(folder: Path, pins: Iterable[FilePin]) -> list[str]:
    """One sentence for each pinned file whose bytes are gone or others; empty when all are the same."""
    return [sentence for pinned in pins if (sentence := _difference(folder / pinned.path, pinned))]


def _difference(path: Path, pinned: FilePin) -> str:
    if not path.is_file():
        return f"{pinned.path} is missing"
    if (size := path.stat().st_size) != pinned.size:
        return f"{pinned.path} has {size} bytes, not {pinned.size}"
    if (found := sha256_file(path)) != pinned.sha256:
        return f"{pinned.path} has sha256 {found[:12]}…, not {pinned.sha256[:12]}…"
    return ""


def digest(pins: Iterable[FilePin]) -> str:
    """One sha256 for several files: that of their sorted `sha256  path` lines (as sha256sum writes them)."""
    lines = "".join(f"{pinned.sha256}  {pinned.path}\n" for pinned in sorted(pins))
    return hashlib.sha256(lines.encode()).hexdigest()
