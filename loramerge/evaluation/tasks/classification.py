"""Classification of a text, or of two: rows {"text": …, "label": 3} (and "other": … for a pair), a head decides.

Observed: the class with the largest logit and the true one. Metrics: the one the task names (accuracy, macro_f1,
f1, mcc), then the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.errors import FormatError, IncompatibleError
from loramerge.evaluation._files import field
from loramerge.evaluation.metrics import Metric, accuracy, f1, macro_f1, mcc
from loramerge.evaluation.tasks._task import Prepared, Task, encoded, lots_of, rows_of

if TYPE_CHECKING:
    from loramerge.evaluation._files import Data
    from loramerge.models.model import Model


@dataclass(frozen=True)
class Options:
    """`max_length`: tokens a text is cut to. `metric`: the one that counts, where not the task's own."""

    max_length: int = 512
    metric: str | None = None


def prepare(data: Data, items: Sequence[int], model: Model, options: Options) -> Prepared:
    """Texts in lots of one length. Raises FormatError for a row without a text or with a label that is none."""
    if model.task != "SEQ_CLS":
        raise IncompatibleError("A classification needs a classifier.", where=model.where, hint="another --task")
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
    return Prepared(lots, _run, _metrics(options.metric or data.metric, classes), len(items), notes)


def _label(data: Data, at: int) -> int:
    label: int = field(data, at, "label", int)
    if label < 0 or (data.labels and label >= len(data.labels)):
        raise FormatError(f"There is no label {label}.", where=f"{data.path}:{at + 1}")
    return label


def _metrics(named: str, classes: int) -> list[Metric]:
    """All of them, the one that is named first; "accuracy+f1" names accuracy."""
    found = {"accuracy": accuracy(), "macro_f1": macro_f1(classes), "mcc": mcc(classes)}
    if classes == 2:
        found["f1"] = f1()
    first = named.replace(" ", "_").partition("+")[0].lower()
    return [found.pop(first if first in found else "accuracy"), *found.values()]


def _run(module: Any, inputs: Mapping[str, Any], count: int) -> tuple[Any, Any]:
    """(predicted, true) of each row."""
    import torch

    logits = module(**{name: value for name, value in inputs.items() if name != "label"}).logits.float()
    predicted = logits.argmax(-1).double().masked_fill(~logits.isfinite().all(-1), torch.nan)
    return torch.stack([predicted, inputs["label"][:, 0].double()], dim=-1), logits


TASK = Task(prepare, Options, rows_of, model="SEQ_CLS", heads=True)
