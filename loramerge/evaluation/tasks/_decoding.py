"""How a model goes on from prompts: a decoder from their tokens, an encoder-decoder from what its encoder made of them.

Either reads a prompt once, says what is likely to come next, and goes on with the tokens that it is then given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loramerge.models.model import begins_with

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.models.model import Model


def room(model: Model, tokens: int) -> int:
    """How many tokens a prompt may have that so many come after; less than 1 where there is no room for those.

    An encoder and its decoder have a length each.
    """
    if model.task == "SEQ_2_SEQ_LM":
        return model.longest if tokens <= model.longest else 0
    return model.longest - tokens


def ends(module: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a text, by the model's generation config and the tokenizer."""
    config = getattr(module, "generation_config", None)
    named = [getattr(config, "eos_token_id", None), tokenizer.eos_token_id]
    return {int(one) for found in named if found is not None for one in (found if isinstance(found, list) else [found])}


@dataclass
class Reading:
    """Prompts that have been read: `logits` (rows, V) in float32 of the token after each, and what going on takes."""

    module: Any
    logits: Tensor
    cache: Any
    encoded: Tensor | None = None

    def each(self, times: int) -> None:
        """Every row is there so many times from now on, one after another."""
        self.cache.batch_repeat_interleave(times)
        if self.encoded is not None:
            self.encoded = self.encoded.repeat_interleave(times, dim=0)

    def then(self, tokens: Tensor) -> Tensor:
        """Logits (rows, width, V) in float32 behind each of these tokens (rows, width), which are read too."""
        given: dict[str, Any] = {"input_ids": tokens}
        if self.encoded is not None:
            from transformers.modeling_outputs import BaseModelOutput

            given = {"decoder_input_ids": tokens, "encoder_outputs": BaseModelOutput(self.encoded)}
        out = self.module(**given, past_key_values=self.cache, use_cache=True)
        self.cache = out.past_key_values
        found: Tensor = out.logits.float()
        return found


def read(module: Any, prompt: Tensor, *, goes_on: bool = True) -> Reading:
    """Run prompts (rows, P) through the model; not `goes_on`: what comes next is all that will be asked."""
    encoded = None
    if module.config.is_encoder_decoder:
        start = prompt.new_full((len(prompt), 1), begins_with(module))
        out = module(input_ids=prompt, decoder_input_ids=start, use_cache=goes_on)
        encoded = out.encoder_last_hidden_state
    else:
        out = module(input_ids=prompt, use_cache=goes_on, logits_to_keep=1)
    return Reading(module, out.logits[:, -1].float(), out.past_key_values if goes_on else None, encoded)
