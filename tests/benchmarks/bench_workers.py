"""Do two workers take nearly half the time of one? 224 modules of Llama-7B's shapes.

"merge" is what `api.merge` takes (read, hash, merge, write), without the import of torch; "modules" is what workers
share of it, reading and merging all modules. Means something on an idle machine only: the rows hold its load.
Methods that are not there are left out.

    python tests/benchmarks/bench_workers.py [--rounds 3] [--methods linear ties knots] [--workers 1 2] [--layers 32]
        [--steps merge modules]
"""

from __future__ import annotations

import argparse
import shutil
from functools import partial

import torch
from _harness import compare, script
from _synthetic import FOLDER, adapters, llama
from bench_llama import METHODS, fresh

from loramerge.methods._method import MERGE

STEPS = ["merge", "modules"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["linear", "ties", "knots"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    chosen = parser.parse_args()
    name = "llama-bf16" if chosen.layers == 32 else f"llama-bf16-{chosen.layers}"
    four = adapters(name, 4, llama(chosen.layers), torch.bfloat16)
    out = FOLDER / "out"
    for method in (name for name in chosen.methods if name in MERGE.names()):
        for step in chosen.steps:
            alone = ["--modules"] if step == "modules" else []
            line = script("_own_merge.py", out, *four, *METHODS[method], *alone, "--workers")
            ways = {f"{n} workers": partial(fresh, [*line, str(n)], out, 1) for n in chosen.workers}
            what = {"method": method, "modules": 7 * chosen.layers, "step": step}
            first, *others = compare("workers", ways, chosen.rounds, warm=False, **what).values()
            for row in others:
                faster = first["merge_s"] / row["merge_s"]
                print(f"{method}, {step}: {row['way']} are {faster:.2f}× as fast as {first['way']}")
    shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
