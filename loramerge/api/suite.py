"""A base model with tasks on it: what candidates are run on, and how what was observed becomes scores."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from loramerge.api import basing
from loramerge.errors import BadOption, FormatError, IncompatibleError
from loramerge.evaluation import _files
from loramerge.evaluation.harness import Bench, Observations, Store
from loramerge.evaluation.tasks._task import TASKS, Prepared, Task, check_model, rows_of
from loramerge.options import parse
from loramerge.registry import near

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter
    from loramerge.evaluation.candidate import Candidate
    from loramerge.models.model import Model

Heads = Literal["each", "own"]
Heading = Mapping[str, Mapping[str, "Tensor"]]


@dataclass(frozen=True)
class Asked:
    """On what candidates are evaluated.

    `tasks` are `KIND:PATH` or folders, each may begin with `NAME=`. Of their items the first `limit`, and of those
    all, the even or the odd ones. `options` are those of kinds of tasks. `heads`: "each" lets a candidate use its
    own task head, "own" gives all candidates the head of the source that a task belongs to: the one that `own` names
    for the task, or whose name has the task's in it. `rows`: activations in a pass.
    """

    base: str
    tasks: Sequence[str]
    split: str | None = None
    limit: int | None = None
    part: _files.Part = "all"
    options: Mapping[str, str] = field(default_factory=dict)
    heads: Heads = "each"
    own: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "F32"
    rows: int | None = None
    check: bool = True
    takes: Mapping[str, tuple[str | None, _files.Part]] = field(default_factory=dict)
    """For tasks by their own names: another split, and which of its items."""


@dataclass(frozen=True)
class OnTask:
    """A task ready to be run: its data, the items taken, and the source that it belongs to."""

    name: str
    data: _files.Data
    kind: Task
    options: Any
    items: Sequence[int]
    part: _files.Part
    of: int
    prepared: Prepared
    owner: str | None = None
    head: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What is told of it."""
        metric = self.prepared.metrics[0]
        told = {"name": self.name, "kind": self.data.kind, "metric": metric.name, "higher": metric.higher}
        told |= {"rows": len(self.items), "of": self.of, "part": self.part, "split": self.data.split}
        return told | {"owner": self.owner, "file": self.data.path.name, "sha256": self.data.sha256}


@dataclass
class Suite:
    """Tasks on a model. `observe` runs candidates on one of them."""

    session: Session
    asked: Asked
    model: Model
    folder: Path
    base: str
    tasks: Sequence[OnTask]
    device: str
    notes: list[str] = field(default_factory=list)

    @property
    def part(self) -> str:
        """Which of their items the tasks take."""
        return ", ".join(sorted({task.part for task in self.tasks}))

    @cached_property
    def bench(self) -> Bench:
        """The model, on the device."""
        self.model.module.to(self.device)
        return Bench(self.model.module, str(self.folder), self.asked.rows)

    def shuffled(self, seed: int) -> Suite:
        """The same with the items of each task in an order that says nothing of them."""

        def mixed(task: OnTask) -> OnTask:
            order = random.Random(f"{seed} {task.name}").sample(range(len(task.items)), len(task.items))
            items = [task.items[at] for at in order]
            return replace(task, items=items, prepared=task.kind.prepare(task.data, items, self.model, task.options))

        return replace(self, tasks=[mixed(task) for task in self.tasks])

    def observe(
        self, task: OnTask, candidates: Sequence[Candidate], store: Store | None = None, rows: range | None = None
    ) -> Observations:
        """Candidates on the items of a task, or on some of them, with the task's own head where that is asked for.

        Raises IncompatibleError for a classification of candidates without a head.
        """
        given = [candidate.with_weights(task.head) if task.head else candidate for candidate in candidates]
        if task.kind.heads:
            self._check_heads(given)
        chosen = range(len(task.items)) if rows is None else rows
        prepared, items = task.prepared, [task.items[at] for at in chosen]
        if len(items) < len(task.items):
            prepared = task.kind.prepare(task.data, items, self.model, task.options)

        def told(done: int, total: int) -> None:
            self.session.progress(task.name, done, total, "items")

        with threads(self.session.workers):
            return self.bench.observe(given, prepared, store, numbers=items, check=self.asked.check, progress=told)

    def key(self, task: OnTask) -> str:
        """A hash of everything that an observation depends on but candidate and item."""
        files = sorted(path for path in self.folder.iterdir() if path.is_file())
        base = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        told = (task.data.key, asdict(task.options), str(self.folder.resolve()), base, self.asked.dtype, self.device)
        return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()

    def _check_heads(self, candidates: Sequence[Candidate]) -> None:
        untrained = set(self.model.untrained)
        for candidate in candidates:
            if lacking := sorted(untrained - set(candidate.replaced)):
                raise IncompatibleError(
                    f"{candidate.name} has no task head, and the base has none either: {', '.join(lacking)}.",
                    where=self.model.where,
                    hint="--heads own takes each task's from the source that was trained for it",
                )


def suite(session: Session, asked: Asked, like: Adapter | None, heads: Heading) -> Suite:
    """Open the base, of the class that `like` was trained on, and read the tasks. `heads`: those there are, by name.

    Raises NotFound, FormatError, BadOption and IncompatibleError for what does not go together, before anything runs.
    """
    from loramerge.engine.plan import resolve_device
    from loramerge.models.model import CLASSES, open_model

    if not asked.tasks:
        raise BadOption("There is no task.", hint="--task FOLDER, or --task KIND:FILE")
    root = session.workspace.root
    named = [_named(text) for text in asked.tasks]
    data = [(name, _data(name, spec, root, asked)) for name, spec in named]
    _check_options(asked.options, sorted({found.kind for _, found in data}))
    device = resolve_device(session.device)
    folder, known = basing.folder(session, asked.base)
    base = (like.base if like else None) or known
    model = open_model(folder, like, tasks=CLASSES, dtype=asked.dtype)
    names = [name or found.name for name, found in data]
    if stray := [name for name in asked.own if name not in names]:
        raise BadOption(
            f"There is no task {stray[0]!r}.", where="--own", hint=", ".join(near(stray[0], names) or names)
        )
    if twice := {name for name in names if names.count(name) > 1}:
        raise BadOption(f"Two tasks are called {twice.pop()!r}.", hint="--task NAME=PATH")
    tasks = [_on_task(asked, model, name, found, heads) for name, found in data]
    notes = [note for task in tasks for note in task.prepared.notes]
    return Suite(session, asked, model, folder, base, tasks, device, notes)


def again(made: Suite, asked: Asked, heads: Heading) -> Suite:
    """The tasks on the same model, asked for otherwise: other splits, other items."""
    root = made.session.workspace.root
    named = [_named(text) for text in asked.tasks]
    tasks = [_on_task(asked, made.model, name, _data(name, spec, root, asked), heads) for name, spec in named]
    return replace(made, asked=asked, tasks=tasks, notes=[note for task in tasks for note in task.prepared.notes])


def _named(text: str) -> tuple[str, str]:
    """`NAME=SPEC`, or a SPEC that has its own name."""
    name, equals, spec = text.partition("=")
    return (name, spec) if equals and "/" not in name and ":" not in name else ("", text)


def _data(own: str, spec: str, root: Path, asked: Asked) -> _files.Data:
    """The task that `KIND:NAME` names, for a kind that has its own, else that of a file."""
    kind, _, name = spec.partition(":")
    if name and kind in TASKS and (read := TASKS[kind].read):
        return read(name, root, _options(TASKS[kind], asked.options))
    found = _files.read(spec, root, split=asked.split)
    split, _ = asked.takes.get(own or found.name, (None, "all"))
    return _files.read(spec, root, split=split) if split else found


def _on_task(asked: Asked, model: Model, name: str, data: _files.Data, heads: Heading) -> OnTask:
    name = name or data.name
    kind = TASKS[data.kind]
    options = _options(kind, asked.options)
    check_model(data.kind, model)
    of = kind.count(data, model, options)
    if kind.count is rows_of and not data.rows and not kind.read:
        raise FormatError(f"A {data.kind} task has rows of JSON.", where=str(data.path), hint="a file *.jsonl")
    _, part = asked.takes.get(name, (None, asked.part))
    items = _files.chosen(of, part, asked.limit)
    if of and not items:
        raise BadOption(f"None of {of} items of {name} is left.", hint="a larger --limit")
    prepared = kind.prepare(data, items, model, options)
    # Who was trained for a task that asks for a head has one.
    owner = _owner(name, asked, {one: head for one, head in heads.items() if head or not kind.heads})
    head: Mapping[str, Tensor] = {}
    if asked.heads == "own" and kind.heads:
        if owner is None or not heads[owner]:
            raise BadOption(
                f"Whose head is that of {name}?",
                where=", ".join(name for name in heads if heads[name]) or "no head anywhere",
                hint=f"--own {name}=REF",
            )
        head = heads[owner]
    return OnTask(name, data, kind, options, items, part, of, prepared, owner, head)


def _check_options(given: Mapping[str, str], kinds: Sequence[str]) -> None:
    """Raises BadOption for an option that none of the kinds of the tasks has."""
    known = {name for kind in kinds for name in TASKS[kind].options.__dataclass_fields__}  # type: ignore[attr-defined]
    if stray := [key for key in given if key.replace("-", "_") not in known]:
        raise BadOption(
            f"None of the tasks has an option {stray[0]!r}.",
            where=", ".join(kinds),
            hint=", ".join(near(stray[0], known) or sorted(known)),
        )


def _options(kind: Task, given: Mapping[str, str]) -> Any:
    """The options that this kind has, of those given for all kinds."""
    fields = kind.options.__dataclass_fields__  # type: ignore[attr-defined]
    return parse(kind.options, {key: value for key, value in given.items() if key.replace("-", "_") in fields})


def _owner(task: str, asked: Asked, heads: Heading) -> str | None:
    """The source that a task belongs to: named, or the only one with the task's name in its own (the shortest)."""
    if task in asked.own:
        name = asked.own[task]
        if name not in heads:
            raise BadOption(f"No source is called {name!r}.", hint=", ".join(near(name, heads) or heads))
        return name
    having = sorted((name for name in heads if task.lower() in name.lower()), key=len)
    return having[0] if having else None


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """torch with so many threads meanwhile; None: as many as it has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
