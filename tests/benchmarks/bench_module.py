"""One module, 4096 × 4096, four adapters of rank 16 merged to rank 16: how much CPU, and is it the same update?

PEFT's `add_weighted_adapter(combination_type="svd")` on a stand-in base (thin SVDs, which is kind) beside
`truncate_sum` on the same factors in memory, and beside the engine's whole job: read, measure, merge, truncate.
`difference` is ‖ours − PEFT's‖ / ‖PEFT's‖ of the merged update, from factors in float64. One thread.

    python tests/benchmarks/bench_module.py [--rounds 3] [--side 4096]
"""

from __future__ import annotations

import argparse
import warnings
from functools import partial
from pathlib import Path

import torch
from _harness import Used, compare, timed
from _peft_merge import combine, opened
from _synthetic import RANK, adapters, square
from peft import PeftModel

from loramerge import api
from loramerge.api.prepare import prepare
from loramerge.core.lowrank import LowRank
from loramerge.engine.run import Inputs, run
from loramerge.formats._format import open_adapter
from loramerge.linalg.measure import relative_error
from loramerge.linalg.truncate import truncate_sum

COUNT = 4


def peft(model: PeftModel) -> Used:
    """One combination; the one of the round before is dropped first."""
    if "merged" in model.peft_config:
        model.delete_adapter("merged")
    return timed(partial(combine, model, "svd", 1 / COUNT, RANK))


def merged(model: PeftModel) -> LowRank:
    """What PEFT made of the only module."""
    layer = next(module for _, module in model.named_modules() if hasattr(module, "lora_A"))
    a, b = layer.lora_A["merged"].weight, layer.lora_B["merged"].weight
    return LowRank(b=b.detach(), a=a.detach(), scale=layer.scaling["merged"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=4096)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    folders = adapters(f"module-{chosen.side}", COUNT, square(chosen.side, 1), torch.float32)
    (name,) = open_adapter(folders[0]).modules
    updates = [open_adapter(folder).load(name).times(1 / COUNT) for folder in folders]
    session = api.Session(Path(), workers=1)
    work = prepare(session, api.recipe_of(session, [str(folder) for folder in folders], rank=RANK))
    model = opened(folders, lean=True)
    ways = {
        "truncate_sum": lambda: timed(lambda: truncate_sum(updates, RANK)),
        "the engine's job": lambda: timed(lambda: list(run(work.plan, Inputs(work.adapters)))),
        "PEFT svd": partial(peft, model),
    }
    for quick in list(ways)[:2] * 3:
        ways[quick]()
    combine(model, "svd", 1 / COUNT, RANK)
    (done,) = run(work.plan, Inputs(work.adapters))
    theirs = merged(model)
    difference = max(relative_error(ours, [theirs]) for ours in (truncate_sum(updates, RANK).delta, done.delta))
    fields = {"side": chosen.side, "adapters": COUNT, "rank": RANK, "threads": 1, "difference": difference}
    rows = compare("module", ways, chosen.rounds, warm=False, **fields)
    for ours in list(ways)[:2]:
        print(f"PEFT svd takes {rows['PEFT svd']['cpu_s'] / rows[ours]['cpu_s']:.0f}× the CPU seconds of {ours}")


if __name__ == "__main__":
    main()
