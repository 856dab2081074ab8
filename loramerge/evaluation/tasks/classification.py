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
from loramerge.evaluation.metrics import Array, Metric, accuracy, f1, macro_f1, mcc, scored
from loramerge.evaluation.tasks._task import Prepared, Task, encoded, lots_of, rows_of

if TYPE_CHECKING:
    from loramerge.evaluation._files import Data
    from loramerge.models.model import Model


METRICS = ("accuracy", "macro_f1", "f1", "mcc")


@dataclass(frozen=True)
class Options:
    """`max_length`: tokens a text is cut to. `metric`: the one that counts, where not the task's own."""

    max_length: int = 512
    metric: str | None = None

    def __post_init__(self) -> None:
        if self.metric is not None and self.metric not in METRICS:
            raise BadOption(f"There is no metric {self.metric!r} of classes.", hint=", ".join(METRICS))
        if self.max_length < 1:
            raise BadOption(f"{self.max_length} tokens are no text.", hint="-T max_length=64")


def prepare(data: Data, items: Sequence[int], model: Model, options: Options) -> Prepared:
    """Texts in lots of one length. Raises FormatError for a row without a text or with a label that is none."""
    labels = [_label(data, at) for at in items]
    longest = min(options.max_length, model.longest)
    texts = [field(data, at, "text", str) for at in items]
    pairs = {"text_pair": [field(data, at, "other", str) for at in items]} if "other" in data.rows[0] else {}
    lines = encoded(model, texts, longest, **pairs)
    numbered = [(at, {**line, "label": [label]}) for at, (line, label) in enumerate(zip(lines, labels, strict=True))]
    lots = lots_of(numbered, cost=lambda line: len(line["input_ids"]))
    cut = sum(len(line["input_ids"]) == longest for line in lines)
    notes = (f"{data.name}: {cut:,} texts reach {longest} tokens and may have been cut",) if cut else ()
    classes = len(data.labels) or max(labels) + 1
    if options.metric == "f1" and classes != 2:
        raise BadOption(f"F1 is of two classes, and {data.name} has {classes}.", hint="-T metric=macro_f1")
    found = _metrics(options.metric or data.metric, classes)
    return Prepared(lots, partial(_run, classes=classes), found, len(items), notes, loss=_loss)


def _loss(observed: Array) -> Array:
    return scored(observed[..., 2])


def _label(data: Data, at: int) -> int:
    label: int = field(data, at, "label", int)
    if label < 0 or (data.labels and label >= len(data.labels)):
        raise FormatError(f"There is no label {label}.", where=data.where(at))
    return label


def _metrics(named: str, classes: int) -> list[Metric]:
    """All of them, the one that is named first; "accuracy+f1" names accuracy."""
    found = {"accuracy": accuracy(), "macro_f1": macro_f1(classes), "mcc": mcc(classes)}
    if classes == 2:
        found["f1"] = f1()
    first = named.replace(" ", "_").partition("+")[0].lower()
    return [found.pop(first if first in found else "accuracy"), *found.values()]


def _run(module: Any, inputs: Mapping[str, Any], count: int, *, classes: int) -> tuple[Any, Any]:
    """(predicted, true, -log p of the true class) of each row.

    Raises IncompatibleError for a head with too few classes.
    """
    import torch

    logits = module(**{name: value for name, value in inputs.items() if name != "label"}).logits.float()
    if logits.shape[-1] < classes:
        raise IncompatibleError(
            f"The task has {classes} classes, and the head {logits.shape[-1]}.",
            hint="--heads own takes each task's from the source that was trained for it",
        )
    predicted = logits.argmax(-1).double().masked_fill(~logits.isfinite().all(-1), torch.nan)
    nll = -logits.log_softmax(-1).gather(1, inputs["label"])[:, 0]
    return torch.stack([predicted, inputs["label"][:, 0].double(), nll.double()], dim=-1), logits


TASK = Task(prepare, Options, rows_of, models=("SEQ_CLS",), heads=True)
