"""Does memory stay the same however many adapters are averaged, and time grow with their number only?

20, 200 and 2,000 adapters (8 modules of 1024 × 1024, rank 16, bf16) averaged to rank 16, exactly, by the command
line. Peak memory is that of the whole process. The adapters take 1.1 GB in the temporary folder and are removed
afterwards, unless --keep.

    python tests/benchmarks/bench_many.py [--rounds 3] [--counts 20 200 2000] [--workers 1] [--keep]
"""

from __future__ import annotations

import argparse
import shutil
from functools import partial

import torch
from _harness import compare, loramerge, process
from _synthetic import FOLDER, RANK, adapters, square

NAME = "many"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[20, 200, 2000])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    # Relative: two thousand long paths would not fit on a command line.
    made = adapters(NAME, max(chosen.counts), square(1024, 8), torch.bfloat16)
    names = [f"./{folder.name}" for folder in made]
    line = loramerge("--quiet", "--workers", chosen.workers, "merge", "-o", "out", "--rank", RANK, "--force")
    ways = {
        f"{count} adapters": partial(process, [*line, *names[:count]], folder=FOLDER / NAME) for count in chosen.counts
    }
    rows = compare("many", ways, chosen.rounds, warm=False, workers=chosen.workers, threads=chosen.workers)
    first, *others = (rows[f"{count} adapters"] for count in chosen.counts)
    for row in others:
        print(f"{row['way']}: {row['peak_mb'] - first['peak_mb']:+.0f} MB beside {first['way']}")
    if not chosen.keep:
        shutil.rmtree(FOLDER / NAME)


if __name__ == "__main__":
    main()
