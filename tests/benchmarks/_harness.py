"""Rows of measurements: each is one JSON line that stands on its own, with machine and versions.

Rows are appended to `results.jsonl` beside this file and never edited; LORAMERGE_RESULTS names another file.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("loramerge", "torch", "numpy", "scikit-learn", "safetensors", "peft", "transformers", "huggingface-hub")


def record(bench: str, **fields: Any) -> dict[str, Any]:
    """Append one row of a benchmark, and return it."""
    row = {"bench": bench, "at": datetime.now(UTC).date().isoformat(), **fields, **machine()}
    results = Path(os.environ.get("LORAMERGE_RESULTS", Path(__file__).with_name("results.jsonl")))
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return row


@cache
def machine() -> dict[str, Any]:
    """What numbers depend on: processor, cores, threads, versions."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
