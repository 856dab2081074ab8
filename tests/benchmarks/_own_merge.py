"""loramerge merges adapters through its API, and says how long each step took.

python tests/benchmarks/_own_merge.py --method linear --rank 16 OUT ADAPTER…
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _steps import Steps


def main() -> None:
    """Import, merge, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("adapters", nargs="+")
    parser.add_argument("--method", default="linear")
    parser.add_argument("--rank")
    parser.add_argument("-O", "--option", action="append", default=[])
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    steps = Steps()
    import torch

    from loramerge import api

    steps.done("import")
    torch.set_num_threads(1)
    session = api.Session(chosen.out.parent, workers=chosen.workers)
    options = dict(pair.split("=", 1) for pair in chosen.option)
    what = {"method": chosen.method, "options": options, "rank": chosen.rank}
    api.merge(session, chosen.adapters, out=chosen.out, force=True, **what)
    steps.done("merge")
    steps.tell()


if __name__ == "__main__":
    main()
