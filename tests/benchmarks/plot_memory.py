"""docs/memory.svg: the memory that linear candidates take, from the rows of `bench_evaluation.py --memory`.

    python tests/benchmarks/plot_memory.py

Needs `[plot]`.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from report import RESULTS, newest, rows_of

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "loramerge"

from matplotlib import pyplot  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs" / "memory.svg"


def main() -> None:
    """Draw both ways over the number of candidates."""
    rows = newest(rows_of(RESULTS), "coefficients-memory", "candidates")
    figure, axes = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    for way, marker in (("updates", "s"), ("coefficients", "o")):
        found = sorted((row["candidates"], row["peak_mb"]) for row in rows if row["way"] == way)
        axes.plot(*zip(*found, strict=True), marker=marker, label=f"as {way}")
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 8, 32, 128], ["1", "8", "32", "128"])
    axes.set_xlabel("linear candidates of four adapters")
    axes.set_ylabel("peak of the process, MB")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(PAGE, metadata={"Date": None})
    print(PAGE)


if __name__ == "__main__":
    main()
