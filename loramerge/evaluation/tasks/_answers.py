"""What a task of texts can ask of a model, and how all candidates answer together: by likelihoods, and by texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from loramerge.evaluation.passes import repeated
from loramerge.evaluation.tasks._decoding import ends
from loramerge.evaluation.tasks._likelihood import continued

if TYPE_CHECKING:
    from torch import Tensor

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Score:
    """How likely tokens are after those of the prompt, of which there is at least one."""

    prompt: Tokens
    tokens: Tokens


@dataclass(frozen=True)
class Text:
    """The likeliest tokens after the prompt, one by one, until a stop text, or `longest` with the prompt.

    `more` are further options of transformers' generation, as JSON.
    """

    prompt: Tokens
    longest: int
    stop: tuple[str, ...]
    more: str


Ask = Score | Text


@dataclass(frozen=True)
class Answer:
    """One answer of each candidate: (Σ log p, whether greedy decoding would say it) to a Score, tokens to a Text.

    `seen` (candidates, …) is what it was made of: numbers that are finite, and others for other weights.
    """

    said: Sequence[Any]
    seen: Tensor


def answers(module: Any, asks: Iterable[Ask], count: int, tokenizer: Any, longest: int) -> dict[Ask, Answer]:
    """The answers of `count` candidates that are on the model, one call for many; what is asked twice is run once.

    `longest`: so many tokens a candidate may have in one call, where one ask does not have more.
    """
    every = dict.fromkeys(asks)
    found: dict[Ask, Answer] = {}
    found |= _scores(module, [ask for ask in every if isinstance(ask, Score)], count, longest)
    texts = sorted((ask for ask in every if isinstance(ask, Text)), key=_alike)
    for _, same in groupby(texts, key=_alike):
        found |= _texts(module, list(same), count, tokenizer)
    return found


def _alike(ask: Text) -> tuple[Any, ...]:
    return len(ask.prompt), ask.longest, ask.stop, ask.more


def _scores(module: Any, asks: Sequence[Score], count: int, longest: int) -> Mapping[Ask, Answer]:
    """A prompt runs once for all that is asked after it."""
    import torch

    after: dict[Tokens, list[Tokens]] = {}
    for ask in asks:
        after.setdefault(ask.prompt, []).append(ask.tokens)
    device = next(module.parameters()).device
    found: dict[Ask, Answer] = {}
    for some in _calls(list(after.items()), longest):
        inputs = (repeated(value.to(device), count) for value in _tensors(some))
        totals, likeliest = (value.view(count, len(some), -1).cpu() for value in continued(module, *inputs))
        for row, (prompt, options) in enumerate(some):
            for at, tokens in enumerate(options):
                said = zip(totals[:, row, at].tolist(), likeliest[:, row, at].tolist(), strict=True)
                found[Score(prompt, tokens)] = Answer(list(said), torch.as_tensor(totals[:, row, at, None]))
    return found


def _calls(prompts: list[tuple[Tokens, list[Tokens]]], longest: int) -> Iterator[list[tuple[Tokens, list[Tokens]]]]:
    """Prompts of one length with as many options of like lengths, cut where they get too many for one call."""

    def shape(one: tuple[Tokens, list[Tokens]]) -> tuple[int, int, int]:
        return len(one[0]), len(one[1]), max(map(len, one[1])).bit_length()

    for (length, options, _), same in groupby(sorted(prompts, key=shape), key=shape):
        lot = list(same)
        width = max(len(tokens) for _, some in lot for tokens in some)
        step = max(1, longest // (length + options * width))
        yield from (lot[start : start + step] for start in range(0, len(lot), step))


def _tensors(some: Sequence[tuple[Tokens, Sequence[Tokens]]]) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts (rows, P), options (rows, options, width) padded behind their ends, and their lengths."""
    import torch

    width = max(len(tokens) for _, options in some for tokens in options)
    padded = [[[*tokens, *[0] * (width - len(tokens))] for tokens in options] for _, options in some]
    lengths = [[len(tokens) for tokens in options] for _, options in some]
    return torch.tensor([prompt for prompt, _ in some]), torch.tensor(padded), torch.tensor(lengths)


def _texts(module: Any, asks: Sequence[Text], count: int, tokenizer: Any) -> Mapping[Ask, Answer]:
    """Asks that differ in the prompt's tokens only, decoded together by transformers."""
    import torch
    from transformers import StoppingCriteriaList

    ask, device = asks[0], next(module.parameters()).device
    prompts = repeated(torch.tensor([one.prompt for one in asks], device=device), count)
    ended = _Ends(tokenizer, ask.stop, len(ask.prompt), len(prompts))
    heard = _Heard()
    hook = module.register_forward_hook(heard)
    try:
        made = module.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            max_length=ask.longest,
            stopping_criteria=StoppingCriteriaList([ended]),
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
            **json.loads(ask.more) | {"do_sample": False, "temperature": None},
        )
    finally:
        hook.remove()
    rows = [tokens[len(ask.prompt) : end] for tokens, end in zip(made.tolist(), ended.at, strict=True)]
    first = heard.first.masked_fill(~heard.whole(rows, ends(module, tokenizer))[:, None], torch.nan)
    seen = first.view(count, len(asks), -1).cpu()
    return {one: Answer(rows[at :: len(asks)], seen[:, at]) for at, one in enumerate(asks)}


class _Heard:
    """A hook that keeps the logits behind the prompt, `first` (rows, V), and whether those of each step are finite."""

    def __init__(self) -> None:
        self.finite: list[Tensor] = []

    def __call__(self, module: Any, given: Any, output: Any) -> None:
        logits = output.logits[:, -1].float()
        if not self.finite:
            self.first = logits
        self.finite.append(logits.isfinite().all(-1))

    def whole(self, rows: Sequence[Sequence[int]], stops: set[int]) -> Tensor:
        """Whether all logits by which a row was made are finite, (rows,): none behind a token that ends it is asked."""
        import torch

        steps = [next((at for at, token in enumerate(row, 1) if token in stops), len(row)) for row in rows]
        later = torch.arange(len(self.finite)) >= torch.tensor(steps)[:, None]
        finite = torch.stack(self.finite, dim=1)
        return (finite | later.to(finite.device)).all(1)


class _Ends:
    """Ends every row where it has made a stop text; `at` says where, None for a row that ended otherwise.

    What is decoded for it is as many last tokens as a stop text takes, and two more for one that is cut otherwise.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str], start: int, rows: int) -> None:
        self.tokenizer = tokenizer
        self.stop = stop
        self.start = start
        self.tail = 2 + max((len(tokenizer.encode(text, add_special_tokens=False)) for text in stop), default=0)
        self.at: list[int | None] = [None] * rows

    def __call__(self, ids: Tensor, scores: Any, **options: Any) -> Tensor:
        import torch

        texts = self.tokenizer.batch_decode(ids[:, self.start :][:, -self.tail :])
        for row, text in enumerate(texts):
            if self.at[row] is None and any(stop in text for stop in self.stop):
                self.at[row] = ids.shape[1]
        return torch.tensor([end is not None for end in self.at], device=ids.device)
