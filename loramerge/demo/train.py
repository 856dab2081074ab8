"""Training the base and its adapters, so that a second run gives the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from loramerge.demo.digits import Digits
from loramerge.demo.model import TARGETS, DigitsTransformer

if TYPE_CHECKING:
    from peft import PeftModel

BATCH = 64


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: passes over the data, and the peak of a one-cycle learning rate."""

    epochs: int
    rate: float

    def times(self, effort: float) -> Schedule:
        """A share of the passes, at least one."""
        return Schedule(max(1, round(self.epochs * effort)), self.rate)


BASE = Schedule(epochs=40, rate=3e-3)
ADAPTER = Schedule(epochs=15, rate=4e-3)


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """One thread and a seeded generator inside; both as they were afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def base(digits: Digits, schedule: Schedule = BASE, seed: int = 0) -> DigitsTransformer:
    """A transformer trained on digits from a random start."""
    with repeatable(seed):
        model = DigitsTransformer()
        fit(model, digits, schedule)
    return model


def adapter(
    model: DigitsTransformer, digits: Digits, rank: int, folder: Path, schedule: Schedule = ADAPTER, seed: int = 1
) -> None:
    """A LoRA of that rank trained on digits, written by PEFT into `folder`; `model` stays as it is."""
    from peft import LoraConfig, get_peft_model

    with repeatable(seed):
        adapted = get_peft_model(deepcopy(model), LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(TARGETS)))
        fit(adapted, digits, schedule)
    # "auto" would ask the network whether the base has grown tokens.
    adapted.save_pretrained(str(folder), save_embedding_layers=False)


def fit(model: nn.Module, digits: Digits, schedule: Schedule) -> None:
    """AdamW on whatever of `model` asks for gradients; shuffled by torch's own generator."""
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=schedule.rate)
    rounds = len(digits.labels) // BATCH
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.rate, total_steps=schedule.epochs * rounds)
    model.train()
    for _ in range(schedule.epochs):
        for batch in torch.split(torch.randperm(len(digits.labels))[: rounds * BATCH], BATCH):
            loss = F.cross_entropy(model(digits.images[batch]), digits.labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
    model.eval()


def accuracy(model: nn.Module, digits: Digits) -> float:
    """The share of digits that are read right."""
    with torch.inference_mode():
        right = model(digits.images).argmax(1) == digits.labels
    return int(right.sum()) / len(right)


def adapted(model: DigitsTransformer, folder: Path) -> PeftModel:
    """The base with an adapter folder on it, loaded by PEFT; `model` stays as it is."""
    from peft import PeftModel

    return PeftModel.from_pretrained(deepcopy(model), str(folder)).eval()
