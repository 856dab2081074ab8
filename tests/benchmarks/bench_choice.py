"""What does multiple choice cost over many adapters, as people write it and as it is done here?

The random Llama of `bench_evaluation.py` with 32,000 words, 8 adapters, prompts of 96 tokens with 4 choices of 8.
Ways, round after round in one process:

- peft: PEFT's loop, every prompt once with each of its choices, logits of all tokens
- peft-shared: PEFT's loop with prompts and logits handled as here
- together: all adapters in one pass; and the same in bfloat16

    python tests/benchmarks/bench_choice.py [--threads 1] [--rounds 5] [--items 2]

Needs `[models]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import bench_evaluation as shape
import torch
from _harness import Used, compare, timed
from torch import Tensor, nn

from loramerge.evaluation.applied import Applied
from loramerge.evaluation.passes import ROWS, Lot, Passes
from loramerge.evaluation.tasks.choice import log_likelihoods

WORDS, ADAPTERS, PROMPT, CHOICES, WIDTH = 32000, 8, 96, 4, 8


def together(applied: Applied, lot: Lot) -> Tensor:
    """(adapters, items, choices) log-likelihoods in one pass, or as few as rows allow."""

    def run(module: nn.Module, inputs: dict[str, Tensor], count: int) -> tuple[Tensor, Tensor]:
        found = log_likelihoods(module, inputs["prompt"], inputs["choices"], inputs["lengths"])
        return found[:, :1], found

    passes = Passes(applied, run, ROWS).over(lot, range(ADAPTERS))
    return shape.in_order(passes, ADAPTERS, len(lot.items)).view(ADAPTERS, len(lot.items), CHOICES)


def as_written(peft: nn.Module, prompts: Tensor, choices: Tensor) -> Tensor:
    """PEFT's loop as a person writes it."""
    found = []
    for at in range(ADAPTERS):
        peft.set_adapter(f"a{at}")
        for prompt, some in zip(prompts, choices, strict=True):
            ids = torch.cat([prompt.expand(CHOICES, -1), some], dim=1)
            logits = peft(input_ids=ids).logits.float().log_softmax(-1)
            told = logits[:, PROMPT - 1 : -1].gather(2, some[..., None])[..., 0]
            found.append(told.double().sum(1))
    return torch.stack(found).view(ADAPTERS, len(prompts), CHOICES)


def shared(peft: nn.Module, prompts: Tensor, choices: Tensor, lengths: Tensor) -> Tensor:
    """PEFT's loop with each prompt run once, all items together."""
    found = []
    for at in range(ADAPTERS):
        peft.set_adapter(f"a{at}")
        found.append(log_likelihoods(peft.base_model.model, prompts, choices, lengths))
    return torch.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--items", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    generator = torch.Generator().manual_seed(2)
    prompts = torch.randint(WORDS, (chosen.items, PROMPT), generator=generator)
    choices = torch.randint(WORDS, (chosen.items, CHOICES, WIDTH), generator=generator)
    lengths = torch.full((chosen.items, CHOICES), WIDTH)
    inputs = {"prompt": prompts, "choices": choices, "lengths": lengths}
    lot = Lot(tuple(range(chosen.items)), inputs, PROMPT + CHOICES * WIDTH)
    size = shape.Size(words=WORDS)
    model = shape.base(torch.float32, size)
    made = shape.updates(model, ADAPTERS)
    half = shape.base(torch.bfloat16, size)
    peft = shape.with_peft(model, made)
    ways: dict[str, Callable[[], Tensor]] = {
        "peft": partial(as_written, peft, prompts, choices),
        "peft-shared": partial(shared, peft, prompts, choices, lengths),
        "together": partial(together, Applied(model, shape.candidates(made)), lot),
        "together-bf16": partial(together, Applied(half, shape.candidates(made)), lot),
    }
    with torch.inference_mode():
        scores = {name: way() for name, way in ways.items()}
        timers: dict[str, Callable[[], Used]] = {name: partial(timed, way) for name, way in ways.items()}
        error = float((scores["together"] - scores["peft"]).abs().max())
        winners = int((scores["together-bf16"].argmax(-1) == scores["peft"].argmax(-1)).sum())
        rows = compare("choice", timers, chosen.rounds, items=chosen.items, error=error, same_winners=winners)
    took = {name: row["wall_s"] for name, row in rows.items()}
    print(
        f"   together: {took['peft'] / took['together']:.2f}× PEFT's loop, "
        f"{took['peft-shared'] / took['together']:.2f}× with prompts shared; bfloat16 "
        f"{took['peft'] / took['together-bf16']:.2f}×; scores differ by {error:.1e}, "
        f"{winners} of {ADAPTERS * chosen.items} winners the same in bfloat16",
        flush=True,
    )


if __name__ == "__main__":
    main()
