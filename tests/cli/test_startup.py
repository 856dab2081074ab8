"""How long a command takes to begin: CPU time, beside `hf --help`, in the same minutes on the same machine."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROUNDS = 5
HF = Path(sys.executable).with_name("hf")


@pytest.fixture(scope="module")
def seconds(tmp_path_factory, write_adapter):
    """Median CPU seconds of some command lines, run in turns, so that a busy machine is busy for all of them."""
    if not HF.is_file():
        pytest.skip(f"there is no {HF} to compare with")
    folder = tmp_path_factory.mktemp("startup")
    for name in ("x", "y"):
        write_adapter(folder / name, modules={f"model.layers.{i}.self_attn.q_proj": (8, 8) for i in range(32)})
    ours = [sys.executable, "-m", "loramerge"]
    lines = {
        "hf --help": [str(HF), "--help"],
        "--help": [*ours, "--help"],
        "show": [*ours, "show", "./x"],
        "merge --plan": [*ours, "merge", "./x", "./y", "--plan"],
    }
    # Bytecode is kept, as it is wherever a package is installed, in a place of its own.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    found = {name: [] for name in lines}
    for number in range(ROUNDS + 1):
        for name, line in lines.items():
            taken = _cpu(line, folder, environment)
            if number:  # the first only writes the bytecode
                found[name].append(taken)
    return {name: statistics.median(taken) for name, taken in found.items()}


def _cpu(line, folder, environment):
    process = subprocess.Popen(line, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime


def test_help_takes_at_most_half_the_time_of_hf_help(seconds):
    assert seconds["--help"] <= seconds["hf --help"] / 2, seconds


@pytest.mark.parametrize("name", ["show", "merge --plan"])
def test_what_reads_headers_only_takes_no_longer_than_hf_help(seconds, name):
    assert seconds[name] <= seconds["hf --help"], seconds
