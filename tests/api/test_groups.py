"""Every method on groups of real adapters: PEFT loads what comes out, and a rebuild gives the same bytes.

python tests/api/test_groups.py     prints a row for every group and method
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from standin import peft_delta, peft_layers, stand_in

from loramerge import api
from loramerge.formats._format import open_adapter
from loramerge.formats._statistics import write_statistics
from loramerge.methods._method import MERGE

DATA = Path(os.environ.get("LORAMERGE_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"

GROUPS = {
    "minilm": [f"trained/minilm-{task}-r8" for task in ("sst2", "subj", "trec", "sms-spam", "tweet-irony")],
    "gpt2-seqcls": [f"adapters/gpt2-seqcls/{name}" for name in ("deepbiolab", "gurvineet-best", "gurvineet-ep1")],
    "gpt2-causal": [f"adapters/gpt2-causal/{name}" for name in ("mycguo", "mycguo-ck200", "smart-review")],
    "roberta-portuguese": [f"adapters/roberta-base/portuguese-paulo-ck{step}" for step in (500, 4000, 7000)],
    "roberta-agnews": [f"adapters/roberta-base/agnews-agu-r4-biasall-ck{step}" for step in (500, 1200)],
}


def statistics_for(folder, path):
    """Statistics that some model could have: of each module's inputs and outputs, some positive numbers."""
    tensors = {}
    for name, spec in open_adapter(folder).modules.items():
        draw = torch.Generator().manual_seed(len(name))
        rows = torch.randn(8, spec.in_, generator=draw)
        tensors["grams", name] = rows.T @ rows / 8 + torch.eye(spec.in_)
        tensors["fisher_in", name] = rows.square().mean(0)
        tensors["fisher_out", name] = torch.rand(spec.out, generator=draw)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    write_statistics(path, shapes, ((*key, tensor) for key, tensor in tensors.items()))
    return path


def merged(session, folders, name):
    """The group, or as much of it as the method takes, merged."""
    method = MERGE[name]
    folders = folders[: method.most]
    data = {}
    if method.needs:
        for folder in folders:
            data[folder.name] = str(statistics_for(folder, session.workspace.root / f"{folder.name}.safetensors"))
    options = {"k": 8} if name == "lego" else {}
    return api.merge(session, [str(f) for f in folders], method=name, options=options, data=data, out=Path(name))


def check(session, made):
    """PEFT loads all modules of a result with our updates, and the same bytes come out again."""
    adapter = open_adapter(made.path)
    layers = peft_layers(made.path, stand_in(adapter, adapter.modules), list(adapter.modules))
    for name in list(adapter.modules)[::9]:
        want = adapter.load(name).dense()
        assert (peft_delta(layers[name]) - want).norm() <= 1e-6 * want.norm()
    assert all(row["same"] for row in api.rebuild(session, made.name))


def takes(name, group):
    return len(GROUPS[group]) >= MERGE[name].least


CASES = [
    pytest.param(group, name, marks=() if group == "minilm" else pytest.mark.slow, id=f"{group}-{name}")
    for group in GROUPS
    for name in MERGE.names()
    if takes(name, group)
]


@pytest.mark.parametrize(("group", "name"), CASES)
def test_every_method_merges_every_group_and_peft_loads_it(shared, session, group, name):
    folders = [shared / "data" / path for path in GROUPS[group]]

    made = merged(session, folders, name)

    assert 0 < made.report["overall"]["norm"] < math.inf
    check(session, made)


def main():
    """A row for every group and method."""
    print(
        "| group | method | modules | rank | relative error | norm ratio | seconds | PEFT | rebuild |\n"
        + "|---" * 9
        + "|"
    )
    for group, paths in GROUPS.items():
        for name in MERGE.names():
            if not takes(name, group):
                print(f"| {group} | {name} | takes {MERGE[name].least} adapters |")
                continue
            with tempfile.TemporaryDirectory() as folder:
                session = api.Session(Path(folder))
                start = perf_counter()
                made = merged(session, [DATA / path for path in paths], name)
                seconds = perf_counter() - start
                check(session, made)
            row = made.report["overall"]
            error = f"{row['relative_error']:.3f}" if "relative_error" in row else "–"
            print(f"| {group} | {name} | {row['modules']} | {row['rank']} | {error} | {row['norm_ratio']:.3f}"
                  f" | {seconds:.1f} | loads | same bytes |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
