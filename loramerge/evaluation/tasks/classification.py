"""Classification of a text, or of two: rows {"text": …, "label": 3} (and "other": … for a pair), a head decides.

Observed: the class with the largest logit, the true one, and -log p of that. Metrics: the one the task names
(accuracy, macro_f1, f1, mcc), then the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from loramerge.errors import BadOption, FormatError, IncompatibleError
from loramerge.evaluation._files import field
from loramerge.evaluation.metrics import Metric, accuracy, f1, macro_f1, mcc
from loramerge.evaluation.tasks._likelihood import loss
from loramerge.evaluation.tasks._task import Prepared, Task, encoded, lots_of, rows_of

if TYPE_CHECKING:
    from loramerge.evaluation._files import Data
    from loramerge.models.model import Model


METRICS = ("accuracy", "macro_f1", "f1", "mcc")
_OTHERWISE = {
    "acc": "accuracy",
    "f1macro": "macro_f1",
    "matthewscorrelation": "mcc",
    "matthewscorrcoef": "mcc",
}
"""Other names of metrics, as files say them."""


@dataclass(frozen=True)
class Options:
    """`max_length`: tokens a text is cut to. `metric`: the one that counts, where not the task's own."""

    max_length: int = 512
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.metric is not None:
            _metric(self.metric)
        if self.max_length < 1:
            raise BadOption(f"{self.max_length} tokens are no text.", hint="-T max_length=64")


def prepare(data: Data, items: Sequence[int], model: Model, options: Options) -> Prepared:
    """Texts in lots of one length.

    Raises FormatError for a row without a text or with a label that is none, or where some rows only are pairs, and
    BadOption for a metric that there is not for these classes.
    """
    # Those of the whole file: a score does not depend on which of its rows are taken.
    labels = [_label(data, at) for at in range(len(data.rows))]
    longest = min(options.max_length, model.longest)
    texts = [field(data, at, "text", str) for at in items]
    pairs = {"text_pair": [field(data, at, "other", str) for at in items]} if _are_pairs(data) else {}
    lines = encoded(model, data, items, texts, longest, **pairs)
    numbered = [
        (at, {**line, "label": [labels[item]]}) for at, (item, line) in enumerate(zip(items, lines, strict=True))
    ]
    lots = lots_of(numbered, cost=lambda line: len(line["input_ids"]))
    cut = sum(len(line["input_ids"]) == longest for line in lines)
    notes = (f"{data.name}: {cut:,} texts reach {longest} tokens and may have been cut",) if cut else ()
    classes = len(data.labels) or max(labels) + 1
    found = _metrics(data, options.metric, classes)
    return Prepared(lots, partial(_run, classes=classes, named=bool(data.labels)), found, len(items), notes, loss=loss)


def _are_pairs(data: Data) -> bool:
    """Whether rows have two texts. Raises FormatError at the first that is not as those before it."""
    having = ["other" in row for row in data.rows]
    if (not having[0]) in having:
        at = having.index(not having[0])
        told = (
            "has no second text, and those before it do" if having[0] else "has a second text, and none before it does"
        )
        raise FormatError(f"This row {told}.", where=data.where(at), hint="'other' in all rows, or in none")
    return having[0]


def _label(data: Data, at: int) -> int:
    label: int = field(data, at, "label", int)
    if label < 0 or (data.labels and label >= len(data.labels)):
        raise FormatError(f"There is no label {label}.", where=data.where(at))
    return label


def _metrics(data: Data, asked: str | None, classes: int) -> list[Metric]:
    """All of them, the one that is asked for first, or else the task's own."""
    where = "" if asked else str(data.info or "")
    first = _metric(asked or data.metric or "accuracy", where)
    found = {"accuracy": accuracy(), "macro_f1": macro_f1(classes), "mcc": mcc(classes)}
    if classes <= 2:
        found["f1"] = f1()
    if first not in found:
        raise BadOption(f"F1 is of two classes, and {data.name} has {classes}.", where=where, hint="-T metric=macro_f1")
    return [found.pop(first), *found.values()]


def _metric(named: str, where: str = "") -> str:
    """The metric of a name, however it is written; "accuracy+f1" names accuracy. Raises BadOption."""
    plain = "".join(filter(str.isalnum, named.partition("+")[0].lower()))
    names = {name.replace("_", ""): name for name in METRICS} | _OTHERWISE
    if plain not in names:
        raise BadOption(f"There is no metric {named!r} of classes.", where=where, hint=f"-T metric={'|'.join(METRICS)}")
    return names[plain]


def _run(module: Any, inputs: Mapping[str, Any], count: int, *, classes: int, named: bool) -> tuple[Any, Any]:
    """(predicted, true, -log p of the true class) of each row.

    Raises IncompatibleError for a head with too few classes, or with more where all classes have their names.
    """
    import torch

    logits = module(**{name: value for name, value in inputs.items() if name != "label"}).logits.float()
    if logits.shape[-1] < classes or (named and logits.shape[-1] > classes):
        raise IncompatibleError(
            f"The task has {classes} classes, and the head {logits.shape[-1]}.",
            hint="--heads own takes each task's from the source that was trained for it",
        )
    predicted = logits.argmax(-1).double().masked_fill(~logits.isfinite().all(-1), torch.nan)
    nll = -logits.log_softmax(-1).gather(1, inputs["label"])[:, 0]
    return torch.stack([predicted, inputs["label"][:, 0].double(), nll.double()], dim=-1), logits


TASK = Task(prepare, Options, rows_of, models=("SEQ_CLS",), heads=True)
