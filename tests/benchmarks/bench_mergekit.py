"""What does merging four adapters take beside mergekit, and do both mean the same by it?

A small random base shaped like Llama and four adapters of it, rank 16. Its vocabulary is small too, so that
embeddings and head, which mergekit merges with the rest, are the 4% of all numbers that they are in Llama-7B.
Whole processes by their command lines, with the same number of threads. What they make differs:

- mergekit (`BASE+ADAPTER` as models, --lazy-unpickle, no tokenizer, no card) makes a full model. It first merges
  each adapter into a copy of the base, in --lora-merge-cache; the row "copies kept" is the run after, which finds
  them there. To have an adapter again takes mergekit-extract-lora, a dense SVD per weight, which is not run.
- ours makes an adapter of rank 16 and never opens the base. To have a full model again takes adding it, which is
  not run either. Its `ties` has `weigh=before`: mergekit multiplies by the weights before it elects signs, and
  divides by the sum of those that agree.

So time, memory and disk are those of two ways to serve the merge of adapters, not of one computation. Peak memory
includes pages of mapped files. `output_mb` and `copies_mb` are left on disk; mergekit never removes the latter.

Then the results, of three modules. `difference`: mergekit's weight minus the base's, against our ΔW before it is
cut to a rank, as a share of the latter's norm (Frobenius). `rounding`: the same for our own ΔW added to the base
and rounded to the base's type once, where mergekit rounds each copy and each step of its arithmetic. bf16 rounds
an entry of the base by up to 2⁻⁸ of itself, which is no small part of an update; in `ties` the rounded numbers
also decide which entries survive and which sign wins. --dtype f32 takes rounding away: what is left is meaning.
`cut`: what our adapter of rank 16 lacks of its ΔW.

mergekit lives in an environment of its own, which --setup makes, with the versions of constraints.txt. Base and
adapters stay in the system's temporary folder for the next run; results and copies do not.

    python tests/benchmarks/bench_mergekit.py --setup VENV
    python tests/benchmarks/bench_mergekit.py --mergekit VENV [--rounds 3] [--hidden 2048] [--layers 2]
        [--dtype bf16] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from _harness import HERE, Used, compare, loramerge, process, record
from _synthetic import FOLDER, RANK, adapters
from bench_llama import DTYPES
from torch import Tensor

from loramerge.formats._base import open_base
from loramerge.formats._format import open_adapter
from loramerge.formats._tensors import load, read_header
from loramerge.methods._grains import apply
from loramerge.methods._method import MERGE, Context

VERSION = "0.1.5"
COUNT = 4
VOCABULARY = 1024
DENSITY = 0.5
PAIRS: Mapping[str, tuple[Mapping[str, float], str, Mapping[str, Any]]] = {
    "task_arithmetic": ({}, "linear", {}),
    "ties": ({"density": DENSITY}, "ties", {"density": DENSITY, "weigh": "before"}),
}
"""mergekit's method and its parameters beside the weight → our method and its options."""
COMPARED = ("layers.0.self_attn.q_proj", "layers.0.mlp.gate_proj", "layers.0.mlp.down_proj")


def setup(venv: Path) -> None:
    """An environment with mergekit, and with our versions of everything both need."""
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    wanted = ["-c", str(HERE.parents[1] / "constraints.txt"), "torch", f"mergekit=={VERSION}"]
    if subprocess.run([venv / "bin" / "pip", "install", *wanted]).returncode:
        raise SystemExit(f"mergekit {VERSION} cannot be installed with the versions of constraints.txt: see above.")


def versions(venv: Path) -> str:
    """What the peer is made of."""
    (packages,) = venv.glob("lib/python*/site-packages")
    found = {each.name.lower(): each.version for each in metadata.distributions(path=[str(packages)])}
    return ", ".join(f"{name} {found[name]}" for name in ("mergekit", "torch", "transformers", "peft"))


def base(hidden: int, layers: int, dtype: str) -> Path:
    """The folder of a random model, made unless it is there."""
    folder = FOLDER / f"base-{hidden}x{layers}-{dtype}"
    if not folder.exists():
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        shape = {"hidden_size": hidden, "intermediate_size": hidden * 11 // 4, "num_attention_heads": hidden // 64}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, num_hidden_layers=layers, **shape)).to(
            DTYPES[dtype]
        )
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as unfinished:
            model.save_pretrained(Path(unfinished, "model"))
            Path(unfinished, "model").rename(folder)
    return folder


def shapes(model: Path) -> dict[str, tuple[int, int]]:
    """Module → (out, in) of the linear layers of a base, without its head."""
    tensors = read_header(model / "model.safetensors").tensors
    suffix = "_proj.weight"
    chosen = {key.removesuffix(".weight"): entry.shape for key, entry in tensors.items() if key.endswith(suffix)}
    return {module: (out, in_) for module, (out, in_) in chosen.items()}


def recipe(method: str, model: Path, folders: Sequence[Path], dtype: str) -> str:
    """What mergekit is told, in JSON, which is YAML."""
    parameters = {"weight": 1 / COUNT, **PAIRS[method][0]}
    models = [{"model": f"{model}+{folder}", "parameters": parameters} for folder in folders]
    kind = str(DTYPES[dtype]).removeprefix("torch.")
    return json.dumps({"merge_method": method, "base_model": str(model), "models": models, "dtype": kind})


def megabytes(folder: Path) -> float:
    """What all files of a folder have together; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def run(command: Sequence[str | Path], out: Path, threads: int, copies: Path, *, fresh: bool = True) -> Used:
    """A command that makes a folder, and what is then on disk; `fresh` removes copies that are there before."""
    shutil.rmtree(out, ignore_errors=True)
    if fresh:
        shutil.rmtree(copies, ignore_errors=True)
    used = process(command, folder=out.parent, threads=threads)
    return replace(used, said={"output_mb": megabytes(out), "copies_mb": megabytes(copies)})


def ways(
    venv: Path, model: Path, folders: Sequence[Path], dtype: str, threads: int, at: Path
) -> dict[str, Callable[[], Used]]:
    """All that is compared; results lie under `at`, named by mergekit's methods."""
    found: dict[str, Callable[[], Used]] = {}
    for name, (_, method, options) in PAIRS.items():
        said = [word for key, value in options.items() for word in ("-O", f"{key}={value}")]
        # --force: the folder that goes is still in the workspace's lock.
        line: list[str | Path] = ["merge", *folders, "-o", f"ours-{name}", "--method", method, *said]
        ours = loramerge("--quiet", "--workers", str(threads), *line, "--rank", str(RANK), "--force")
        found[f"loramerge {method}"] = partial(run, ours, at / f"ours-{name}", 1, at / "copies")
        (at / f"{name}.yaml").write_text(recipe(name, model, folders, dtype), encoding="utf-8")
        theirs: list[str | Path] = [venv / "bin" / "mergekit-yaml", at / f"{name}.yaml", at / f"theirs-{name}"]
        theirs += ["--lora-merge-cache", at / "copies", "--lazy-unpickle", "--no-copy-tokenizer"]
        theirs += ["--no-write-model-card", "--quiet", "--num-threads", str(threads)]
        start = partial(run, theirs, at / f"theirs-{name}", threads, at / "copies")
        found[f"mergekit {name}"] = start
        found[f"mergekit {name}, copies kept"] = partial(start, fresh=False)
    return found


def added(model: Path, merged: Path, folder: Path, module: str) -> tuple[Tensor, Tensor]:
    """The base's weight of one module as it is stored, and what a full model has more, in float64."""
    spec = open_adapter(folder).modules[module]
    before, after = (open_base(path).weights([spec])[module] for path in (model, merged))
    weight = load(before.file, before.key)
    return weight, load(after.file, after.key).double() - weight.double()


def away(one: Tensor, two: Tensor) -> float:
    """How far one matrix is from another, as a share of the latter."""
    return float((one.double() - two).norm() / two.norm())


def result(name: str, model: Path, folders: Sequence[Path], at: Path, module: str) -> dict[str, float]:
    """The three figures of one module, as the script's documentation has them."""
    _, method, said = PAIRS[name]
    updates = [open_adapter(folder).load(module) for folder in folders]
    chosen = MERGE[method]
    ours = apply(chosen, updates, chosen.options(**said), Context(module, (1 / COUNT,) * COUNT)).dense()
    weight, theirs = added(model, at / f"theirs-{name}", folders[0], module)
    rounded = (weight.double() + ours).to(weight.dtype).double() - weight.double()
    adapter = open_adapter(at / f"ours-{name}").load(module).dense()
    return {"difference": away(theirs, ours), "rounding": away(rounded, ours), "cut": away(adapter, ours)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", type=Path, metavar="VENV")
    parser.add_argument("--setup", type=Path, metavar="VENV")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    if chosen.setup:
        setup(chosen.setup)
    elif chosen.mergekit:
        bench(chosen.mergekit.absolute(), chosen)
    else:
        print("Skipped: no mergekit is named. --setup VENV makes one, --mergekit VENV compares with it.")


def bench(venv: Path, chosen: argparse.Namespace) -> None:
    """Both on one set of adapters: what they take, then what they made."""
    if not (venv / "bin" / "mergekit-yaml").exists():
        raise SystemExit(f"There is no bin/mergekit-yaml in {venv}: --setup makes it.")
    torch.set_num_threads(chosen.threads)
    dtype = chosen.dtype
    model = base(chosen.hidden, chosen.layers, dtype)
    folders = adapters(f"mergekit-{chosen.hidden}x{chosen.layers}-{dtype}", COUNT, shapes(model), DTYPES[dtype])
    fields = {key: getattr(chosen, key) for key in ("dtype", "hidden", "layers", "threads")}
    fields |= {"vocabulary": VOCABULARY, "adapters": COUNT, "rank": RANK, "density": DENSITY, "peer": versions(venv)}
    with tempfile.TemporaryDirectory(dir=FOLDER) as made:
        at = Path(made)
        compared = ways(venv, model, folders, dtype, chosen.threads, at)
        rows = compare("mergekit", compared, chosen.rounds, warm=False, **fields)
        for name, (_, method, _) in PAIRS.items():
            tell(rows, method, name)
            for module in filter(lambda module: module.endswith(COMPARED), open_adapter(folders[0]).modules):
                found = result(name, model, folders, at, module)
                record("mergekit", way="result", method=method, peers_method=name, module=module, **found, **fields)
                print(f"  {module:36} " + "  ".join(f"{key} {value:.2e}" for key, value in found.items()))


def tell(rows: Mapping[str, Mapping[str, Any]], method: str, name: str) -> None:
    """How many times ours mergekit takes."""
    ours = rows[f"loramerge {method}"]
    for way in (f"mergekit {name}", f"mergekit {name}, copies kept"):
        wall, cpu, memory, disk = (rows[way][key] / ours[key] for key in ("wall_s", "cpu_s", "peak_mb", "output_mb"))
        print(
            f"{way}: {wall:.1f}× the time, {cpu:.1f}× CPU, {memory:.1f}× memory, a result of {disk:.0f}× the bytes",
            end="",
        )
        print(f", and {rows[way]['copies_mb']:.0f} MB of copies")


if __name__ == "__main__":
    main()
