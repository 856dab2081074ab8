"""loramerge merges adapters through its API, and says how long each step took.

python tests/benchmarks/_own_merge.py --method linear --rank 16 OUT ADAPTER…

With --modules nothing is written: the modules are merged, and that is all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _steps import Steps


def main() -> None:
    """Import, merge (or only plan and compute), tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("adapters", nargs="+")
    parser.add_argument("--method", default="linear")
    parser.add_argument("--rank")
    parser.add_argument("-O", "--option", action="append", default=[])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--modules", action="store_true")
    chosen = parser.parse_args()
    steps = Steps()
    from loramerge import api
    from loramerge.api.making import recipe_of
    from loramerge.api.prepare import prepare
    from loramerge.engine.run import run
    from loramerge.methods._method import MERGE

    if not MERGE[chosen.method].takes_arrays:
        import torch  # noqa: F401  # which would be imported by the first module
    steps.done("import")
    session = api.Session(chosen.out.parent, workers=chosen.workers)
    options = dict(pair.split("=", 1) for pair in chosen.option)
    what = {"method": chosen.method, "options": options, "rank": chosen.rank}
    if chosen.modules:
        work = prepare(session, recipe_of(session, chosen.adapters, **what))
        steps.done("prepare")
        for _ in run(work.plan, work.inputs):
            pass
    else:
        api.merge(session, chosen.adapters, out=chosen.out, force=True, **what)
    steps.done("merge")
    steps.tell()


if __name__ == "__main__":
    main()
