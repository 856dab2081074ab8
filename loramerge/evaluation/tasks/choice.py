"""Multiple choice: rows {"prompt": …, "choices": ["…", …], "label": 1}; the likeliest continuation is the answer.

A prompt goes through the model once for all of its choices: its keys and values are kept, and every choice goes
on from a copy. Logits are made only where a token is scored. Tokens of a choice are those that the tokenizer makes
of prompt and choice together, after those that the prompt has in common with it for every choice; spaces that end a
prompt belong to its choices. An encoder-decoder's encoder reads the prompt as a text of its own, and its decoder goes
on with the choice, without the token that would end it: both as lm-evaluation-harness does.

Observed: whether the choice with the largest Σ log p is right, or with the largest Σ log p / bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.errors import BadOption, FormatError
from loramerge.evaluation._files import field
from loramerge.evaluation.metrics import mean
from loramerge.evaluation.tasks._decoding import room
from loramerge.evaluation.tasks._likelihood import log_likelihoods, loss
from loramerge.evaluation.tasks._task import Prepared, Task, lots_of, rows_of

if TYPE_CHECKING:
    from loramerge.evaluation._files import Data
    from loramerge.models.model import Model


@dataclass(frozen=True)
class Options:
    """`normalize`: "bytes" divides a choice's log-likelihood by its length in UTF-8, "none" takes the sum."""

    normalize: str = "none"

    def __post_init__(self) -> None:
        if self.normalize not in ("none", "bytes"):
            raise BadOption(f"normalize is {self.normalize!r}.", hint="none or bytes")


def prepare(data: Data, items: Sequence[int], model: Model, options: Options) -> Prepared:
    """Rows in lots of one length of prompt and one number of choices, choices padded behind their ends.

    Raises FormatError for a row without choices or with a choice longer than the model takes; a prompt that is
    too long loses its beginning, which is noted.
    """
    found, cut = [], 0
    for at, item in enumerate(items):
        fields, was_cut = _item(data, item, model, options)
        cut += was_cut
        found.append((at, fields))
    lots = lots_of(_padded(found), cost=lambda one: len(one["prompt"]) + len(one["choices"]))
    notes = (f"{data.name}: {cut:,} prompts lost their beginning, for the model takes {model.longest} tokens",)
    return Prepared(lots, _run, [mean("accuracy")], len(items), notes if cut else (), loss=loss)


def _item(data: Data, at: int, model: Model, options: Options) -> tuple[dict[str, Any], bool]:
    prompt, choices = field(data, at, "prompt", str), field(data, at, "choices", list)
    label: int = field(data, at, "label", int)
    where = data.where(at)
    if not choices or not all(isinstance(choice, str) and choice for choice in choices):
        raise FormatError("A row has choices, texts that are not empty.", where=where, hint='["yes", "no"]')
    if not 0 <= label < len(choices):
        raise FormatError(f"There is no choice {label}: they are numbered from 0.", where=where)
    tokens, answers = continuations(model, prompt, choices)
    longest = room(model, max(map(len, answers)))
    if longest < 1:
        raise FormatError(
            f"A choice has {max(map(len, answers))} tokens, and the model takes {model.longest} with its prompt.",
            where=where,
            hint="shorter choices, or another base",
        )
    sizes = [len(choice.encode()) if options.normalize == "bytes" else 1 for choice in choices]
    return {"prompt": tokens[-longest:], "answers": answers, "sizes": sizes, "label": [label]}, len(tokens) > longest


def continuations(model: Model, prompt: str, choices: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """Tokens of a prompt, at least one, and of each choice after it, at least one. Raises FormatError."""
    spaces = len(prompt) - len(prompt.rstrip())
    prompt, lead = (prompt[:-spaces], prompt[-spaces:]) if spaces else (prompt, "")
    tokenizer = model.tokenizer
    split = _apart if model.task == "SEQ_2_SEQ_LM" else _in_common
    tokens, answers = split(tokenizer, prompt, [lead + choice for choice in choices])
    if not all(answers):
        raise FormatError("A choice has no token.")
    if tokens:
        return tokens, answers
    first = next((t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if t is not None), None)
    if first is None:
        raise FormatError("A prompt is empty, and the tokenizer has no token that begins a text.")
    return [first], answers


def _in_common(tokenizer: Any, prompt: str, choices: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """The tokens that a prompt has with each of its choices, and what comes then."""
    tokens: list[int] = tokenizer(prompt, verbose=False)["input_ids"]
    whole = [tokenizer(prompt + choice, verbose=False)["input_ids"] for choice in choices]
    # A tokenizer may join what ends the prompt with what begins a choice, and it may end every text with a token
    # of its own. So the prompt is what all have in common, and each choice what comes then, at least one token.
    common = max(0, min(len(tokens), *(min(_agree(tokens, ids), len(ids) - 1) for ids in whole)))
    return tokens[:common], [ids[common:] for ids in whole]


def _apart(tokenizer: Any, prompt: str, choices: Sequence[str]) -> tuple[list[int], list[list[int]]]:
    """A prompt as a text of its own, and each choice as the beginning of another: no token that ends it is scored."""
    tokens: list[int] = tokenizer(prompt, verbose=False)["input_ids"] if prompt else []
    return tokens, [tokenizer(choice, add_special_tokens=False, verbose=False)["input_ids"] for choice in choices]


def _agree(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens two texts have in common at their beginning."""
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _padded(found: Sequence[tuple[int, dict[str, Any]]]) -> list[tuple[int, Mapping[str, Sequence[int]]]]:
    """Each item's choices as one list: those of all items with prompts and choices alike have one length."""
    widths: dict[tuple[int, int], int] = {}
    for _, one in found:
        key = len(one["prompt"]), len(one["answers"])
        widths[key] = max(widths.get(key, 0), *map(len, one["answers"]))
    made: list[tuple[int, Mapping[str, Sequence[int]]]] = []
    for at, one in found:
        width = widths[len(one["prompt"]), len(one["answers"])]
        choices = [token for ids in one["answers"] for token in [*ids, *[0] * (width - len(ids))]]
        lengths = [len(ids) for ids in one["answers"]]
        made.append((at, {k: v for k, v in one.items() if k != "answers"} | {"choices": choices, "lengths": lengths}))
    return made


def _run(module: Any, inputs: Mapping[str, Any], count: int) -> tuple[Any, Any]:
    """(right, 1, -log p of the right choice) of each row, and log p of its choices."""
    import torch

    rows, options = inputs["lengths"].shape
    choices = inputs["choices"].view(rows, options, -1)
    totals = log_likelihoods(module, inputs["prompt"], choices, inputs["lengths"])
    best = (totals / inputs["sizes"]).argmax(-1)
    right = (best == inputs["label"][:, 0]).double().masked_fill(~totals.isfinite().all(-1), torch.nan)
    nll = -totals.gather(1, inputs["label"])[:, 0]
    return torch.stack([right, torch.ones_like(right), nll], dim=-1), totals


TASK = Task(prepare, Options, rows_of, models=("CAUSAL_LM", "SEQ_2_SEQ_LM"))
