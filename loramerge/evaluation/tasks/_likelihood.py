"""log p of tokens that go on from a prompt, which is read once for all that goes on from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loramerge.evaluation.metrics import scored
from loramerge.evaluation.tasks._decoding import read

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.evaluation.metrics import Array


def log_likelihoods(module: Any, prompt: Tensor, choices: Tensor, lengths: Tensor) -> Tensor:
    """Σ log p of each choice after its prompt, (rows, options) in float64; as `continued`."""
    return continued(module, prompt, choices, lengths)[0]


def continued(module: Any, prompt: Tensor, choices: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Σ log p of each choice after its prompt, in float64, and whether it is what is likeliest at each of its places.

    prompt (rows, P), choices (rows, options, width) of which the first `lengths` (rows, options) tokens count;
    both results are (rows, options).
    """
    import torch

    rows, options, width = choices.shape
    reading = read(module, prompt, goes_on=width > 1)
    kept = reading.logits[:, None].log_softmax(-1)
    parts = kept.expand(-1, options, -1).gather(2, choices[:, :, :1])
    likeliest = kept.argmax(-1)[..., None] == choices[:, :, :1]
    if width > 1:
        reading.each(options)
        flat = choices.flatten(0, 1)
        logits = reading.then(flat[:, :-1])
        later = logits.log_softmax(-1).gather(2, flat[:, 1:, None])[..., 0].view(rows, options, -1)
        parts = torch.cat([parts, later], dim=-1)
        likeliest = torch.cat([likeliest, (logits.argmax(-1) == flat[:, 1:]).view(rows, options, -1)], dim=-1)
    counted = torch.arange(width, device=lengths.device) < lengths[..., None]
    return parts.double().masked_fill(~counted, 0).sum(-1), (likeliest | ~counted).all(-1)


def loss(observed: Array) -> Array:
    """Observations (N, items, R) whose third number is -log p of what is right, as `scored`."""
    return scored(observed[..., 2])
