"""Which method is worth trying first on encoders, and how much does the scale of the result matter?

The five adapters of `lego_quality.py`, merged by every method that takes them without statistics, at its
default options and weights, each at several scales, cut to rank 8 and whole; a merge's mark is its mean
accuracy over the five tasks, each task with its own head, beside what the adapters reach by themselves.

The best scale of a method is chosen on every other test row (even numbers) and its accuracy told on the
rest (odd ones), so that no number is tuned on what it reports.

    python tests/benchmarks/method_quality.py [--rows 400] [--ranks 8]

Needs the folder of real adapters (LORAMERGE_SHARED) and the packages of `[dev]`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from _harness import record
from lego_quality import TASKS, Encoder, Task

from loramerge.core.lowrank import LowRank
from loramerge.engine.plan import Request, Setting, plan
from loramerge.engine.run import Inputs, run
from loramerge.linalg import ranks
from loramerge.methods._method import MERGE

SCALES = (0.5, 0.7, 1.0, 1.5, 2.2)
"""2.2 is √5: it takes a mean of five to their sum over √n."""


@dataclass(frozen=True)
class Case:
    """A method with options, at a rank."""

    method: str
    options: Mapping[str, object]
    rank: int

    def updates(self, tasks: list[Task]) -> dict[str, LowRank]:
        """The merged updates."""
        adapters = [task.adapter for task in tasks]
        weight = 1.0 if MERGE[self.method].weights == "sum" else 1 / len(tasks)
        setting = Setting(self.method, self.options, [weight] * len(tasks), ranks.parse(self.rank))
        made = plan(adapters, Request(setting), workers=1)
        return {done.module: done.delta.to(dtype=torch.float64) for done in run(made, Inputs(adapters))}


def cases(rank: int) -> list[Case]:
    """Every method that takes five adapters and no statistics; those with inner rules with each."""
    found = [name for name in MERGE.names() if MERGE[name].most is None and not MERGE[name].needs]
    made = [Case(name, {"k": rank} if name == "lego" else {}, rank) for name in found]
    return made + [Case("knots", {"inner": inner}, rank) for inner in ("linear", "dare-ties")]


def halves(tasks: list[Task], rows: int) -> tuple[list[Task], list[Task]]:
    """The first rows of each task: those of even and those of odd number."""

    def every_other(task: Task, first: int) -> Task:
        return replace(task, tokens=task.tokens[:rows][first::2], labels=task.labels[:rows][first::2])

    return [every_other(task, 0) for task in tasks], [every_other(task, 1) for task in tasks]


def mean_accuracy(encoder: Encoder, updates: Mapping[str, LowRank], tasks: list[Task]) -> float:
    """Over the tasks, each with its own head."""
    return sum(encoder.accuracy(updates, task, len(task.labels)) for task in tasks) / len(tasks)


def tried(encoder: Encoder, case: Case, even: list[Task], odd: list[Task]) -> dict[str, object]:
    """One row: accuracy at scale 1, and at the scale that is best on the other half."""
    updates = case.updates(even)

    def at(scale: float) -> dict[str, LowRank]:
        return {name: update.times(scale) for name, update in updates.items()}

    chosen = max(SCALES, key=lambda scale: mean_accuracy(encoder, at(scale), even))
    row = {
        "method": case.method,
        **case.options,
        "rank": case.rank,
        "plain": round(mean_accuracy(encoder, at(1.0), odd), 4),
        "scale": chosen,
        "scaled": round(mean_accuracy(encoder, at(chosen), odd), 4),
    }
    record("method_quality", rows=sum(len(task.labels) for task in odd) // len(odd), **row)
    print(
        f"{case.method:14} {case.options!s:26} rank {case.rank:2}  {row['plain']:.3f}  at {chosen} {row['scaled']:.3f}",
        flush=True,
    )
    return row


def main() -> None:
    """All methods at all ranks, best first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=int, default=400, help="test rows of each task, half of them to choose the scale"
    )
    parser.add_argument("--ranks", type=int, nargs="+", default=[8])
    parser.add_argument("--methods", nargs="*", help="only these")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    encoder = Encoder()
    even, odd = halves([encoder.task(name) for name in TASKS], chosen.rows)
    own = sum(encoder.accuracy(task.updates, task, len(task.labels)) for task in odd) / len(odd)
    record("method_quality", rows=len(odd[0].labels), method="own adapters", plain=round(own, 4))
    print(f"own adapters {own:.3f}")
    made = [
        case for rank in chosen.ranks for case in cases(rank) if not chosen.methods or case.method in chosen.methods
    ]
    rows = sorted((tried(encoder, case, even, odd) for case in made), key=lambda row: -float(row["scaled"]))
    print("\n| method | rank | scale 1 | best scale | there |\n|---|---|---|---|---|")
    for row in rows:
        name = " ".join([str(row["method"]), *(f"{k}={v}" for k, v in row.items() if k in ("inner", "k"))])
        print(f"| {name} | {row['rank']} | {row['plain']:.3f} | {row['scale']} | {row['scaled']:.3f} |")


if __name__ == "__main__":
    main()
