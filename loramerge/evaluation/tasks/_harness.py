"""Tasks of lm-evaluation-harness as it has them: found by name, with their documents and requests.

Only data that is on this machine is read: `dataset_path: json` with `data_files`, or what `datasets` has kept. A task
may bring Python of its own, which the harness runs.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from loramerge.errors import BadOption, FormatError, IncompatibleError, MissingExtra, NotFound, UnknownName, first_line
from loramerge.evaluation._files import Data
from loramerge.registry import near

_SEED, _OTHER_SEED = 0, 1234
"""The harness's own: of `random`, and of all else."""


@dataclass(frozen=True, eq=False)
class Loaded(Data):
    """A task of the harness, with the requests that have been made of its documents."""

    task: Any = None
    made: dict[int, list[Any]] = field(default_factory=dict)

    def requests(self, items: Sequence[int]) -> list[list[Any]]:
        """The requests of some documents. Examples are drawn document by document, so all before are made too."""
        if not set(items) <= set(self.made):
            with quiet(), _seeded():
                self.task.set_fewshot_seed(_OTHER_SEED)
                self.task.build_all_requests(limit=max(items) + 1)
            for at, same in groupby(self.task.instances, key=lambda instance: int(instance.doc_id)):
                self.made[at] = sorted(same, key=lambda instance: int(instance.idx))
        return [self.made[at] for at in items]


def load(name: str, folder: Path, include_path: str | None, num_fewshot: int | None) -> Loaded:
    """The harness's task of that name, or one in `include_path`, relative to `folder`.

    Raises MissingExtra, UnknownName, BadOption for a group, NotFound where its data is not on this machine,
    FormatError for a task that cannot be loaded.
    """
    with quiet(), _seeded(), _offline():
        manager = _manager(name, folder, include_path)
        path = Path(manager.task_index[name].yaml_path or name)
        task = _loaded(manager, name, path)
        if num_fewshot is not None and task.config.num_fewshot != 0:
            task.set_config("num_fewshot", num_fewshot)
        docs = list(task.eval_docs)
        shown = list(task.fewshot_docs()) if task.config.num_fewshot else []
    told = json.dumps([task.dump_config(), docs, shown], default=str, sort_keys=True)
    split = str(task.config.test_split or task.config.validation_split)
    digest = hashlib.sha256(told.encode()).hexdigest()
    return Loaded(name, "lm-eval", path, split, digest, of=len(docs), task=task)


def _manager(name: str, folder: Path, include_path: str | None) -> Any:
    """The harness's list of tasks. Its own takes long to read, so a folder that has the name is enough."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise MissingExtra(
            f"lm-eval:{name} needs {error.name or 'lm_eval'}.", hint="pip install 'loramerge[lm-eval]'"
        ) from None
    own = [str(folder / Path(include_path).expanduser())] if include_path else []
    if own and not Path(own[0]).is_dir():
        raise NotFound("There is no such folder of tasks.", where=own[0], hint="-T include_path=FOLDER")
    manager = TaskManager(include_path=own, include_defaults=False)
    if name not in manager.task_index:
        manager = TaskManager(include_path=own)
    if name not in manager.task_index:
        raise UnknownName(
            f"The harness has no task {name!r}.",
            hint=", ".join(near(name, manager.task_index)) or "-T include_path=FOLDER for one of yours",
        )
    if name not in manager.all_subtasks:
        some = [task for task in manager.all_subtasks if task.startswith(name)]
        raise BadOption(
            f"{name} is a group of tasks: name one of them.", hint=", ".join(some[:5]) or "a task's own name"
        )
    return manager


def _loaded(manager: Any, name: str, path: Path) -> Any:
    try:
        [task] = manager.load([name])["tasks"].values()
    except OSError as error:  # of which all that is said of data that cannot be had are
        raise NotFound(
            f"The data of {name} is not on this machine: {first_line(error)}.",
            where=str(path),
            hint="a task of your own that includes this one, with dataset_path: json and data_files",
        ) from None
    except Exception as error:  # whatever a task's YAML and Python meet
        raise FormatError(f"The harness cannot load {name}: {first_line(error)}.", where=str(path)) from None
    if getattr(task, "UNSAFE_CODE", False) or getattr(task, "MULTIMODAL", False):
        raise IncompatibleError(f"{name} runs code of the model's, or needs more than text.", where=str(path))
    return task


@contextmanager
def quiet() -> Iterator[None]:
    """The harness neither logs nor warns nor draws bars meanwhile: what has to be said is ours to say."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


@contextmanager
def _seeded() -> Iterator[None]:
    """The seeds that the harness begins with, where tasks draw from what is everybody's; put back afterwards."""
    import torch

    before, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(_SEED)
        np.random.seed(_OTHER_SEED)
        torch.manual_seed(_OTHER_SEED)
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(numbers)


@contextmanager
def _offline() -> Iterator[None]:
    """`datasets` takes what is on this machine only: its switch is read once, when it is imported."""
    try:
        from datasets import config
    except ImportError:  # it comes with the harness, whose absence is told where that is asked for
        yield
        return
    with ExitStack() as stack:
        for owner in (config, config.constants):
            stack.callback(setattr, owner, "HF_HUB_OFFLINE", owner.HF_HUB_OFFLINE)
            owner.HF_HUB_OFFLINE = True
        yield
