"""What a result was made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from loramerge.core.provenance import FilePin, digest
from loramerge.report import words
from loramerge.report.html import Html, el, join
from loramerge.report.section import Section, Table, Tree

if TYPE_CHECKING:
    from loramerge.api import lineage as lineages
    from loramerge.report.material import Result

_DEEPEST = 20
_RULES = 40


def section(result: Result) -> Section:
    """The tree of a result's parents, and how it was made."""
    return Section(
        f"Lineage of {words.short(result.name)}",
        [Tree(_tree(result.name, result.tree)), _made(result)],
        "Each adapter stands above what it was made of. A parent is pinned by the commit of its repo or by its path, "
        "and by one sha256 over its files, so that the same bytes can be fetched again.",
    )


def _tree(name: str, tree: lineages.Tree, depth: int = 0) -> Html:
    facts = tree.facts
    parents = tree.parents if depth < _DEEPEST else []
    inner = [_tree(str(parent.facts.get("name", "?")), parent, depth + 1) for parent in parents]
    head = [el("b", words.short(name, 60)), *_described(facts)]
    return el("ul", el("li", *head, *inner), class_="tree")


def _described(facts: Mapping[str, Any]) -> list[Html]:
    """What is known of one adapter, as small pieces after its name."""
    said: list[str] = []
    if facts.get("weight") is not None:
        said.append(f"weight {words.plain(facts['weight'])}")
    if facts.get("repo"):
        said.append(f"{facts['repo']}@{str(facts.get('commit') or '')[:12]}")
    elif facts.get("path"):
        said.append(str(facts["path"]))
    if isinstance(facts.get("files"), Mapping) and facts["files"]:
        pins = [FilePin(str(path), 0, str(sha)) for path, sha in facts["files"].items()]
        said.append(f"sha256 {digest(pins)[:12]}")
    if facts.get("method"):
        said.append(f"{facts['method']}({words.options(facts.get('options') or {})})")
    if facts.get("licence"):
        said.append(str(facts["licence"]))
    return [join(Html(" "), el("span", words.clean(one, 200), class_="fact")) for one in said]


def _made(result: Result) -> Table:
    lineage, recipe = result.record.lineage, result.record.recipe
    rules = list(_rules(recipe))
    weights = [parent.weight for parent in lineage.parents]
    same = f"{words.plain(weights[0])} each" if weights and len(set(weights)) == 1 else None
    rows = [
        ("method", lineage.method),
        *((f"option {key}", words.plain(value)) for key, value in lineage.options.items() if value is not None),
        *([("scale", words.plain(recipe["scale"]))] if recipe.get("scale", 1.0) != 1.0 else []),
        *rules[:_RULES],
        *([("further rules", len(rules) - _RULES)] if len(rules) > _RULES else []),
        (
            "weights elsewhere" if rules else "weights",
            same or ", ".join(f"{p.name} {words.plain(p.weight)}" for p in lineage.parents),
        ),
        ("rank", lineage.rank),
        ("seed", lineage.seed),
        ("base", lineage.base or words.NONE),
        ("versions", ", ".join(f"{name} {version}" for name, version in lineage.versions.items())),
    ]
    return Table(("", "as it was made"), rows)


def _rules(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What holds for some modules only: which, and what."""
    for rule in recipe.get("modules") or ():
        said = {key: value for key, value in rule.items() if key != "match"}
        inner = said.pop("weights", {})
        named = {**said, **{f"weight of {name}": weight for name, weight in inner.items()}}
        yield f"modules {words.clean(rule.get('match'), 80)}", words.options(named)
