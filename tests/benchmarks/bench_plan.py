"""What does looking cost? CPU seconds of `show` and `merge --plan` on four adapters of Llama-7B's shapes.

Neither may import torch: a row says whether it did. Beside them `import torch` alone, and Python doing nothing.

    python tests/benchmarks/bench_plan.py [--rounds 9]
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

import torch
from _harness import Used, compare, loramerge, process
from _synthetic import FOLDER, adapters, llama


def imports_torch(*arguments: object) -> bool:
    """Whether a command line of ours imports torch."""
    code = "import sys\nfrom loramerge.cli.main import main\ntry: main()\nexcept SystemExit: pass\n"
    tell = "print()\nprint('{\"torch\": ' + str(int('torch' in sys.modules)) + '}')"
    return bool(process([sys.executable, "-c", code + tell, *map(str, arguments)], folder=FOLDER).said["torch"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    four = adapters("llama-bf16", 4, llama(), torch.bfloat16)
    lines = {"show": ["show", four[0]], "merge --plan": ["merge", *four, "--rank", "16", "--plan"]}
    ways = {name: partial(process, loramerge("--quiet", *line), folder=FOLDER) for name, line in lines.items()}
    ways["import torch"] = partial(process, [sys.executable, "-c", "import torch"])
    ways["python -c pass"] = partial(process, [sys.executable, "-c", "pass"])
    known: dict[str, Used] = {}
    for name, line in lines.items():
        known[name] = Used(0, 0, said={"torch": float(imports_torch("--quiet", *line))})
        print(f"{name} imports torch: {bool(known[name].said['torch'])}")
    compare("plan", ways, rounds, imports_torch=[name for name, used in known.items() if used.said["torch"]])


if __name__ == "__main__":
    main()
