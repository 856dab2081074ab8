"""Perplexity of a text: blocks of tokens, each predicted from its own beginning.

The text is tokenised line by line without special tokens and joined; what does not fill the last block is left
out. Observed of a block: Σ -log p(token | tokens before it in the block), and how many tokens that is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.errors import BadOption, FormatError
from loramerge.evaluation.metrics import perplexity
from loramerge.evaluation.tasks._task import Prepared, Task, lots_of

if TYPE_CHECKING:
    from loramerge.evaluation._files import Data
    from loramerge.models.model import Model


@dataclass(frozen=True)
class Options:
    """`block`: tokens of a block. `chars`: how much of the text is read, in characters (None: all of it)."""

    block: int = 128
    chars: int | None = None

    def __post_init__(self) -> None:
        if self.block < 2:
            raise BadOption(f"A block of {self.block} tokens predicts nothing.", hint="128")
        if self.chars is not None and self.chars < 1:
            raise BadOption(f"{self.chars} characters are no text.", hint="-T chars=60000")


def count(data: Data, model: Model, options: Options) -> int:
    """How many blocks the text has."""
    return len(_tokens(data.text, model, options.chars)) // _block(model, options)


def prepare(data: Data, items: Sequence[int], model: Model, options: Options) -> Prepared:
    """Blocks of the text. Raises FormatError for a text with less than one block."""
    size = _block(model, options)
    tokens = _tokens(data.text, model, options.chars)
    if not items:
        raise FormatError(
            f"The text has {len(tokens):,} tokens, and a block {size}.", where=str(data.path), hint="-T block=32"
        )
    blocks = [(at, {"input_ids": tokens[item * size : (item + 1) * size]}) for at, item in enumerate(items)]
    return Prepared(
        lots_of(blocks, cost=lambda block: size), _run, [perplexity()], len(items), loss=lambda observed: observed
    )


def _block(model: Model, options: Options) -> int:
    return min(options.block, model.longest)


def _tokens(text: str, model: Model, chars: int | None) -> list[int]:
    found = []
    for line in text[:chars].splitlines(keepends=True):
        found += model.tokenizer(line, add_special_tokens=False, verbose=False)["input_ids"]
    return found


def _run(module: Any, inputs: Mapping[str, Any], count: int) -> tuple[Any, Any]:
    """(Σ nll, tokens) of each row."""
    import torch

    ids = inputs["input_ids"]
    logits = module(input_ids=ids, use_cache=False).logits[:, :-1]
    nll = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    total = nll.double().view(len(ids), -1).sum(1)
    return torch.stack([total, torch.full_like(total, ids.shape[1] - 1)], dim=-1), total


TASK = Task(prepare, Options, count, models=("CAUSAL_LM",))
