"""Similarity: rows {"text": …, "other": …, "score": 3.5}; cosines of two texts' embeddings against the scores.

A text's embedding is the mean of the last hidden states of its tokens. Observed: cosine and score.
Metric: Spearman's correlation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.errors import BadOption
from loramerge.evaluation._files import field
from loramerge.evaluation.metrics import spearman
from loramerge.evaluation.tasks._task import Prepared, Task, encoded, lots_of, rows_of

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.evaluation._files import Data
    from loramerge.models.model import Model


@dataclass(frozen=True)
class Options:
    """`max_length`: tokens a text is cut to, with the model's own limit."""

    max_length: int = 512

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise BadOption(f"{self.max_length} tokens are no text.", hint="-T max_length=64")


def prepare(data: Data, items: Sequence[int], model: Model, options: Options) -> Prepared:
    """Pairs in lots of two lengths. Raises FormatError for a row without texts, tokens or score."""
    longest = min(options.max_length, model.longest)
    texts = ([field(data, at, name, str) for at in items] for name in ("text", "other"))
    sides = [encoded(model, data, items, side, longest) for side in texts]
    scores = [float(field(data, at, "score", (int, float))) for at in items]
    numbered = [
        (at, {**{f"a_{k}": v for k, v in a.items()}, **{f"b_{k}": v for k, v in b.items()}, "score": [score]})
        for at, (a, b, score) in enumerate(zip(*sides, scores, strict=True))
    ]
    lots = lots_of(numbered, cost=lambda one: len(one["a_input_ids"]) + len(one["b_input_ids"]))
    return Prepared(lots, _run, [spearman()], len(items))


def _run(module: Any, inputs: Mapping[str, Any], count: int) -> tuple[Any, Any]:
    """(cosine, score) of each row."""
    import torch

    a, b = (embedding(module, {k[2:]: v for k, v in inputs.items() if k.startswith(side)}) for side in ("a_", "b_"))
    cosine = torch.cosine_similarity(a, b, dim=-1).double()
    return torch.stack([cosine, inputs["score"][:, 0].double()], dim=-1), torch.cat([a, b], dim=-1)


def embedding(module: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """The mean of the last hidden states, (rows, width) in float32; the head, if there is one, is left out."""
    inner = getattr(module, "base_model", module)
    found: Tensor = inner(**inputs).last_hidden_state.float().mean(1)
    return found


TASK = Task(prepare, Options, rows_of)
