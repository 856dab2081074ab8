"""lm-evaluation-harness's own tasks, by name: `lm-eval:arc_easy`. Its prompts, examples, filters and metrics.

Requests do not depend on the model, so they are made once; all candidates answer those of a document together, and
of each candidate's answers the harness makes the document's values. Observed: two numbers for each metric, of whose
sums the score is made; metrics that are no such thing (BLEU, a median) are left out, which is noted.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.errors import BadOption
from loramerge.evaluation.passes import Lot
from loramerge.evaluation.tasks._answers import Answer, Ask, Score, Text, answers
from loramerge.evaluation.tasks._harness import Loaded, load, quiet
from loramerge.evaluation.tasks._harness_metrics import Columns, Key, columns, first
from loramerge.evaluation.tasks._task import Prepared, Task

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.evaluation.tasks._harness_model import Asker
    from loramerge.models.model import Model

_BLANK: Mapping[str, Any] = {"loglikelihood": (0.0, False), "loglikelihood_rolling": 0.0, "generate_until": ""}
"""An answer of each type, to see what a task makes of one."""


@dataclass(frozen=True)
class Options:
    """`num_fewshot`: examples before a question, in place of the task's own number (which stays where it says 0).

    `include_path`: a folder of tasks beside the harness's own. `limit`: so many of the first documents.
    `metric`: the one that counts, where not the first.
    """

    num_fewshot: int | None = None
    include_path: str | None = None
    limit: int | None = None
    metric: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("num_fewshot", 0), ("limit", 1)):
            if (value := getattr(self, name)) is not None and value < least:
                raise BadOption(f"{name} is {value}.", hint=f"{least} or more")


def read(name: str, folder: Path, options: Options) -> Loaded:
    """The task, as `load` has it."""
    return load(name, folder, options.include_path, options.num_fewshot)


def count(data: Loaded, model: Model, options: Options) -> int:
    """How many documents the task has."""
    return min(data.of, options.limit or data.of)


def prepare(data: Loaded, items: Sequence[int], model: Model, options: Options) -> Prepared:
    """Documents in lots of about one cost.

    Raises FormatError for requests that do not fit the model, IncompatibleError for answers that are drawn and for
    a task without a metric that is made of sums.
    """
    requests = data.requests(items)
    with quiet():
        from loramerge.evaluation.tasks._harness_model import Asker

        asker = Asker(model)
        documents = [_Document(some, [asker.asks(one) for one in some]) for some in requests]
        found = _columns(data.task, documents)
    ready = _Ready(data.task, asker, documents, found, max(len(document.every) for document in documents))
    notes = [f"{data.name}: {asker.cut:,} requests lost their beginning, for the model takes {asker.max_length} tokens"]
    notes = notes if asker.cut else []
    if found.left_out:
        notes.append(f"{data.name}: {', '.join(found.left_out)} cannot be made of sums over documents and is left out")
    own_way = any(isinstance(ask, Text) for document in documents for ask in document.every)
    return Prepared(
        list(_lots(documents)), ready.run, first(found.metrics, options.metric), len(items), tuple(notes), own_way
    )


@dataclass(frozen=True)
class _Document:
    """One document: its requests, and what each of them asks of the model."""

    requests: Sequence[Any]
    asks: Sequence[Sequence[Ask]]

    @property
    def every(self) -> list[Ask]:
        return [ask for some in self.asks for ask in some]

    @property
    def cost(self) -> int:
        """Rows of activations for each candidate, at most; a prompt that is asked twice counts once."""
        scores = [ask for ask in self.every if isinstance(ask, Score)]
        prompts = sum(map(len, {ask.prompt for ask in scores}))
        made = sum(ask.longest for ask in self.every if isinstance(ask, Text))
        return prompts + sum(len(ask.tokens) for ask in scores) + made


@dataclass(frozen=True)
class _Ready:
    """All that is needed to run documents. `most`: asks that a document has."""

    task: Any
    asker: Asker
    documents: Sequence[_Document]
    columns: Columns
    most: int

    def run(self, module: Any, inputs: Mapping[str, Any], count: int) -> tuple[Tensor, Tensor]:
        """(two numbers a metric) of each document, and what its answers were made of."""
        import torch

        items = inputs["item"][: len(inputs["item"]) // count, 0].tolist()
        chosen = [self.documents[at] for at in items]
        asks = (ask for document in chosen for ask in document.every)
        told = answers(module, asks, count, self.asker.tokenizer, self.asker.max_length)
        with quiet():
            observed = [row for at in range(count) for row in self._observed(chosen, told, at)]
        seen = [self._seen(document, told, at) for at in range(count) for document in chosen]
        return torch.tensor(observed, dtype=torch.float64), torch.stack(seen)

    def _observed(self, documents: Sequence[_Document], told: Mapping[Ask, Answer], at: int) -> Iterator[list[float]]:
        """The rows of one candidate; of NaN where the model gave none."""
        said = [
            [self._said(*one, told, at) for one in zip(document.requests, document.asks, strict=True)]
            for document in documents
        ]
        values = _values(self.task, [document.requests for document in documents], said)
        for document, one in zip(documents, values, strict=True):
            row = self.columns.row(one, str(self.task.task_name))
            finite = all(bool(told[ask].seen[at].isfinite().all()) for ask in document.every)
            yield row if finite else [float("nan")] * len(row)

    def _said(self, request: Any, asks: Sequence[Ask], told: Mapping[Ask, Answer], at: int) -> Any:
        """A candidate's answer to a request, as the harness's class would give it."""
        said = [told[ask].said[at] for ask in asks]
        if request.request_type == "generate_until":
            return self.asker.text(request, *said)
        return sum(score for score, _ in said) if request.request_type == "loglikelihood_rolling" else said[0]

    def _seen(self, document: _Document, told: Mapping[Ask, Answer], at: int) -> Tensor:
        import torch

        seen = [told[ask].seen[at] for ask in document.every]
        return torch.cat([*seen, *[torch.zeros_like(seen[0])] * (self.most - len(seen))])


def _lots(documents: Sequence[_Document]) -> Iterator[Lot]:
    """Documents of like cost, since a pass is cut by it; their tokens stay behind."""
    import torch

    costs = [document.cost for document in documents]
    order = sorted(range(len(documents)), key=costs.__getitem__)
    for _, same in groupby(order, key=lambda at: costs[at].bit_length()):
        items = list(same)
        yield Lot(tuple(items), {"item": torch.tensor(items)[:, None]}, max(costs[at] for at in items))


def _values(task: Any, documents: Sequence[Sequence[Any]], said: Sequence[Sequence[Any]]) -> list[dict[Key, Any]]:
    """What the harness makes of one candidate's answers to the requests of documents: values by metric and filter."""
    filled = [[_filled(*one) for one in zip(some, own, strict=True)] for some, own in zip(documents, said, strict=True)]
    # It filters what it holds as its own requests, all at once.
    task._instances = [one for some in filled for one in some]
    task.apply_filters()
    return [_scored(task, some) for some in filled]


def _filled(request: Any, said: Any) -> Any:
    found = copy.copy(request)
    found.resps, found.filtered_resps = [said] * (request.repeats or 1), {}
    return found


def _scored(task: Any, requests: Sequence[Any]) -> dict[Key, Any]:
    return {
        (metric, name): value
        for name in requests[0].filtered_resps
        for metric, value in task.process_results(
            requests[0].doc, [request.filtered_resps[name] for request in requests]
        ).items()
    }


def _columns(task: Any, documents: Sequence[_Document]) -> Columns:
    """The metrics, seen by what is made of blank answers."""
    from lm_eval.api.registry import AGGREGATION_REGISTRY

    requests = [document.requests for document in documents]
    blank = [[_BLANK[request.request_type] for request in some] for some in requests]
    values = _values(task, requests, blank)
    named = {function: name for name, function in AGGREGATION_REGISTRY.items()}
    functions = {metric: named.get(function, "") for metric, function in task.aggregation().items()}
    has_choices = getattr(task.config, "doc_to_choice", None) is not None
    classes = max(len(task.doc_to_choice(some[0].doc)) for some in requests) if has_choices else 0
    return columns(values, functions, task.higher_is_better(), classes)


TASK = Task(prepare, Options, count, models=("CAUSAL_LM",), read=read)
