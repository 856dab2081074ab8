"""A task's files: rows of JSON or a text, with what is said of them in an INFO.json beside them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from loramerge.errors import BadConfig, BadOption, FormatError, NotFound
from loramerge.registry import near

KINDS = {"lm": "perplexity"}
"""Other names of kinds of tasks, as files say them."""

VALIDATION = ("dev", "validation", "valid", "val")
"""Names of a split that chooses between candidates; without a test it is also what is reported."""

Part = Literal["all", "even", "odd"]


@dataclass(frozen=True)
class Data:
    """The items of a task as its file has them: `rows` of JSON, or a `text`.

    `labels` are the classes' names where they are known, `of` counts the rows there are before any is left out,
    `numbers` are the rows' lines.
    """

    name: str
    kind: str
    path: Path
    split: str
    sha256: str
    rows: Sequence[Mapping[str, Any]] = ()
    text: str = ""
    splits: tuple[str, ...] = ()
    """All that its folder has."""
    labels: tuple[str, ...] = ()
    metric: str = ""
    info: Path | None = None
    """The file that says so of them."""
    of: int = 0
    numbers: Sequence[int] = ()

    def where(self, at: int) -> str:
        """The file and the line of a row."""
        return f"{self.path}:{self.numbers[at] if at < len(self.numbers) else at + 1}"

    @property
    def key(self) -> str:
        """What tells one set of items from another."""
        return f"{self.kind} {self.sha256}"


def read(spec: str, folder: Path, *, split: str | None = None) -> Data:
    """The task that `KIND:PATH`, or the path of a folder with INFO.json, names; relative to `folder`.

    Raises NotFound, FormatError for what is no UTF-8 or no JSON (with its line) or empty, BadConfig for an
    INFO.json that lacks what is needed, BadOption for a split that is not there.
    """
    kind, _, where = spec.rpartition(":")
    path = folder / Path(where).expanduser()
    if path.is_dir():
        return _from_folder(path, kind, split)
    if not path.is_file():
        raise NotFound("There is no such task.", where=where, hint="a folder with INFO.json, or KIND:FILE")
    if not kind:
        raise BadOption(
            f"What kind of task is {where}?", hint=f"--task classification:{where}, or a folder with INFO.json"
        )
    return _loaded(Data(path.stem, kind, path, split or path.stem, ""))


def _from_folder(path: Path, kind: str, split: str | None) -> Data:
    info = _info(path)
    splits = info.get("splits")
    if not isinstance(splits, Mapping) or not splits:
        raise BadConfig("INFO.json names no splits.", where=str(path / "INFO.json"), hint='{"splits": {"test": …}}')
    chosen = split or next((name for name in ("test", *VALIDATION) if name in splits), next(iter(splits)))
    if chosen not in splits:
        raise BadOption(
            f"There is no split {chosen!r}.", where=str(path), hint=", ".join(near(chosen, splits) or splits)
        )
    entry = splits[chosen]
    name = entry.get("file") if isinstance(entry, Mapping) else entry
    labels = info.get("labels") or []
    if not isinstance(labels, list):
        raise BadConfig("labels is no list.", where=str(path / "INFO.json"), hint='{"labels": ["no", "yes"]}')
    found = kind or str(info.get("kind") or "")
    if not found:
        raise BadConfig(
            "INFO.json names no kind of task.", where=str(path / "INFO.json"), hint='{"kind": "classification"}'
        )
    data = Data(
        str(info.get("name") or path.name),
        KINDS.get(found, found),
        path / str(name),
        chosen,
        "",
        splits=tuple(map(str, splits)),
        labels=tuple(map(str, labels)),
        metric=str(info.get("metric") or ""),
        info=path / "INFO.json",
    )
    if not data.path.is_file():
        raise NotFound("The file that INFO.json names is not there.", where=str(data.path))
    return _loaded(data)


def _info(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((path / "INFO.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound("The folder has no INFO.json.", where=str(path), hint="or name a file: KIND:FILE") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadConfig(f"INFO.json cannot be read: {error}.", where=str(path)) from None
    if not isinstance(found, Mapping):
        raise BadConfig("INFO.json is no table.", where=str(path))
    return found


def _loaded(data: Data) -> Data:
    try:
        raw = data.path.read_bytes()
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"The task is not UTF-8 (byte {error.start:,}).", where=str(data.path)) from None
    except OSError as error:
        raise FormatError(f"The task cannot be read: {error.strerror}.", where=str(data.path)) from None
    if not text.strip():
        raise FormatError("The task is empty.", where=str(data.path), hint="one example a line")
    data = replace(data, sha256=hashlib.sha256(raw).hexdigest())
    if data.path.suffix != ".jsonl":
        return replace(data, text=text)
    # Not `splitlines`: a text in JSON may have other characters that end lines.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    rows = [_row(line, number, data.path) for number, line in lines]
    return replace(data, rows=rows, of=len(rows), numbers=[number for number, _ in lines])


def _row(line: str, number: int, path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"This is no JSON: {error}.", where=f"{path}:{number}") from None
    if not isinstance(found, Mapping):
        raise FormatError("A row is an object of JSON.", where=f"{path}:{number}", hint='{"text": "…", "label": 0}')
    return found


def chosen(count: int, part: Part, limit: int | None) -> list[int]:
    """The numbers of the items that are taken: the first `limit`, and of those all, the even or the odd ones."""
    found = range(count if limit is None else min(limit, count))
    return list(found[{"all": 0, "even": 0, "odd": 1}[part] :: 1 if part == "all" else 2])


_NOUNS: Mapping[Any, str] = {str: "text", int: "whole number", (int, float): "number", list: "list"}


def _is(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and (not isinstance(value, bool) or kind is bool)


def field(data: Data, at: int, name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of a row. Raises FormatError where it is missing or of another type."""
    found = data.rows[at].get(name)
    if name in data.rows[at] and not _is(found, kind):
        raise FormatError(f"{name!r} is {found!r:.60}, which is no {_NOUNS[kind]}.", where=data.where(at))
    if not _is(found, kind):
        there = ", ".join(map(str, data.rows[at])) or "nothing"
        raise FormatError(f"A row of a {data.kind} task has {name!r}: this has {there}.", where=data.where(at))
    return found
