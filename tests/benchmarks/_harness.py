"""Rows of measurements: each is one JSON line that stands on its own, with machine, load and versions.

Rows are appended to `results.jsonl` beside this file and never edited; LORAMERGE_RESULTS names another file.
What is compared is run in turns, round after round, so that a busy machine is busy for all of it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "loramerge",
    "torch",
    "triton",
    "numpy",
    "scikit-learn",
    "safetensors",
    "peft",
    "transformers",
    "huggingface-hub",
)
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Used:
    """What one run took: seconds, seconds of all processors together, the most memory (MB), and what it said."""

    wall: float
    cpu: float
    peak: float = 0.0
    said: Mapping[str, Any] = field(default_factory=dict)


Way = Callable[[], Used]


def record(bench: str, **fields: Any) -> dict[str, Any]:
    """Append one row of a benchmark, and return it."""
    loads = {"load_before": _BEGAN, "load_after": load()}
    row = {"bench": bench, "at": datetime.now(UTC).date().isoformat(), **loads, **fields, **machine()}
    results = Path(os.environ.get("LORAMERGE_RESULTS", HERE / "results.jsonl"))
    with results.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return row


def compare(
    bench: str, ways: Mapping[str, Way], rounds: int, *, warm: bool = True, **fields: Any
) -> dict[str, dict[str, Any]]:
    """Run all ways in turns, print and record a row for each; returns the rows by way.

    With `warm` a first round is not counted: it fills caches of files and writes bytecode.
    """
    if warm:
        for way in ways.values():
            way()
    before = load()
    runs: dict[str, list[Used]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            runs[name].append(way())
    loads = {"load_before": before, "load_after": load()}
    rows = {name: record(bench, way=name, **fields, **summary(found), **loads) for name, found in runs.items()}
    for name, row in rows.items():
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        seconds = f"wall {row['wall_s']:9.3f} s  cpu {row['cpu_s']:9.3f} s"
        print(f"{bench} {shown} {name:28} {seconds}  {row['peak_mb']:6.0f} MB", flush=True)
    return rows


def summary(runs: Sequence[Used]) -> dict[str, Any]:
    """Medians and quartiles of some runs of one way; the largest peak; medians of the numbers it said."""
    found: dict[str, Any] = {"rounds": len(runs)}
    for name, values in (("wall", [run.wall for run in runs]), ("cpu", [run.cpu for run in runs])):
        q1, median, q3 = quartiles(values)
        found |= {f"{name}_s": round(median, 6), f"{name}_q1": round(q1, 6), f"{name}_q3": round(q3, 6)}
    found["peak_mb"] = round(max(run.peak for run in runs), 1)
    return found | {key: statistics.median(run.said[key] for run in runs) for key in runs[0].said}


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile; three times the number where there is only one."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return q1, median, q3


def load() -> float:
    """The machine's load average over the last minute."""
    return round(os.getloadavg()[0], 2)


def process(command: Sequence[str | Path], *, folder: Path | None = None, threads: int = 1) -> Used:
    """Run a command to its end. What it prints as a JSON object in its last line is what it said.

    Peak memory is that of the largest process as the system counts it, pages of mapped files included.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(HERE.parents[1]),
    }
    # Bytecode is kept, as it is wherever a package is installed.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.NamedTemporaryFile("r") as report:
        launched = [sys.executable, "-I", "-S", str(HERE / "_used.py"), report.name, *map(str, command)]
        done = subprocess.run(launched, cwd=folder, env=environment, capture_output=True, text=True, check=True)
        found = json.load(report)
    if found.pop("code"):
        raise SystemExit(f"{' '.join(map(str, command))[:300]}\n{done.stderr[-3000:]}")
    return Used(**found, said=_said(done.stdout))


def timed(function: Callable[[], Any]) -> Used:
    """One call in this process; memory is not measured."""
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return Used(time.perf_counter() - wall, time.process_time() - cpu)


def loramerge(*arguments: str | Path) -> list[str]:
    """A command line of ours."""
    return [sys.executable, "-m", "loramerge", *map(str, arguments)]


def script(name: str, *arguments: str | Path) -> list[str]:
    """A script beside this file, and its arguments."""
    return [sys.executable, str(HERE / name), *map(str, arguments)]


_BEGAN = load()


@cache
def machine() -> dict[str, Any]:
    """What numbers depend on: processor, cores, threads, versions."""
    return {
        "cpu": _cpu(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def gpu() -> dict[str, Any]:
    """What numbers taken on a GPU depend on as well."""
    import torch

    return {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _said(text: str) -> dict[str, float]:
    last = text.strip().rpartition("\n")[2]
    return json.loads(last) if last.startswith("{") else {}


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
