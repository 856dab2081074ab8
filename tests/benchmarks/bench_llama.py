"""How much faster is a whole merge of real size than PEFT's, in how much memory, and how near to the disk?

Four adapters of Llama-7B's shapes (32 layers × 7 modules, rank 16), merged to rank 16. Whole processes from
start to end: ours by the command line, PEFT's by `_peft_merge.py` on a stand-in base, which leaves out the 13 GB
that a real one costs; `lean` is PEFT with the settings that help it. The floor reads all inputs and writes the
bytes of the output, with fsync, in this process. Ours in steps (import, merge with reading, hashing and writing)
is a run through the API. All have the same number of threads.

    python tests/benchmarks/bench_llama.py [--rounds 5] [--dtype bf16 f32] [--methods linear cat knots ties]
        [--threads 2] [--no-peers]

Methods that are not there are left out. The adapters stay in the system's temporary folder for the next run.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from _harness import Used, compare, cores, loramerge, process, script, timed
from _synthetic import FOLDER, RANK, adapters, llama

from loramerge.methods._method import MERGE

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
METHODS = {
    "linear": ["--method", "linear", "--rank", str(RANK)],
    "cat": ["--method", "cat"],
    "knots": ["--method", "knots", "-O", "inner=ties", "--rank", str(RANK)],
    "ties": ["--method", "ties", "-O", "density=0.5", "--rank", str(RANK)],
}
PEERS = ("linear", "cat")
WRITTEN = {"cat": 4}
"""How many times the bytes of one input a result has; 1 unless said."""


def floor(folders: Sequence[Path], copies: int) -> Used:
    """Reading all inputs and writing as many bytes as the output has."""
    return timed(partial(_copy, [folder / "adapter_model.safetensors" for folder in folders], copies))


def _copy(files: Sequence[Path], copies: int) -> None:
    buffer = bytearray(8 << 20)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    left = files[0].stat().st_size * copies
    with (FOLDER / "floor").open("wb", buffering=0) as file:
        while left > 0:
            left -= file.write(memoryview(buffer)[:left])
        os.fsync(file.fileno())


def fresh(command: Sequence[str], out: Path, threads: int) -> Used:
    """A process whose output is not there when it begins."""
    shutil.rmtree(out, ignore_errors=True)
    return process(command, folder=FOLDER, threads=threads)


def ways(dtype: str, methods: Sequence[str], threads: int, peers: bool) -> dict[str, Callable[[], Used]]:
    """Everything that is compared on one set of adapters."""
    four = adapters(f"llama-{dtype}", 4, llama(), DTYPES[dtype])
    out, other = FOLDER / "out", FOLDER / "out-peft"
    found: dict[str, Callable[[], Used]] = {}
    for name in methods:
        # --force: the folder that goes is still in the workspace's lock.
        line = loramerge("--quiet", "--workers", threads, "merge", *four, "-o", out.name, *METHODS[name], "--force")
        found[f"ours {name}"] = partial(fresh, line, out, 1)
        line = script("_own_merge.py", out, *four, *METHODS[name], "--workers", threads)
        found[f"ours {name}, in steps"] = partial(fresh, line, out, 1)
        found[f"floor of {name}"] = partial(floor, four, WRITTEN.get(name, 1))
        for lean in ([], ["--lean"]) if peers and name in PEERS else ():
            line = script("_peft_merge.py", other, *four, "--combination", name, "--threads", threads, *lean)
            found[f"PEFT {name}{', lean' if lean else ''}"] = partial(fresh, line, other, threads)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--no-peers", action="store_true")
    chosen = parser.parse_args()
    methods = [name for name in chosen.methods if name in MERGE.names()]
    for dtype in chosen.dtype:
        compared = ways(dtype, methods, chosen.threads, not chosen.no_peers)
        rows = compare("llama", compared, chosen.rounds, dtype=dtype, threads=chosen.threads)
        for name in methods:
            ours, steps, least = (
                rows[f"ours {name}"],
                rows[f"ours {name}, in steps"],
                rows[f"floor of {name}"],
            )
            print(f"{dtype} {name}: merge and IO {steps['merge_s'] / least['wall_s']:.1f}× the floor", end="")
            for way in (f"PEFT {name}", f"PEFT {name}, lean"):
                if way in rows:
                    print(f", {way} takes {rows[way]['wall_s'] / ours['wall_s']:.1f}× as long", end="")
            print(flush=True)
    for left in ("out", "out-peft"):
        shutil.rmtree(FOLDER / left, ignore_errors=True)
    for left in ("floor", "loramerge.lock"):
        (FOLDER / left).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
