"""Evaluations and searches to report on, and what an HTML file says."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "br", "hr", "col"}
_APART = {"style", "script", "title"}


@dataclass
class Read(HTMLParser):
    """A page as a parser takes it: headings, text, every element with its attributes, and what is not closed well."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "h2":
            self.headings.append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        if not set(self.open) & _APART:
            self.words.append(data)
        if "h2" in self.open:
            self.headings[-1] += data

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def read(path):
    """The page at a path, parsed to its end."""
    found = Read()
    found.feed(path.read_text("utf-8"))
    found.close()
    return found


def score(candidate, task, value, **more):
    low, high = (None, None) if value is None else (value - 0.04, value + 0.04)
    return {"candidate": candidate, "task": task, "metric": "accuracy", "value": value, "low": low, "high": high} | more


def evaluation(**changes):
    """Two merges and a source on two tasks, with intervals."""
    tasks, names = ["news", "mail"], {"tsv x0.5": 0.8, "lego-8": 0.7, "news-lora": 0.9}
    found = {
        "schema": 1,
        "kind": "evaluation",
        "base": "acme/base",
        "device": "cpu",
        "dtype": "F32",
        "versions": {"loramerge": "0"},
        "tasks": [
            {"name": t, "kind": "classification", "metric": "accuracy", "higher": True, "rows": 50, "of": 200}
            | {"split": "test", "file": f"{t}.jsonl", "sha256": "ab" * 32}
            for t in tasks
        ],
        "candidates": [
            {
                "name": name,
                "kind": "adapter" if name == "news-lora" else "merge",
                "rank": 8,
                "options": {},
                "weights": None,
            }
            | {"recipe": {"method": "tsv", "adapters": [{"ref": "./a"}]}}
            for name in names
        ],
        "scores": [score(n, t, v, own=0.9, normalised=v / 0.9, rows=50) for n, v in names.items() for t in tasks],
        "means": [
            {"candidate": n, "value": v / 0.9, "low": v - 0.05, "high": v + 0.05, "tasks": 2} for n, v in names.items()
        ],
        "notes": ["heads are the sources' own"],
        "seconds": 1.5,
    }
    return found | changes


def path_points():
    """An evaluation of three points between two adapters, the middle one lower."""
    names = {"t=0": (0.0, 0.9), "t=0.5": (0.5, 0.6), "t=1": (1.0, 0.8)}
    return evaluation(
        candidates=[
            {"name": name, "kind": "point", "method": "slerp", "t": t, "parents": ["a", "b"]}
            for name, (t, _) in names.items()
        ],
        scores=[score(name, task, value) for name, (_, value) in names.items() for task in ("news", "mail")],
        means=[{"candidate": name, "value": value, "low": None, "high": None} for name, (_, value) in names.items()],
    )


def search(**changes):
    """Four trials of a race of two rungs: a winner, one that finished, one dropped, one failed."""

    def trial(number, state, point, *values, why=""):
        rungs = [
            {"rows": rows, "value": v, "low": v - 0.05, "high": v + 0.05}
            for rows, v in zip((50, 200), values, strict=False)
        ]
        return {"number": number, "point": point, "name": "", "rungs": rungs, "state": state, "why": why}

    trials = [
        trial(0, "finished", {"method": "ties", "density": 0.3}, 0.8, 0.82),
        trial(1, "winner", {"method": "tsv", "scale": 0.5}, 0.85, 0.9),
        trial(2, "dropped", {"method": "lego", "k": 8}, 0.5, why="too low at 50 rows"),
        trial(3, "failed", {"method": "lego", "k": 999}, why="more than there are units"),
    ]
    found = {
        "schema": 1,
        "kind": "search",
        "base": "acme/base",
        "space": {"method": ["ties", "tsv", "lego"], "scale": [0.3, 2.0]},
        "sampler": "tpe",
        "seed": 0,
        "budget": 20.0,
        "spent": 7.4,
        "trials": trials,
        "winner": {"name": "tsv x0.5", "point": trials[1]["point"], "recipe": {"method": "tsv"}},
        "validation": {"value": 0.9, "low": 0.85, "high": 0.95},
        "held_out": None,
        "notes": [],
    }
    return found | changes
