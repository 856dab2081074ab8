"""What are the rates behind the plan's estimate of time, and how far off is it?

Measures each rate of `engine/estimate.py` on one thread (a product in float64 of the shape that truncation
has, an elementwise rule, reading and hashing, starting), then runs a few merges and compares what their plans
said. A row for each rate and each merge.

    python tests/benchmarks/calibrate.py [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from _harness import loramerge, process, quartiles, record, summary
from _synthetic import adapters, square, update

from loramerge.core.provenance import sha256_file
from loramerge.engine import estimate
from loramerge.linalg.tiles import Blocks, Tiles
from loramerge.linalg.truncate import truncate_sum
from loramerge.methods._method import Context
from loramerge.methods.merge import ties

SIDE = 4096
MERGES = [
    ("linear", 1024, 16, ()),
    ("linear", 4096, 16, ()),
    ("knots", 4096, 8, ("-O", "inner=ties")),
    ("ties", 1024, 8, ()),
    ("ties", 4096, 4, ()),
]
"""Method, side, modules, further arguments; four adapters of rank 16, cut to rank 16."""


def seconds(function: Callable[[], object], rounds: int) -> float:
    """The median of some calls, after one that does not count."""
    function()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return quartiles(times)[1]


def rates(rounds: int) -> dict[str, float]:
    """Seconds for an operation, an entry and a byte."""
    updates = [update("layer", number, (SIDE, SIDE)) for number in range(4)]
    units = sum(one.rank for one in updates)
    operations = 2.0 * 2 * SIDE * units**2 + 2 * 20 * units**3 + 2.0 * 2 * SIDE * units * 16
    flop = seconds(lambda: truncate_sum(updates, 16), rounds) / operations

    options, context = ties.Options(density=0.5), Context("layer", (1.0,) * 4)

    def merged() -> None:
        tiles = Tiles(updates)
        state = ties.survey(tiles, options, context)
        for _ in Blocks(tiles, lambda start, tile: ties.merge(tile, state, options, context, start)):
            pass

    entry = seconds(merged, rounds) / (3.0 * 4 * SIDE * SIDE)
    weights = adapters("calibrate-4096", 1, square(SIDE, 16), torch.float32)[0] / "adapter_model.safetensors"
    # A byte is read and looked at for NaN, and hashed once as an input or as an output.
    byte = seconds(lambda: sha256_file(weights), rounds) / weights.stat().st_size
    return {"FLOP": flop, "ENTRY": entry, "BYTE": 2 * byte}


def main() -> None:
    """Rates first, then merges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for name, found in rates(rounds).items():
        record("calibrate", rate=name, seconds=found, assumed=getattr(estimate, name))
        print(f"{name:6} {found:.2e} s, the estimate takes {getattr(estimate, name):.2e} s")
    for method, side, modules, more in MERGES:
        folders = adapters(f"calibrate-{side}-{modules}", 4, square(side, modules), torch.float32)
        with tempfile.TemporaryDirectory() as work:
            what = [*folders, "--method", method, *more, "--rank", "16", "--workers", "1", "-C", work]
            said = subprocess.run(
                loramerge("merge", *what, "--plan", "--format", "json"), capture_output=True, check=True
            )
            guess = json.loads(said.stdout)["estimated_seconds"]
            runs = [process(loramerge("merge", *what, "-o", Path(work) / "out", "--force")) for _ in range(rounds)]
        row = record("calibrate", method=method, side=side, modules=modules, estimated_s=guess, **summary(runs))
        print(f"{method:8} {side:5} × {modules:2}  estimated {guess:6.1f} s  took {row['wall_s']:6.1f} s", flush=True)


if __name__ == "__main__":
    main()
