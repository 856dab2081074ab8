"""docs/performance.md from results.jsonl: one table per question, the goal beside what was measured.

    python tests/benchmarks/report.py

The newest row of each question, way and setting counts. Nothing is measured here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
PAGE = HERE.parents[1] / "docs" / "performance.md"
GPU = ("evaluation-8b", "kernels-cuda", "kernels-cuda-layer")
"""What `cuda.sh` measures."""

Row = Mapping[str, Any]

HOW = """# Performance

Made by `tests/benchmarks/report.py` from the rows of `tests/benchmarks/results.jsonl`; each table names the script that
wrote its rows, and the script says what it does. What the numbers are:

- What is compared runs in turns, round after round, in one run of one script, so that a busy machine is busy for all.
  Only ratios within a table mean something.
- Seconds are medians over the rounds, with first and third quartile in brackets where there are several rounds. CPU
  seconds are those of all threads together. A first round that fills caches is not counted where files are read.
- Memory is the peak of the whole process as the system counts it, pages of mapped files included.
- PEFT works on a stand-in base whose weights take no memory: a real base would cost it 13 GB and the time to read
  them. *Lean* is PEFT with the settings that help it (adapters made on the meta device and kept in their type).
- Files are in the page cache: what is measured is the work, not the disk. Results are written with fsync.
- Load is the machine's average over a minute, before and after: near the number of threads means that nobody else
  was at work.
"""


def rows_of(path: Path) -> list[Row]:
    """All rows, oldest first."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def newest(rows: Iterable[Row], bench: str, *setting: str) -> list[Row]:
    """The newest row of a question for each way and setting, in the order in which they first appeared."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        if row["bench"] == bench:
            found[tuple(str(row.get(key)) for key in ("way", *setting))] = row
    return list(found.values())


def page(rows: Sequence[Row]) -> str:
    """The whole page."""
    parts = [HOW]
    for title, script, make in SECTIONS:
        body = make(rows)
        if body:
            made = body_rows(rows, script)
            source = f"`tests/benchmarks/{script}`; {_machine(made)}." if made else ""
            parts.append("\n\n".join(filter(None, (f"## {title}", body, source))) + "\n")
    return "\n".join(parts)


def body_rows(rows: Sequence[Row], script: str) -> list[Row]:
    """The rows that a script wrote."""
    benches = GPU if script == "cuda.sh" else [script.removeprefix("bench_").removesuffix(".py")]
    return [row for row in rows if row["bench"] in benches]


def _machine(rows: Sequence[Row]) -> str:
    row = rows[-1]
    counts = sorted({str(each["threads"]) for each in rows if "threads" in each})
    versions = row["versions"]
    names = ("loramerge", "torch", "peft", *(("triton", "transformers") if "cuda" in row else ()))
    tools = ", ".join(f"{name} {versions[name]}" for name in names if name in versions)
    load = f"; load {row['load_before']} before, {row['load_after']} after" if "load_before" in row else ""
    threads = f"; {' and '.join(counts)} threads" if counts else ""
    return f"{row['at']}, {row['cpu']} with {row['cores']} cores, Python {row['python']}, {tools}{threads}{load}"


def module(rows: Sequence[Row]) -> str:
    """One module against PEFT's SVD, and the older question: against the dense SVD."""
    found = {row["way"]: row for row in newest(rows, "module", "side")}
    if not found:
        return ""
    peer = found["PEFT svd"]
    lines = [
        [way, _seconds(row, "cpu", 4), _times(peer["cpu_s"] / row["cpu_s"]) if row is not peer else "1"]
        for way, row in found.items()
    ]
    said = f"Relative difference of the merged updates: {peer['difference']:.1e} (wanted: at most 1e-5)."
    table = _table(["", "CPU s", "PEFT's over it (wanted: 1000×)"], lines)
    return f"4,096 × 4,096, four adapters of rank 16, to rank 16.\n\n{table}\n\n{said}"


def truncate(rows: Sequence[Row]) -> str:
    """Truncating from factors against dense."""
    found = newest(rows, "truncate", "adapters", "side")
    dense = {row["adapters"]: row["ms"] for row in found if row["way"] == "dense SVD"}
    lines = [
        [
            row["adapters"],
            row["way"],
            f"{row['ms']:.1f}",
            f"{row['value_error']:.0e}",
            _times(dense[row["adapters"]] / row["ms"]) if row["adapters"] in dense else "",
        ]
        for row in found
    ]
    header = ["adapters", "way", "ms", "error of the singular values", "dense over it (wanted: 100×)"]
    return _table(header, lines) if lines else ""


def llama(rows: Sequence[Row]) -> str:
    """Whole processes, their memory, and the floor."""
    found = newest(rows, "llama", "dtype", "threads")
    by = {(row["dtype"], row["threads"], row["way"]): row for row in found}
    lines = []
    for row in found:
        if row["way"].startswith("floor") or row["way"].endswith("in steps"):
            continue
        name = row["way"].split()[1].strip(",")
        ours = _beside(rows, row, f"ours {name}")
        ratio = _times(row["wall_s"] / ours["wall_s"]) if ours and row is not ours else ""
        first = [row["dtype"], row["threads"], row["way"]]
        lines.append([*first, _seconds(row), _seconds(row, "cpu"), f"{row['peak_mb']:.0f}", ratio])
    header = ["type", "threads", "whole process", "s", "CPU s", "peak MB", "times ours"]
    goals = "Wanted: PEFT's linear 5×, its cat 4×; ours at most 500 MB in bf16."
    return f"{_table(header, lines)}\n\n{goals}\n\n{_floors(by)}" if lines else ""


def _beside(rows: Sequence[Row], row: Row, way: str) -> Row | None:
    """The row of another way in the same run: only those can be compared."""
    same = ("bench", "dtype", "threads", "load_before")
    run = [each for each in rows if all(each.get(key) == row.get(key) for key in same)]
    return next((each for each in run if each["way"] == way), None)


def _floors(by: Mapping[tuple[str, int, str], Row]) -> str:
    lines = []
    for (dtype, threads, way), row in by.items():
        if way.endswith(", in steps"):
            name = way.removeprefix("ours ").removesuffix(", in steps")
            least = by[dtype, threads, f"floor of {name}"]
            exact = by.get((dtype, threads, "ours linear, in steps"))
            lines.append(
                [
                    dtype,
                    threads,
                    name,
                    f"{row['import_s']:.2f}",
                    f"{row['merge_s']:.2f}",
                    _seconds(least),
                    _times(row["merge_s"] / least["wall_s"]),
                    _times(row["merge_s"] / exact["merge_s"]) if exact else "",
                ]
            )
    header = [
        "type",
        "threads",
        "method",
        "import s",
        "read, hash, merge, write s",
        "floor s",
        "times the floor",
        "times linear",
    ]
    goals = "Wanted: at most 4× the floor, which reads the inputs and writes the output; knots at most 2× linear."
    return f"{_table(header, lines)}\n\n{goals}"


def ties(rows: Sequence[Row]) -> str:
    """TIES on ΔW against PEFT's."""
    found = newest(rows, "ties", "side")
    lines = []
    for row in found:
        before = row.get("load_peak_mb", row["import_peak_mb"])
        lines.append(
            [
                row["way"],
                f"{row['merge_cpu_s']:.2f}",
                f"{row['merge_peak_mb'] - before:.0f}",
                _seconds(row, "cpu"),
                f"{row['peak_mb']:.0f}",
            ]
        )
    if not found:
        return ""
    last = found[-1]
    table = _table(["", "merge, CPU s", "merge, further MB", "whole process, CPU s", "whole process, peak MB"], lines)
    goals = "Wanted: a third of PEFT's CPU and memory at the same mask."
    same = (
        f"{last['entries_differ']} of {last['side'] ** 2:,} merged entries differ, {last['tied']} tie at a threshold."
    )
    return f"{table}\n\n{goals} {same}"


def many(rows: Sequence[Row]) -> str:
    """Memory and time by the number of adapters."""
    found = newest(rows, "many", "workers")
    if not found:
        return ""
    first, lines = found[0], []
    for row in found:
        more = _count(row) - _count(first)
        each = f"{1000 * (row['cpu_s'] - first['cpu_s']) / more:.1f}" if more else ""
        growth = f"{row['peak_mb'] - first['peak_mb']:+.0f}" if more else ""
        lines.append([f"{_count(row):,}", _seconds(row), _seconds(row, "cpu"), each, f"{row['peak_mb']:.0f}", growth])
    goals = "Wanted: at most 100 MB more for 2,000 adapters than for 20, and time that grows with their number."
    header = ["adapters", "s", "CPU s", "CPU ms for each further one", "peak MB", "MB more"]
    return f"{_table(header, lines)}\n\n{goals}"


def plan(rows: Sequence[Row]) -> str:
    """What looking costs."""
    found = newest(rows, "plan")
    lines = [[row["way"], _seconds(row, "cpu", 3), f"{row['peak_mb']:.0f}"] for row in found]
    if not lines:
        return ""
    torch = ", ".join(found[-1]["imports_torch"]) or "neither command"
    goals = f"Wanted: at most 0.3 CPU s for the commands, and no import of torch, which {torch} imports."
    return f"{_table(['', 'CPU s', 'peak MB'], lines)}\n\n{goals}"


def workers(rows: Sequence[Row]) -> str:
    """How the merge step scales."""
    found = [row for row in newest(rows, "workers", "method", "modules", "step") if "step" in row]
    alone = {(row["method"], row["step"]): row["merge_s"] for row in found if row["way"] == "1 workers"}
    lines = [
        [
            row["method"],
            row["modules"],
            "whole merge" if row["step"] == "merge" else "modules alone",
            row["way"].split()[0],
            f"{row['merge_s']:.2f}",
            f"{alone[row['method'], row['step']] / row['merge_s']:.2f}",
        ]
        for row in found
        if (row["method"], row["step"]) in alone
    ]
    header = ["method", "modules", "step", "workers", "s", "times as fast as one"]
    goals = "Wanted: 1.6 with two workers, on a machine that does nothing else."
    return f"{_table(header, lines)}\n\n{goals}" if lines else ""


def mergekit(rows: Sequence[Row]) -> str:
    """A full-model merger given a base and the adapters."""
    found = {row["way"]: row for row in newest(rows, "mergekit") if row["way"] != "result"}
    if not found:
        return ""
    lines = [
        [
            way.replace("loramerge", "ours:"),
            _seconds(row),
            _seconds(row, "cpu"),
            f"{row['peak_mb']:.0f}",
            f"{row['output_mb'] + row['copies_mb']:.0f}",
        ]
        for way, row in found.items()
    ]
    table = _table(["", "s", "CPU s", "peak MB", "MB left on disk"], lines)
    first = next(iter(found.values()))
    said = (
        f"A random base of {first['layers']} layers of {first['hidden']:,} in {first['dtype']}, four adapters of rank "
        "16. mergekit writes a full model and keeps a merged copy of the base for each adapter; loramerge writes an "
        f"adapter of rank 16, which is what it cuts a TIES result to. Peer: {first['peer']}."
    )
    return f"{said}\n\n{table}"


def calibrate(rows: Sequence[Row]) -> str:
    """The plan's estimate beside what merges took."""
    found = [row for row in newest(rows, "calibrate", "method", "side", "modules") if "method" in row]
    lines = [
        [row["method"], f"{row['modules']} × {row['side']:,}²", f"{row['estimated_s']:.1f}", _seconds(row)]
        for row in found
    ]
    return _table(["method", "modules", "estimated s", "took s"], lines) if lines else ""


def quality(rows: Sequence[Row]) -> str:
    """Accuracy of merges at scale 1 and at their best scale."""
    found = [row for row in rows if row["bench"] == "method_quality"]
    if not found:
        return ""
    latest = {(row["method"], str(row.get("inner")), row.get("rank")): row for row in found}
    own = latest.pop(("own adapters", "None", None))
    kept = sorted(latest.values(), key=lambda row: -row["scaled"])
    lines = [
        [
            row["method"] + (f" inner={row['inner']}" if "inner" in row else ""),
            row["rank"],
            f"{row['plain']:.3f}",
            row["scale"],
            f"{row['scaled']:.3f}",
        ]
        for row in kept
    ]
    said = (
        "Five adapters of rank 8 on one sentence encoder (all-MiniLM-L6-v2), one task each; mean accuracy of the "
        f"merged encoder with each task's own head over {own['rows']} test rows a task. The adapters by themselves "
        f"reach {own['plain']:.3f}. The best scale was chosen on as many other rows. One encoder and five tasks: a "
        "hint where to begin, not a ranking; differences below 0.02 are within the noise of so many rows."
    )
    return f"{said}\n\n{_table(['method', 'rank', 'at scale 1', 'best scale', 'there'], lines)}"


def evaluation(rows: Sequence[Row]) -> str:
    """Many adapters in one pass, and linear candidates as coefficients."""
    found = newest(rows, "evaluation", "adapters", "items", "tokens", "dtype")
    by: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in found:
        by.setdefault((row["adapters"], row["items"], row["tokens"], row["dtype"]), {})[row["way"]] = row
    lines = []
    for (adapters, items, tokens, dtype), ways in by.items():
        ours = ways["together"]["wall_s"]
        ratios = [_times(ways[way]["wall_s"] / ours) for way in ("peft", "peft-lean", "loop")]
        base = f"{ours / ways['base']['wall_s']:.2f}"
        shape = [adapters, f"{items} × {tokens}", dtype]
        lines.append([*shape, f"{ours * 1000:.0f}", *ratios, base, f"{ways['together']['error']:.0e}"])
    if not lines:
        return ""
    header = [
        "adapters",
        "items × tokens",
        "type",
        "ms",
        "PEFT's loop over it",
        "with one loaded",
        "our loop",
        "of base",
    ]
    said = (
        "A random Llama of 8 layers of width 512, rank 16 on all seven projections; *of base* is the time beside the "
        "base alone on as many rows. Wanted: 32 adapters of 1 × 8 tokens 8×, our loop 3×, 1.4 of the base; 8 of 1 × 32 "
        "2× and 1.25×; everywhere 0.95 of our loop."
    )
    return f"{said}\n\n{_table([*header, 'differs by'], lines)}\n\n{_coefficients(rows)}"


def _coefficients(rows: Sequence[Row]) -> str:
    took = {(row["candidates"], row["way"]): row["wall_s"] for row in newest(rows, "coefficients", "candidates")}
    peak = {
        (row["candidates"], row["way"]): row["peak_mb"] for row in newest(rows, "coefficients-memory", "candidates")
    }
    lines = []
    for count in sorted({count for count, _ in peak}):
        sizes = [f"{peak[count, way]:.0f}" for way in ("coefficients", "updates")]
        shares = ["", "", ""]
        if (count, "base") in took:
            base = took[count, "base"]
            over = [took[count, way] - base for way in ("coefficients", "updates")]
            shares = [*(f"{one / base:.0%}" for one in over), f"{over[0] / over[1]:.2f}"]
        lines.append([count, *sizes, *shares])
    header = ["linear candidates", "peak MB", "as updates", "time over the base", "as updates", "of it"]
    said = (
        "Linear merges of four sources, 1 × 8 tokens each, as coefficients or as updates written out (peak of each "
        "process; wanted: memory flat, at most 0.6 of the overhead):"
    )
    return f"{said}\n\n{_table(header, lines)}\n\n![Peak memory](memory.svg)" if lines else ""


def on_a_gpu(rows: Sequence[Row]) -> str:
    """What a GPU makes of it, each by itself."""
    by: dict[str, list[Row]] = {}
    for row in rows:
        if row["bench"] in GPU:
            by.setdefault(row["device"], []).append(row)
    if not by:
        return "Not measured: no GPU was at hand; `tests/benchmarks/cuda.sh` measures it."
    tables = (_gpu_passes, _gpu_kernels, _gpu_products, _gpu_layer)
    parts = [f"### {device}\n\n" + "\n\n".join(make(own) for make in tables) for device, own in by.items()]
    return "\n\n".join(parts)


GPU_GOALS = {
    (1, 1): "PEFT 20×, our loop 16×",
    (16, 1): "our loop 8× (H200: 6×)",
    (1, 64): "PEFT 8×, our loop 2.2× (H200: 1.7×)",
    (1, 256): "our loop 1.0×, 1.20 of base",
    (1, 512): "our loop 1.0×, 1.20 of base",
}
"""By items and tokens of each."""


def _gpu_passes(rows: Sequence[Row]) -> str:
    by: dict[tuple[int, int, int], dict[str, Row]] = {}
    for row in newest(rows, "evaluation-8b", "items", "tokens", "past"):
        by.setdefault((row["items"], row["tokens"], row["past"]), {})[row["way"]] = row
    lines = []
    for (items, tokens, past), ways in by.items():
        ours = ways["together"]
        ratios = [
            _times(ways[way]["wall_s"] / ours["wall_s"]) if way in ways else "left out"
            for way in ("peft", "peft-lean", "loop")
        ]
        bits = [
            "yes" if ours["repeats"] else "no",
            *(f"{ours[key]:.0e}" if ours[key] else "same" for key in ("alone", "base_alone")),
        ]
        what = f"decode {items} × {tokens} behind {past}" if past else f"score {items} × {tokens}"
        times = [f"{ours['wall_s'] * 1000:.1f}", *ratios, f"{ours['wall_s'] / ways['base']['wall_s']:.2f}"]
        differ = [f"{ours[key]:.0e}" for key in ("error", "error_peft")]
        lines.append([what, *times, GPU_GOALS.get((items, tokens), ""), *differ, *bits])
    header = [
        "each adapter",
        "ms",
        "PEFT's loop over it",
        "with one loaded",
        "our loop",
        "of base",
        "wanted",
        "differs from our loop",
        "PEFT does",
        "repeats",
        "alone",
        "base alone",
    ]
    said = (
        "Whole passes: 32 adapters of rank 16 on all projections of a random Llama of 8B's shapes in bfloat16, with "
        "32,000 words; hidden states only, called from Python, so that the host's time counts. A decode step is one "
        "token for each of so many sequences. *Alone* is the largest difference of one adapter's numbers by itself "
        "from those among the others, beside that of the base, whose products are the library's; wanted: same."
    )
    return f"{said}\n\n{_table(header, lines)}" if lines else "Whole passes: not measured."


def _gpu_kernels(rows: Sequence[Row]) -> str:
    found = newest(rows, "kernels-cuda", "rows")
    by = {(row["way"], row.get("rows")): row for row in found}
    lines = [
        [
            f"{count:,}",
            *(f"{by[way, count]['of_copy']:.0%}" for way in ("shrink", "expand")),
            f"{error['over_torch']:.2f}",
            *("yes" if error[key] else "no" for key in ("repeats", "same_alone")),
        ]
        for (way, count), error in by.items()
        if way == "error"
    ]
    header = ["rows", "shrink, of a copy's speed", "expand", "error over torch's", "repeats", "same alone"]
    said = (
        "Kernels by themselves, 32 adapters on 4,096 × 4,096. Wanted: 70 % of a copy's speed from 4,096 rows on, an "
        "error of at most 1.5 of torch's, and the same bits again, alone and among others."
    )
    return f"{said}\n\n{_table(header, lines)}" if lines else "Kernels: not measured."


def _gpu_products(rows: Sequence[Row]) -> str:
    by = {(row["way"], row.get("rows")): row for row in newest(rows, "kernels-cuda", "rows")}
    lines = [
        [
            f"{count:,}",
            f"{base['wall_s'] * 1e6:.0f}",
            *(f"{by[way, count]['ratio']:.2f}" for way in ("base, shrink, expand", "base_plus_lora")),
        ]
        for (way, count), base in by.items()
        if way == "base" and ("base_plus_lora", count) in by
    ]
    header = ["rows", "base µs", "with shrink and expand", "in one kernel"]
    said = "Beside the library's own product. Wanted from 8,192 rows on: 1.20, in one kernel 1.08."
    return f"{said}\n\n{_table(header, lines)}" if lines else "Beside the library's own product: not measured."


def _gpu_layer(rows: Sequence[Row]) -> str:
    lines = [
        [row["rows"], "graph" if row["graph"] else "Python", f"{row['over_floor']:.2f}", _times(row["of_loop"])]
        for row in newest(rows, "kernels-cuda-layer", "rows", "graph")
        if row["way"] == "together"
    ]
    header = ["rows of an adapter", "called from", "of base", "loop over it"]
    said = "One layer's seven modules, 32 adapters at once or one after another:"
    return f"{said}\n\n{_table(header, lines)}" if lines else "One layer's modules: not measured."


def choice(rows: Sequence[Row]) -> str:
    """Multiple choice."""
    by: dict[int, dict[str, Row]] = {}
    for row in newest(rows, "choice", "items"):
        by.setdefault(row["items"], {})[row["way"]] = row
    lines = []
    for items, ways in by.items():
        peft, ours, half = (ways[way]["wall_s"] for way in ("peft", "together", "together-bf16"))
        shared = ways["peft-shared"]["wall_s"]
        row = ways["together"]
        ratios = [_times(peft / ours), _times(shared / ours), _times(peft / half)]
        lines.append(
            [items, f"{ours * 1000:.0f}", *ratios, f"{row['error']:.0e}", f"{row['same_winners']} of {8 * items}"]
        )
    header = [
        "items",
        "ms",
        "PEFT's loop over it",
        "with prompts shared",
        "bf16",
        "scores differ by",
        "same winners in bf16",
    ]
    said = (
        "8 adapters of the same Llama with 32,000 words, prompts of 96 tokens with 4 choices of 8. Wanted: 3× with "
        "scores equal to 1e-5, 5× in bf16 with the same winners, 1.4× of PEFT with prompts shared."
    )
    return f"{said}\n\n{_table(header, lines)}" if lines else ""


def racing(rows: Sequence[Row]) -> str:
    """What racing costs and loses."""
    lines = [
        [
            row["rules"],
            row["half"],
            row["trials"],
            f"{row['cost']:.1%}",
            f"{row['inside']:.1%}",
            f"{row['best']:.1%}",
            f"{row['lacks']:.4f}",
        ]
        for row in newest(rows, "racing", "rules", "half")
    ]
    header = ["rules", "rows", "trials", "cost", "winner inside the interval", "is the very best", "mean lack"]
    said = (
        "Real outcomes of 68 merges of the five encoder adapters; a trial draws 32 of them and an order of the rows. "
        "Rules were chosen on one half of the rows and are told on the other. Cost is that of all on all rows; the "
        "interval is that of the full run's best. Wanted: at most 25 %, at least 95 % inside."
    )
    return f"{said}\n\n{_table(header, lines)}" if lines else ""


def table(rows: Sequence[Row]) -> str:
    """Every method, plain and with its scale chosen, and what tune finds."""
    parts = []
    for name in dict.fromkeys(row["group"] for row in rows if row["bench"] == "table"):
        last = [row for row in rows if row["bench"] == "table" and row["group"] == name]
        # One run's rows stand together and have one time of beginning.
        last = [row for row in last if (row["at"], row["load_before"]) == (last[-1]["at"], last[-1]["load_before"])]
        scores = [key for key in last[0] if key.startswith("score_")]
        means = [key for key in last[0] if key.startswith("mean_")]
        header = ["", "mean share", *(key.partition("_")[2].replace("_", " ") for key in (*means, *scores))]
        lines = [
            [row["candidate"], f"{row.get('mark', '')} {row['mean']:.3f} ({row['low']:.3f}–{row['high']:.3f})".strip()]
            + [f"{row[key]:.3f}" for key in (*means, *scores)]
            for row in sorted(last, key=lambda row: -row["mean"])
        ]
        parts.append(f"### {name}, {last[0]['limit']} items a task\n\n{_table(header, lines)}")
    said = (
        "Each row is a merge of rank 8 (but for the exact ones), its score on every task, and the mean share of what "
        "each task's own adapter scores, with a 95 % interval. ★ is the best merge, ≈ is not proven worse than it on "
        "the same items. *×s* is a scale chosen on the even items; everything "
        "is told on the odd ones, `tune` too. *same start* are the tasks whose adapters began with the same A."
    )
    joined = "\n\n".join(parts)
    return f"{said}\n\n{joined}" if parts else ""


SECTIONS: Sequence[tuple[str, str, Callable[[Sequence[Row]], str]]] = (
    ("One module against the dense SVD of PEFT", "bench_module.py", module),
    ("Truncating a sum from its factors", "bench_truncate.py", truncate),
    ("A whole merge of Llama-7B's size", "bench_llama.py", llama),
    ("TIES on ΔW", "bench_ties.py", ties),
    ("Thousands of adapters", "bench_many.py", many),
    ("Looking before merging", "bench_plan.py", plan),
    ("Two workers", "bench_workers.py", workers),
    ("Beside mergekit", "bench_mergekit.py", mergekit),
    ("What `--plan` estimates", "calibrate.py", calibrate),
    ("Many adapters in one pass", "bench_evaluation.py", evaluation),
    ("On a GPU", "cuda.sh", on_a_gpu),
    ("Multiple choice", "bench_choice.py", choice),
    ("Racing candidates", "bench_racing.py", racing),
    ("Which merge is good", "table.py", table),
    ("What methods are worth, and their scale", "method_quality.py", quality),
)


def _count(row: Row) -> int:
    return int(row["way"].split()[0])


def _seconds(row: Row, what: str = "wall", digits: int = 2) -> str:
    median = f"{row[f'{what}_s']:.{digits}f}"
    if row["rounds"] == 1:
        return median
    return f"{median} ({row[f'{what}_q1']:.{digits}f}–{row[f'{what}_q3']:.{digits}f})"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}×" if ratio >= 100 else f"{ratio:.1f}×"


def _table(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (header, ["---"] * len(header), *lines))


if __name__ == "__main__":
    PAGE.write_text(page(rows_of(RESULTS)), encoding="utf-8")
    print(PAGE)
