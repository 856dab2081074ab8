"""Runs command lines in forks of a process that has imported everything, so that none of them waits for imports.

A command is one line of JSON, {"arguments": […], "log": "file for all that it prints"}; the answers
are two lines, the fork's process id when it starts and its exit code when it has ended.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pkgutil import walk_packages

import loramerge
from loramerge.cli.main import main

APART = ("hub.server", "demo", "kernels", "models", "training", "evaluation", "search", "report")
"""What serves, shows or runs a model is no part of what is killed here; some of it needs extras."""


def import_all() -> None:
    """All of the package that merges, and what it imports in its functions."""
    apart = tuple(f"loramerge.{name}" for name in APART)
    for module in walk_packages(loramerge.__path__, "loramerge."):
        if not module.name.startswith(apart) and not module.name.endswith("__main__"):
            import_module(module.name)
    for name in ("torch", "safetensors.torch", "yaml", "tomli_w", "filelock", "threadpoolctl", "rich.table"):
        import_module(name)
    from huggingface_hub import HfApi, ModelCardData, snapshot_download, try_to_load_from_cache  # noqa: F401

    from loramerge.core.catalog import family_of

    family_of("layers.0.q", "acme/base")  # reads the catalogs


def run(arguments: list[str], log: str) -> None:
    """The command line in this process, which it ends."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    code = 1
    try:
        main(arguments)
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    import_all()
    print("ready", flush=True)
    for line in sys.stdin:
        if (process := os.fork()) == 0:
            run(**json.loads(line))
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
