"""What a kind of task is: items made ready for a model, how they are run, and how what was observed is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from loramerge.errors import FormatError, IncompatibleError
from loramerge.evaluation.passes import Lot, Run
from loramerge.models.model import OVER_TEXT
from loramerge.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from loramerge.evaluation._files import Data
    from loramerge.evaluation.metrics import Array, Metric
    from loramerge.models.model import Model


@dataclass(frozen=True)
class Prepared:
    """Items of a task, tokenised for one model.

    `run` makes observations (R numbers an item) of inputs; `metrics` score them, the first of them being the
    task's. `items` says how many there are; lots number them from 0. `own_way`: a candidate goes on from tokens that
    it made itself, so that not even the first layers are alike. `loss`: observations (N, items, R) as `scored`
    negative log-likelihoods, where the kind has any.
    """

    lots: Sequence[Lot]
    run: Run
    metrics: Sequence[Metric]
    items: int
    notes: tuple[str, ...] = ()
    own_way: bool = False
    loss: Callable[[Array], Array] | None = None


@dataclass(frozen=True)
class Task:
    """A kind of task. `Any` stands for its own options, and for data of a kind that reads its own.

    `prepare(data, items, model, options)` takes the items with these numbers. `models`: PEFT's task types of the
    classes that it can be run on. `count(data, model, options)`: how many items there are.
    `heads`: a classifier's head decides, so candidates need one. `read(name, folder, options)`: of a kind whose tasks
    are no files but have names.
    """

    prepare: Callable[[Any, Sequence[int], Model, Any], Prepared]
    options: type
    count: Callable[[Any, Model, Any], int]
    models: Sequence[str] = OVER_TEXT
    heads: bool = False
    read: Callable[[str, Path, Any], Data] | None = None


TASKS: Registry[Task] = Registry("loramerge.evaluation.tasks", "TASK", "kind of task")
"""Kinds of tasks."""

_CALLED = {
    "CAUSAL_LM": "a language model",
    "SEQ_2_SEQ_LM": "an encoder-decoder",
    "SEQ_CLS": "a classifier",
    "TOKEN_CLS": "a classifier of tokens",
    "FEATURE_EXTRACTION": "an encoder",
}


def rows_of(data: Data, model: Model, options: Any) -> int:
    """As many items as rows."""
    return len(data.rows)


def lots_of(
    items: Iterable[tuple[int, Mapping[str, Sequence[int]]]], *, cost: Callable[[Mapping[str, Sequence[int]]], int]
) -> list[Lot]:
    """Items, each some lists of numbers, in lots in which every list has one length: nothing is padded."""
    import torch

    def shape(item: tuple[int, Mapping[str, Sequence[int]]]) -> tuple[int, ...]:
        return tuple(len(value) for value in item[1].values())

    found = []
    for _, same in groupby(sorted(items, key=lambda item: (shape(item), item[0])), key=shape):
        lot = list(same)
        inputs = {name: torch.tensor([fields[name] for _, fields in lot]) for name in lot[0][1]}
        found.append(Lot(tuple(at for at, _ in lot), inputs, cost(lot[0][1])))
    return found


def encoded(
    model: Model, data: Data, items: Sequence[int], texts: Sequence[str], max_length: int | None, **options: Any
) -> list[dict[str, list[int]]]:
    """What the tokenizer makes of each item's text, without what the model does not take.

    Raises FormatError for a text that has no token.
    """
    kept = {"truncation": True, "max_length": max_length} if max_length else {}
    found = model.tokenizer(list(texts), **kept, verbose=False, **options)
    if (empty := next((at for at, ids in zip(items, found["input_ids"], strict=True) if not ids), None)) is not None:
        raise FormatError("A text has no token.", where=data.where(empty), hint="a text that is not empty")
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in found]
    names = [name for name in names if name in model.takes]
    return [dict(zip(names, values, strict=True)) for values in zip(*(found[name] for name in names), strict=True)]


def check_model(kind: str, model: Model) -> None:
    """Raises IncompatibleError for a model that tasks of this kind cannot be run on."""
    if model.task not in (possible := TASKS[kind].models):
        needed = " or ".join(_CALLED[task] for task in possible)
        raise IncompatibleError(
            f"A task of kind {kind} needs {needed}, and this is {_CALLED[model.task]}.",
            where=model.where,
            hint="another --task",
        )
