"""What does racing cost, and how good is the candidate that it picks?

Real outcomes (which test rows each of many merges gets right), 32 candidates drawn anew and the rows in another
order for each of 40 seeds; the score is the mean over the tasks of accuracy / the source's own. Against the full
run: the share of its cost, how often the winner's full score lies in the interval of the best, how often it is the
best, and what it lacks to it. Rules are compared on the first half of each task's rows; the default ones are then
told on the second half, which had no say.

    python tests/benchmarks/bench_racing.py [--outcomes FILE] [--rows 400]

Needs, where FILE is not there yet, the folder of real adapters (LORAMERGE_SHARED) and the packages of `[dev]`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _harness import record
from _outcomes import outcomes
from numpy.typing import NDArray

from loramerge.evaluation.metrics import mean, scored
from loramerge.evaluation.racing import Rules, race
from loramerge.evaluation.resampling import Samples, average, bootstrap, interval

SEEDS, CANDIDATES = 40, 32
FOUR = (1 / 8, 1 / 4, 1 / 2, 1.0)
VARIANTS = {
    "default": Rules(),
    "level 0.8": Rules(level=0.8),
    "level 0.5": Rules(level=0.5),
    "plain halving": Rules(most=3 / 16),
    "six rungs": Rules(rungs=(1 / 32, 1 / 16, *FOUR)),
    "four rungs": Rules(rungs=FOUR),
    "four rungs, a quarter": Rules(rungs=FOUR, keep=0.25),
    "three rungs, a quarter": Rules(rungs=(1 / 8, 1 / 2, 1.0), keep=0.25),
    "no cap": Rules(most=1.0),
}


@dataclass(frozen=True)
class Trial:
    """Some candidates and an order of the rows: `right` (candidates, tasks, rows) and what the sources get (tasks,)."""

    right: NDArray[np.float64]
    own: NDArray[np.float64]

    def score(self, candidates: Sequence[int], rows: int) -> Samples:
        """The mean over tasks of accuracy over the source's own."""
        seen = self.right[list(candidates), :, :rows] / self.own[:, None]
        parts = [
            bootstrap(scored(seen[:, task]), mean("normalised"), stream=str(task)) for task in range(len(self.own))
        ]
        return average(parts)


def trial(right: NDArray[np.bool_], own: NDArray[np.bool_], seed: int) -> Trial:
    """The candidates and the order of one seed; each task's rows have their own."""
    random = np.random.default_rng(seed)
    some = right[random.choice(len(right), CANDIDATES, replace=False)]
    orders = np.stack([random.permutation(right.shape[2]) for _ in own])
    return Trial(np.take_along_axis(some, orders[None], axis=2).astype(float), own.mean(1))


def tried(trials: Sequence[Trial], rules: Rules) -> dict[str, float]:
    """The means over all trials."""
    found = []
    for one in trials:
        rows = one.right.shape[2]
        full = one.score(range(CANDIDATES), rows)
        best = int(np.argmax(full.value))
        result = race(CANDIDATES, rows, rules, one.score)
        low, _ = interval(full.take([best]))
        lack = float(full.value[best] - full.value[result.winner])
        found.append((result.cost, full.value[result.winner] >= low[0], lack == 0, lack))
    cost, inside, same, lack = np.mean(found, axis=0)
    worst = max(row[3] for row in found)
    return {"cost": cost, "inside": inside, "best": same, "lacks": lack, "lacks_most": worst}


def main() -> None:
    """Rules on the first half of the rows, the default ones on the second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, default=Path(tempfile.gettempdir()) / "loramerge-outcomes.npz")
    parser.add_argument("--rows", type=int, default=400)
    chosen = parser.parse_args()
    real = outcomes(chosen.outcomes, chosen.rows)
    rows = real["right"].shape[2] // 2
    for half, part, variants in (
        ("chosen on", slice(0, rows), VARIANTS),
        ("told on", slice(rows, 2 * rows), {"default": Rules(), "plain halving": VARIANTS["plain halving"]}),
    ):
        trials = [trial(real["right"][..., part], real["own"][..., part], seed) for seed in range(SEEDS)]
        for name, rules in variants.items():
            row = {key: round(float(value), 4) for key, value in tried(trials, rules).items()}
            record("racing", half=half, rules=name, trials=SEEDS, candidates=CANDIDATES, rows=rows, **row)
            print(f"{half:10} {name:24}", *(f"{key} {value:.4f}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
