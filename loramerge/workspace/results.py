"""Folders that appear whole or not at all, and the record (`loramerge.json`) of how a result was made."""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loramerge.core.provenance import FilePin, Lineage, changed, finite, from_json, to_json
from loramerge.errors import BadConfig, IntegrityError, LoramergeError, OutputExists
from loramerge.workspace.lock import sync
from loramerge.workspace.units import TABLE

RECORD = "loramerge.json"
SCHEMA = 1
_MAX_RECORD = 64 << 20
_ASIDE = ".old"
_AT_FDCWD, _EXCHANGE = -100, 2  # of Linux's renameat2


@dataclass(frozen=True)
class Record:
    """What `loramerge.json` says: the recipe that was run, what went in, and what came out."""

    kind: str
    lineage: Lineage
    recipe: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def new_folder(out: Path, force: bool = False) -> Iterator[Path]:
    """An empty, hidden folder to write into; it becomes `out` when the block ends, and vanishes when it fails.

    Raises OutputExists where `out` is there (with `force`: where it is not a folder that loramerge
    may replace) and LoramergeError where it cannot be written. With `force` the old one stays in its
    place until the new one takes it.
    """
    out = out.expanduser().resolve()
    _sweep(out)
    _check(out, force)
    missing = [folder for folder in out.parents if not folder.exists()]
    temporary = out.with_name(f".{out.name}.{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _persist(temporary)
        _put(temporary, out, force)
        sync(out.parent)
    except OSError as error:
        if error.filename and out.parent not in Path(os.fsdecode(error.filename)).parents:
            raise  # of a file that was read
        raise _unwritten(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for folder in missing:
            with suppress(OSError):  # not empty: the result is in it
                folder.rmdir()


def copy(source: Path, files: Iterable[FilePin], folder: Path) -> None:
    """Copy pinned files (links become files) and hash the copies. Raises IntegrityError."""
    pins = list(files)
    for pinned in pins:
        (folder / pinned.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / pinned.path, folder / pinned.path)
    if differences := changed(folder, pins):
        raise IntegrityError(f"The copy differs: {'; '.join(differences)}.", where=str(source))


def write_record(folder: Path, record: Record) -> None:
    """Write `loramerge.json`; numbers that JSON does not have become null."""
    found = {
        "schema": SCHEMA,
        "kind": record.kind,
        "recipe": finite(record.recipe),
        "lineage": to_json(record.lineage),
        "report": finite(record.report),
    }
    (folder / RECORD).write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def write_card(folder: Path, text: str) -> None:
    """Write the model card, `README.md`."""
    (folder / "README.md").write_text(text, "utf-8")


def read_record(folder: Path) -> Record:
    """The record of a result. Raises BadConfig where there is none or it is damaged."""
    path = folder / RECORD
    try:
        if path.stat().st_size > _MAX_RECORD:
            raise BadConfig("The record is too long to be one.", where=str(path))
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise BadConfig("There is no record of how this was made.", where=str(path)) from None
    except (ValueError, RecursionError, OSError) as error:
        raise BadConfig(f"The record cannot be read: {error}.", where=str(path)) from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise BadConfig(f"The record's schema is not {SCHEMA}.", where=str(path), hint="a newer loramerge")
    kind, recipe, report = found.get("kind"), found.get("recipe"), found.get("report")
    if not (isinstance(kind, str) and isinstance(recipe, dict) and isinstance(report, dict)):
        raise BadConfig("The record is damaged.", where=str(path))
    return Record(kind, from_json(found.get("lineage"), str(path)), recipe, report)


def _check(out: Path, force: bool) -> None:
    if not os.path.lexists(out):
        return
    if not force:
        raise OutputExists("The output is there already.", where=str(out), hint="--force, or another -o")
    if not out.is_dir() or not _replaceable(out):
        raise OutputExists("This is not a result, and is not replaced.", where=str(out), hint="another -o")


def _replaceable(folder: Path) -> bool:
    """Whether a folder was made here, or holds nothing but an adapter's files.

    A mistyped -o must cost nobody a home folder, nor the checkpoints of a training run.
    """
    if any((folder / name).is_file() for name in (RECORD, TABLE)):
        return True
    from loramerge.hub.pull import wanted

    inside = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return inside == set(wanted(inside, allow_pickle=True))


def _sweep(out: Path) -> None:
    """Clear up after processes of this machine that died while they wrote the same output.

    Where one died between taking the old output away and putting the new one there, the old comes back.
    """
    for stale in out.parent.glob(f".{_literal(out.name)}.{_literal(platform.node())}.*.partial*"):
        pid = stale.name.removesuffix(_ASIDE).split(".")[-3]
        if pid.isdecimal() and not _alive(int(pid)):
            if stale.name.endswith(_ASIDE) and not out.exists():
                stale.rename(out)
            shutil.rmtree(stale, ignore_errors=True)


def _literal(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _persist(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)


def _put(new: Path, out: Path, force: bool) -> None:
    """Let `new` take the place of `out`; an old one is `new` afterwards. Raises OutputExists without `force`."""
    if not os.path.lexists(out):
        new.rename(out)
    elif not force:
        raise OutputExists("The output appeared meanwhile.", where=str(out), hint="--force, or another -o")
    elif not _exchanged(new, out):
        aside = new.with_name(new.name + _ASIDE)
        out.rename(aside)
        try:
            new.rename(out)
        except OSError:
            aside.rename(out)
            raise
        aside.rename(new)


def _exchanged(one: Path, other: Path) -> bool:
    """Swap two names in one step, so that neither is ever missing; False where the system cannot."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0)


def _unwritten(out: Path, error: OSError) -> LoramergeError:
    return LoramergeError(
        f"The output cannot be written: {error.strerror or error}. Nothing is left of it.",
        where=str(out),
        hint="-o on a disk with room where you may write",
    )
