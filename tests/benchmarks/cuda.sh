#!/usr/bin/env bash
# Everything that needs a GPU, in under 8 minutes: the tests marked `cuda`, then every GPU row of the benchmarks.
# Rows go where those of the other benchmarks go (results.jsonl, or LORAMERGE_RESULTS). PYTHON names the interpreter,
# which needs torch, Triton, transformers, PEFT and pytest. A part that fails or runs out of time does not stop the
# next; the last line says which did, and the exit code is 1 then.
set -uo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
[[ -n ${PYTHON:-} || -x $python ]] || { echo "There is no $python: make test sets it up, or PYTHON names another."; exit 1; }
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1

gpu=$("$python" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "")') || exit
if [[ -z $gpu ]]; then
    echo "There is no GPU here: nothing was tested, measured or recorded."
    exit 0
fi
echo "$gpu"

failed=()
part() { # seconds at most, then the command
    local began=$SECONDS
    echo "== ${*:3}"
    timeout --kill-after=5 "$1" "${@:2}" || failed+=("${*:3} (code $?)")
    echo "== $((SECONDS - began)) s"
}

mapfile -t marked < <(grep -rl --include='*.py' 'mark\.cuda' tests)
# Warnings of this machine's own packages are shown and fail nothing.
part 150 "$python" -m pytest -q -W default --continue-on-collection-errors -m cuda "${marked[@]}"
part 120 "$python" tests/benchmarks/bench_kernels.py --device cuda
part $((475 - SECONDS)) "$python" tests/benchmarks/bench_evaluation.py --size 8b --device cuda --dtype BF16

if ((${#failed[@]})); then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
echo "All of it ran, in $SECONDS s."
