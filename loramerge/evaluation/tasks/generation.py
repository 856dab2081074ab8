r"""Generation: rows {"prompt": …, "answer": …}; greedy, and right where what is found in the text is the answer.

Prompts of one length are decoded together, one token a pass for all candidates and rows, each row with its own
keys and values; an encoder runs once, and its decoder begins with the token that the model says. What counts of a
text and of an answer is the last match of `pattern` (the whole, without it); gsm8k's is its last number:
`-T pattern='(-?[\d,.]*\d)'`. Observed: whether they are equal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from loramerge.errors import BadOption, FormatError
from loramerge.evaluation._files import field
from loramerge.evaluation.metrics import mean
from loramerge.evaluation.tasks._decoding import ends, read, room
from loramerge.evaluation.tasks._task import Prepared, Task, encoded, lots_of, rows_of

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.evaluation._files import Data
    from loramerge.models.model import Model


_BESIDES = (
    "forced_bos_token_id",
    "suppress_tokens",
    "bad_words_ids",
    "no_repeat_ngram_size",
    "repetition_penalty",
    "min_length",
)


@dataclass(frozen=True)
class Options:
    """`tokens`: the most that are made. `stop`: a text that ends the answer. `template`: what the prompt goes into."""

    tokens: int = 64
    pattern: str = ""
    stop: str = ""
    template: str = "{prompt}"

    def __post_init__(self) -> None:
        import regex

        try:
            regex.compile(self.pattern)
        except regex.error as error:
            raise BadOption(f"The pattern is none: {error}.", where=self.pattern) from None
        if self.tokens < 1:
            raise BadOption(f"{self.tokens} tokens are no answer.", hint="-T tokens=64")
        if "{prompt}" not in self.template:
            raise BadOption("The template has no place for the prompt.", where=self.template, hint="Q: {prompt} A:")


def prepare(data: Data, items: Sequence[int], model: Model, options: Options) -> Prepared:
    """Prompts in lots of one length. Raises FormatError where there is no room for an answer at all."""
    texts = [options.template.replace("{prompt}", field(data, at, "prompt", str)) for at in items]
    answers = [found_in(field(data, at, "answer", str), options.pattern) for at in items]
    longest = room(model, options.tokens)
    if longest < 1:
        raise FormatError(
            f"Answers of {options.tokens} tokens are longer than the {model.longest} that the model takes.",
            where=str(data.path),
            hint=f"-T tokens={model.longest // 2}",
        )
    lines = [line["input_ids"] for line in encoded(model, data, items, texts, None)]
    cut = sum(len(line) > longest for line in lines)
    numbered = [(at, {"prompt": line[-longest:], "item": [at]}) for at, line in enumerate(lines)]
    lots = lots_of(numbered, cost=lambda one: len(one["prompt"]) + options.tokens)
    notes = []
    if cut:
        notes.append(f"{data.name}: {cut:,} prompts lost their beginning, for the model takes {model.longest} tokens")
    if others := _others(model):
        notes.append(f"{data.name}: greedy decoding leaves out {', '.join(others)} of the base's generation config")
    run = partial(_run, tokenizer=model.tokenizer, answers=answers, options=options)
    # An encoder is given the prompts alone, which are alike.
    own_way = model.task == "CAUSAL_LM"
    return Prepared(lots, run, [mean("exact match")], len(items), tuple(notes), own_way)


def _others(model: Model) -> list[str]:
    """What the model's own generation would do besides taking the likeliest token."""
    module: Any = model.module
    return [name for name in _BESIDES if getattr(module.generation_config, name, None) not in (None, 0, 1.0, [])]


def found_in(text: str, pattern: str) -> str:
    """What counts of a text: the last match of the pattern (its first group where it has one), else the text itself."""
    if not pattern:
        return text.strip()
    import regex

    try:
        found = list(regex.finditer(pattern, text, timeout=1.0))
    except TimeoutError:
        raise BadOption("The pattern takes too long.", where=pattern, hint="a simpler one") from None
    if not found:
        return ""
    last = found[-1]
    return ((last[1] if last.re.groups else last[0]) or "").replace(",", "").rstrip(".").strip()


def _run(
    module: Any, inputs: Mapping[str, Any], count: int, *, tokenizer: Any, answers: Sequence[str], options: Options
) -> tuple[Any, Any]:
    """(right, 1) of each row, and the logits of its first token."""
    import torch

    prompt, stops = inputs["prompt"], ends(module, tokenizer)
    made, first, finite = greedy(module, prompt, options.tokens, stops, tokenizer, options.stop)
    texts = tokenizer.batch_decode(made, skip_special_tokens=True)
    if options.stop:
        texts = [text.partition(options.stop)[0] for text in texts]
    wanted = [answers[at] for at in inputs["item"][:, 0].tolist()]
    said = [found_in(text, options.pattern) for text in texts]
    right = torch.tensor([float(a == b and a != "") for a, b in zip(said, wanted, strict=True)], dtype=torch.float64)
    right = right.masked_fill(~torch.tensor(finite), torch.nan)
    return torch.stack([right, torch.ones_like(right)], dim=-1), first


def greedy(
    module: Any, prompt: Tensor, tokens: int, stops: set[int], tokenizer: Any = None, stop: str = ""
) -> tuple[list[list[int]], Tensor, list[bool]]:
    """The likeliest token again and again: tokens of each row before one that ends it, and the first logits (rows, V).

    The last result says of each row whether all the logits by which it was made are finite. Ends when every row has.
    """
    reading = read(module, prompt)
    made: list[list[int]] = [[] for _ in range(len(prompt))]
    finite = [True] * len(prompt)
    open_ = set(range(len(prompt)))
    logits = reading.logits
    for step in range(tokens):
        chosen, known = logits.argmax(-1), logits.isfinite().all(-1).tolist()
        for row, token in enumerate(chosen.tolist()):
            if row not in open_:
                continue
            finite[row] &= known[row]
            if token in stops:
                open_.discard(row)
            else:
                made[row].append(token)
        if stop:
            open_ -= {row for row in open_ if stop in tokenizer.decode(made[row][-len(stop) - 8 :])}
        if not open_ or step + 1 == tokens:
            break
        logits = reading.then(chosen[:, None])[:, -1]
    return made, reading.logits, finite


TASK = Task(prepare, Options, rows_of, models=("CAUSAL_LM", "SEQ_2_SEQ_LM"))
