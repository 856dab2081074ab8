from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent / "interpreted"


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="they are collected by themselves")
def test_triton_in_its_interpreter_holds_what_the_kernels_promise():
    pytest.importorskip("triton", reason="Triton is not installed")
    env = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
    assert "skipped" not in run.stdout
