"""Which test rows each of many merges gets right: real outcomes for studies of how candidates are chosen.

The five adapters of `lego_quality.py`, merged by every method that takes them without statistics, cut to rank 8,
each at two scales, scored with each task's own head on the first rows of its test set. Made once and kept in a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from lego_quality import TASKS, Encoder, Task
from method_quality import cases
from numpy.typing import NDArray

from loramerge.core.lowrank import LowRank

SCALES = (0.7, 1.5)
RANK = 8


@torch.inference_mode()
def right(encoder: Encoder, updates: Mapping[str, LowRank], tasks: list[Task], rows: int) -> NDArray[np.bool_]:
    """(tasks, rows): which rows the updated encoder with each task's head gets right."""
    parameters = {name: encoder.model.get_submodule(name.removeprefix("bert.")).weight for name in updates}
    kept = {name: parameter.clone() for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        parameter += updates[name].to(dtype=torch.float64).dense()
    found = np.stack([_right(encoder, task, rows) for task in tasks])
    for name, parameter in parameters.items():
        parameter.copy_(kept[name])
    return found


def _right(encoder: Encoder, task: Task, rows: int) -> NDArray[np.bool_]:
    weight, bias = task.head
    order = sorted(range(rows), key=lambda i: len(task.tokens[i]))  # that of `batches`
    pooled = [encoder.model(ids, attention_mask=mask).pooler_output for ids, mask, _ in task.batches(rows)]
    answers = (torch.cat(pooled) @ weight.T + bias).argmax(1).tolist()
    guessed = dict(zip(order, answers, strict=True))
    return np.array([guessed[i] == task.labels[i] for i in range(rows)])


def outcomes(file: Path, rows: int) -> dict[str, NDArray[np.generic]]:
    """`right` (candidates, tasks, rows), `own` (tasks, rows), `names` and `tasks`; from the file where it is there."""
    if not file.exists():
        np.savez_compressed(file, **_made(rows))
    with np.load(file) as kept:
        return dict(kept)


def _made(rows: int) -> dict[str, NDArray[np.generic]]:
    torch.set_num_threads(1)
    encoder = Encoder()
    tasks = [encoder.task(name) for name in TASKS]
    own = np.stack([right(encoder, task.updates, [task], rows)[0] for task in tasks])
    names, found = [], []
    for case in cases(RANK):
        merged = case.updates(tasks)
        for scale in SCALES:
            names.append(f"{case.method} {dict(case.options)} × {scale}")
            found.append(right(encoder, {name: update.times(scale) for name, update in merged.items()}, tasks, rows))
            print(f"{names[-1]:44} {found[-1].mean():.4f}  own {own.mean():.4f}", flush=True)
    return {"right": np.stack(found), "own": own, "names": np.array(names), "tasks": np.array(TASKS)}
