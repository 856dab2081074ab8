"""What an evaluation and a search wrote, read back: their JSON files as values.

Keys that are not known here are passed over, so that a newer file can still be shown. A number may be null
(or NaN), which is shown as missing.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from loramerge.errors import BadConfig, NotFound, UnknownFormat

T = TypeVar("T")

SCHEMA = 1
_LONGEST = 256 << 20
_MOST = 1 << 53
_NOUNS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; NaN where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Task:
    """What was measured: `metric` of `rows` of the `of` rows there are."""

    name: str
    metric: str = ""
    kind: str = ""
    higher: bool = True
    rows: int | None = None
    of: int | None = None
    split: str | None = None
    file: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Candidate:
    """What was scored. `kind` is base, adapter, merge or point (of a path, at `t`)."""

    name: str
    kind: str = ""
    ref: str | None = None
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    rank: Any = None
    scale: float | None = None
    weights: Any = None
    t: float | None = None
    parents: tuple[str, ...] = ()
    recipe: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Score(Estimate):
    """One candidate's number on one task; `own` is what the task's own adapter has, `normalised` the share of it.

    `behind` is how much worse it is than the best of what was merged, on the same rows.
    """

    candidate: str = dataclasses.field(kw_only=True)
    task: str = dataclasses.field(kw_only=True)
    metric: str = ""
    rows: int | None = None
    own: float | None = None
    normalised: float | None = None
    behind: Estimate | None = None
    more: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Mean(Estimate):
    """A candidate's mean over tasks, of the normalised numbers where there are such; `behind` as of a score."""

    candidate: str = dataclasses.field(kw_only=True)
    tasks: int | None = None
    behind: Estimate | None = None


@dataclass(frozen=True)
class Group:
    """Some of the tasks, and the means over them."""

    name: str
    tasks: tuple[str, ...] = ()
    means: tuple[Mean, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """The scores of candidates on tasks."""

    tasks: tuple[Task, ...]
    candidates: tuple[Candidate, ...]
    scores: tuple[Score, ...]
    means: tuple[Mean, ...] = ()
    groups: tuple[Group, ...] = ()
    base: str | None = None
    device: str | None = None
    dtype: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float | None = None
    part: Any = None
    """Which of the rows were scored."""
    heads: Any = None
    """Whose classifiers a merge was scored with."""


@dataclass(frozen=True)
class Rung(Estimate):
    """What a trial had after so many rows."""

    rows: int = 0


@dataclass(frozen=True)
class Trial:
    """One point of the space; `state` is winner, finished, dropped or failed."""

    number: int
    point: Mapping[str, Any]
    state: str
    name: str = ""
    rungs: tuple[Rung, ...] = ()
    why: str = ""

    @property
    def last(self) -> Rung | None:
        """The rung with the most rows."""
        return self.rungs[-1] if self.rungs else None


@dataclass(frozen=True)
class Winner:
    """The point that was chosen."""

    name: str
    point: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Search:
    """What a search tried; `budget` and `spent` count full passes over the validation rows."""

    space: Mapping[str, Any]
    trials: tuple[Trial, ...]
    sampler: str = ""
    seed: int | None = None
    budget: float | None = None
    spent: float | None = None
    base: str | None = None
    winner: Winner | None = None
    validation: Estimate | None = None
    held_out: Evaluation | None = None
    notes: tuple[str, ...] = ()


KINDS: Mapping[str, type[Evaluation] | type[Search]] = types.MappingProxyType(
    {"evaluation": Evaluation, "search": Search}
)


def read(path: Path) -> Evaluation | Search:
    """The evaluation or search in a file. Raises NotFound, UnknownFormat or BadConfig, with the place in the file."""
    found = _json(path)
    kind = found.get("kind") if isinstance(found, dict) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise UnknownFormat(
            "This is neither an evaluation nor a search.",
            where=str(path),
            hint="the file that `loramerge eval -o` or `loramerge tune -o` wrote",
        )
    if found.get("schema") != SCHEMA:
        raise BadConfig(f"The file's schema is not {SCHEMA}.", where=str(path), hint="a newer loramerge")
    made: Evaluation | Search = _build(KINDS[kind], found, str(path), "")
    for scores in (made, made.held_out if isinstance(made, Search) else None):
        if isinstance(scores, Evaluation):
            _check_names(scores, str(path))
    return made


def _json(path: Path) -> Any:
    try:
        if path.stat().st_size > _LONGEST:
            raise BadConfig("The file is too long for an evaluation or a search.", where=str(path))
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NotFound("There is no such file.", where=str(path), hint="loramerge eval -o FILE.json") from None
    except OSError as error:
        raise NotFound(f"The file cannot be read: {error.strerror}.", where=str(path)) from None
    except (ValueError, RecursionError) as error:
        raise BadConfig(f"This is no JSON: {error}.", where=str(path)) from None


def _check_names(found: Evaluation, path: str) -> None:
    """Raises BadConfig for scores and means of what is not listed, and for a name listed twice."""
    tasks, candidates = [task.name for task in found.tasks], [one.name for one in found.candidates]
    for what, names in (("task", tasks), ("candidate", candidates)):
        if twice := [name for name, times in Counter(names).items() if times > 1]:
            raise BadConfig(f"The {what} {twice[0]!r:.80} is listed twice.", where=path)
    known = {"task": set(tasks), "candidate": set(candidates)}
    means = [*found.means, *(mean for group in found.groups for mean in group.means)]
    named = [("candidate", score.candidate) for score in found.scores]
    named += [("candidate", mean.candidate) for mean in means]
    for what, name in [*named, *(("task", score.task) for score in found.scores)]:
        if name not in known[what]:
            raise BadConfig(f"There is a number of the {what} {name!r:.80}, which is not listed.", where=path)


def _build(hint: Any, value: Any, path: str, at: str) -> Any:
    """A value as the annotated type; raises BadConfig that names the place."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        kind = next(arg for arg in inner if arg is not type(None))
        return None if value is None else _build(kind, value, path, at)
    if origin is tuple:
        items = _checked(value, list, "a list", path, at)
        return tuple(_build(inner[0], item, path, f"{at}[{number}]") for number, item in enumerate(items))
    if dataclasses.is_dataclass(hint):
        return _record(hint, _checked(value, dict, "an object", path, at), path, at)  # type: ignore[arg-type]
    if origin is not None:  # a mapping
        items = _checked(value, dict, "an object", path, at)
        return {str(key): _build(inner[1], item, path, f"{at}.{key}") for key, item in items.items()}
    return _single(hint, value, path, at)


def _record(kind: type[T], value: Mapping[str, Any], path: str, at: str) -> T:
    hints, made = get_type_hints(kind), {}
    for each in dataclasses.fields(kind):  # type: ignore[arg-type]
        where = f"{at}.{each.name}".lstrip(".")
        if each.name in value:
            made[each.name] = _build(hints[each.name], value[each.name], path, where)
        elif each.default is each.default_factory is dataclasses.MISSING:
            raise BadConfig(f"{where} is missing.", where=path)
    return kind(**made)


def _single(kind: type[Any], value: Any, path: str, at: str) -> Any:
    if kind is float:
        if value is None:
            return float("nan")
        number = _checked(value, (int, float), _NOUNS[float], path, at)
        return float(number) if abs(number) < 1e300 or isinstance(number, float) else float("inf")
    found = _checked(value, kind, _NOUNS[kind], path, at)
    if kind is int and abs(found) > _MOST:
        raise BadConfig(f"{at} is too large a number.", where=path)
    return found


def _checked(value: Any, kind: Any, noun: str, path: str, at: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise BadConfig(f"{at} is {value!r:.60}, which is not {noun}.", where=path)
    return value
