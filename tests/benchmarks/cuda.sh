#!/usr/bin/env bash
# Everything that needs a GPU, in under 8 minutes: the tests marked `cuda`, then every GPU row of the benchmarks.
# Rows go where those of the other benchmarks go (results.jsonl, or LORAMERGE_RESULTS). PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "There is no GPU here: nothing was run and nothing recorded."
    exit 0
fi

deadline=$((SECONDS + 480))
within() { timeout "$((deadline - SECONDS))" "$@"; }

"$python" -c 'import torch, triton; print(torch.cuda.get_device_name(), "torch", torch.__version__, "triton", triton.__version__)'
within "$python" -m pytest -q -m cuda tests
within "$python" tests/benchmarks/bench_kernels.py --device cuda
