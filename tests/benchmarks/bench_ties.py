"""TIES on ΔW, streamed: less CPU and memory than PEFT's `ties_svd`, with the same mask to the bit?

One module of 4096 × 4096, four adapters, density 0.5, rank 16, one thread; each in a process of its own. CPU and
memory are those of the merge step: processor seconds, and how far the process's peak grew beyond what it had
before (imports and, for PEFT, loaded adapters). `entries_differ` counts the entries of the merged ΔW that are not
the same to 1e-6 of the largest, `tied` how many more entries than PEFT keeps are as large as the smallest that
it keeps: of equal ones at the threshold PEFT takes some, ours takes all.

    python tests/benchmarks/bench_ties.py [--rounds 3] [--side 4096]
"""

from __future__ import annotations

import argparse

import torch
from _harness import compare, script
from _synthetic import FOLDER, RANK, adapters, square
from bench_llama import METHODS, fresh
from peft.utils.merge_utils import ties
from torch import Tensor

from loramerge.core.lowrank import LowRank
from loramerge.formats._format import open_adapter
from loramerge.methods._grains import apply
from loramerge.methods._method import MERGE, Context

COUNT, DENSITY = 4, 0.5


def ours(updates: list[LowRank], module: str) -> Tensor:
    """The merged ΔW before it is cut to a rank."""
    method = MERGE["ties"]
    context = Context(module, (1 / COUNT,) * COUNT)
    return apply(method, updates, method.options(density=DENSITY), context).dense()


def theirs(updates: list[LowRank]) -> Tensor:
    """PEFT's, of the dense ΔW."""
    return ties([(update.b @ update.a) * update.scale for update in updates], torch.full((COUNT,), 1 / COUNT), DENSITY)


def ties_at_threshold(update: LowRank) -> int:
    """How many entries beyond the share that stays are as large as the last that stays."""
    sizes = ((update.b @ update.a) * update.scale).abs().flatten()
    kept = int(DENSITY * sizes.numel())
    least = sizes.kthvalue(sizes.numel() - kept + 1).values
    return int((sizes >= least).sum()) - kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=4096)
    chosen = parser.parse_args()
    if "ties" not in MERGE.names():
        raise SystemExit("There is no method ties.")
    torch.set_num_threads(1)
    folders = adapters(f"module-{chosen.side}", COUNT, square(chosen.side, 1), torch.float32)
    (module,) = open_adapter(folders[0]).modules
    updates = [open_adapter(folder).load(module) for folder in folders]
    one, two = ours(updates, module), theirs(updates).double()
    differ = int(((one - two).abs() > 1e-6 * two.abs().max()).sum())
    tied = sum(ties_at_threshold(update) for update in updates)
    print(f"{differ} of {one.numel()} entries differ; {tied} are tied at a threshold")
    out = FOLDER / "out"
    own = script("_own_merge.py", out, *folders, *METHODS["ties"])
    peer = script("_peft_merge.py", out, *folders, "--combination", "ties_svd", "--rank", RANK, "--lean")
    ways = {"ours": lambda: fresh(own, out, 1), "PEFT ties_svd": lambda: fresh(peer, out, 1)}
    fields = {"side": chosen.side, "adapters": COUNT, "density": DENSITY, "rank": RANK, "threads": 1}
    rows = compare("ties", ways, chosen.rounds, warm=False, **fields, entries_differ=differ, tied=tied)
    mine, other = rows.values()
    grown = [row["merge_peak_mb"] - row.get("load_peak_mb", row["import_peak_mb"]) for row in (mine, other)]
    print(f"PEFT takes {other['merge_cpu_s'] / mine['merge_cpu_s']:.1f}× the CPU seconds", end=", ")
    print(f"grows by {grown[1]:.0f} MB where ours grows by {grown[0]:.0f} MB")


if __name__ == "__main__":
    main()
