"""lm-evaluation-harness's own class for transformers models, asked for its tokens instead of its answers.

How it makes tokens of texts (the token that begins an empty context, what is cut where a text is too long, windows
of a long one, stop texts and the room for an answer) is not written again: its methods run as they are, and where
they would call the model they say what they would call it with. What came of that is handed back to them later.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from lm_eval.models.huggingface import HFLM

from loramerge.errors import FormatError, IncompatibleError
from loramerge.evaluation.tasks._answers import Ask, Score, Text

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.models.model import Model


class Asker(HFLM):  # type: ignore[misc]
    """The harness's class on a model that it never calls."""

    def __init__(self, model: Model) -> None:
        # It gives its tokenizer a padding token where there is none.
        super().__init__(pretrained=model.module, tokenizer=copy.deepcopy(model.tokenizer), batch_size=1)
        self._asked: list[Ask] = []
        self._made: list[int] = []
        self.cut = 0

    def asks(self, instance: Any) -> list[Ask]:
        """What the model would be called with for one request of the harness.

        Raises FormatError for a text that does not fit, IncompatibleError for what is not greedy.
        """
        self._asked, self._made = [], []
        try:
            getattr(self, instance.request_type)([instance], disable_tqdm=True)
        except AssertionError as error:
            raise FormatError(str(error), where=_where(instance), hint="a base that takes more tokens") from None
        for ask in self._asked:
            self._check(ask, instance)
            if isinstance(ask, Text):
                self.cut += len(self.tok_encode(instance.args[0])) > len(ask.prompt)
        return self._asked

    def text(self, instance: Any, made: list[int]) -> str:
        """The text that the harness makes of tokens."""
        self._asked, self._made = [], made
        [text] = self.generate_until([instance], disable_tqdm=True)
        return str(text)

    def _check(self, ask: Ask, instance: Any) -> None:
        if isinstance(ask, Text):
            more = json.loads(ask.more)
            if more.get("do_sample") or more.get("num_beams", 1) > 1:
                raise IncompatibleError(
                    "The task draws its answers or searches among several: only greedy decoding is the same each time.",
                    where=_where(instance),
                    hint="a task with do_sample: false",
                )
        elif not 0 < len(ask.tokens) <= self.max_length:
            raise FormatError(
                f"An answer has {len(ask.tokens):,} tokens, and the model takes 1 to {self.max_length:,}.",
                where=_where(instance),
            )

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        for _, context, continuation in requests:
            whole = tuple(context + continuation)[-(self.max_length + 1) :]
            self.cut += len(whole) < len(context) + len(continuation)
            split = len(whole) - len(continuation)
            self._asked.append(Score(whole[:split], whole[split:]))
        return [(0.0, False)] * len(requests)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **more: Any) -> Tensor:
        more.pop("attention_mask")  # one text is never padded
        prompt = tuple(context[0].tolist())
        self._asked.append(Text(prompt, max_length, tuple(stop), json.dumps(more, sort_keys=True)))
        return context.new_tensor([[*prompt, *self._made]])


def _where(instance: Any) -> str:
    return f"{instance.task_name}, document {instance.doc_id}"
