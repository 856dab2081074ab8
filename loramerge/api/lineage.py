"""What a result was made of, and making it again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge import recipe as recipes
from loramerge.api import result
from loramerge.api.basing import open_weights
from loramerge.api.opening import Opened, open_ref
from loramerge.api.prepare import prepare
from loramerge.core.provenance import FilePin, Parent, changed, digest, sha256_file
from loramerge.errors import BadConfig, IntegrityError, LoramergeError
from loramerge.formats._format import open_adapter
from loramerge.workspace.results import read_record

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.recipe import Recipe
    from loramerge.workspace.results import Record

_COMPARED = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class Tree:
    """A result, or one of its parents, with what that was made of in turn."""

    label: str
    facts: dict[str, Any]
    parents: list[Tree] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """The tree as text, one adapter a line."""
        yield self.label
        for number, parent in enumerate(self.parents, 1):
            last = number == len(self.parents)
            first, *rest = parent.lines()
            yield f"{'└─' if last else '├─'} {first}"
            yield from (f"{'  ' if last else '│ '} {line}" for line in rest)

    def plain(self) -> dict[str, Any]:
        """The tree as plain values."""
        return {**self.facts, "parents": [parent.plain() for parent in self.parents]}


def log(session: Session, ref: str) -> Tree:
    """The lineage tree of a result, as deep as records are at hand (parents that are here or in the cache).

    Asks the Hub only where `ref` itself is there. Raises BadConfig where `ref` has no record.
    """
    opened = open_ref(session, ref)
    read_record(opened.folder)
    return _tree(session, opened.folder, opened.adapter.name, {})


def rebuild(session: Session, ref: str, *, allow_pickle: bool = False) -> list[dict[str, Any]]:
    """Run a result's recorded recipe again from its pinned parents, and compare weights and config.

    Parents from a Hub are pulled at their commit, local ones are taken from their path; all are
    hashed against the record. Raises IntegrityError where the bytes differ, and what `make` raises.
    """
    opened = open_ref(session, ref)
    record = read_record(opened.folder)
    parents = record.lineage.parents
    # Whoever wrote the record does not decide whether pickles are read.
    recipe = replace(_named_recipe(record.recipe, parents, str(opened.folder)), allow_pickle=allow_pickle)
    _check_base(session, recipe, record.lineage.base_files)
    _check_pins(session.workspace.root, record.lineage.statistics, "The statistics are")
    with tempfile.TemporaryDirectory(prefix="loramerge-rebuild-") as scratch:
        held = [_reopened(session, parent, allow_pickle) for parent in parents]
        target = Path(scratch) / opened.folder.name
        result.write(session, prepare(session, recipe, held), target)
        rows = [_compared(opened.folder, target, name) for name in _COMPARED]
    wrong = [row["file"] for row in rows if not row["same"]]
    if wrong:
        now, then = result.versions(), dict(record.lineage.versions)
        other = [f"{name} {then[name]} then, {now[name]} now" for name in then if then[name] != now.get(name)]
        raise IntegrityError(
            f"The rebuilt {' and '.join(wrong)} differ from the recorded result.",
            where=str(opened.folder),
            hint="; ".join(other) or "the result was changed after it was made",
        )
    return rows


def _check_base(session: Session, recipe: Recipe, pins: Sequence[FilePin]) -> None:
    """Raises IntegrityError where the weights of the base are not those of the record."""
    if recipe.base_weights is None or not pins:
        return
    _check_pins(open_weights(session, recipe.base_weights).folder, pins, "The weights of the base are")


def _check_pins(folder: Path, pins: Sequence[FilePin], what: str) -> None:
    if differences := changed(folder, pins):
        raise IntegrityError(
            f"{what} not what was pinned: {'; '.join(differences)}.",
            where=str(folder),
            hint="put the recorded ones back",
        )


def _tree(
    session: Session, folder: Path | None, label: str, facts: dict[str, Any], above: frozenset[Path] = frozenset()
) -> Tree:
    folder = folder.resolve() if folder else None
    try:
        # A record can say anything, also that a result is its own ancestor.
        record = read_record(folder) if folder and folder not in above else None
    except BadConfig:
        record = None
    if folder is None or record is None:
        return Tree(label, facts)
    lineage = record.lineage
    made = f"{label} = {lineage.method}({', '.join(_said(record))})"
    found = {**facts, "method": lineage.method, "options": dict(lineage.options), "rank": lineage.rank}
    found |= {"seed": lineage.seed, "base": lineage.base, "versions": dict(lineage.versions)}
    found |= {"base_files": {pin.path: pin.sha256 for pin in lineage.base_files}} if lineage.base_files else {}
    return Tree(made, found, [_parent(session, parent, above | {folder}) for parent in lineage.parents])


def _said(record: Record) -> Iterator[str]:
    """What tells a merge from others by the same method: options that are set, its scale, rules for modules."""
    yield from (f"{key}={value}" for key, value in record.lineage.options.items() if value is not None)
    if (scale := record.recipe.get("scale", 1.0)) != 1.0:
        yield f"scale={scale}"
    if record.recipe.get("modules"):
        yield "rules for modules"


def _parent(session: Session, parent: Parent, above: frozenset[Path]) -> Tree:
    where = f"{parent.repo}@{(parent.commit or '')[:12]}" if parent.repo else parent.path or "?"
    where += f":{parent.subfolder}" if parent.subfolder else ""
    label = f"{parent.weight:g} × {parent.name} ({where}, sha256 {digest(parent.files)[:12]})"
    facts = {"name": parent.name, "weight": parent.weight, "repo": parent.repo, "commit": parent.commit}
    facts |= {"path": parent.path, "files": {pin.path: pin.sha256 for pin in parent.files}, "licence": parent.licence}
    return _tree(session, at_hand(session, parent), label, facts, above)


def at_hand(session: Session, parent: Parent) -> Path | None:
    """A parent's folder where it is on this machine already."""
    from loramerge.hub import cache

    paths = [pin.path for pin in parent.files]
    try:
        if parent.path:
            return (session.workspace.root / parent.path).resolve()
        return cache.find(session.hub, parent.repo or "", parent.commit or "", parent.subfolder, paths)
    except ValueError:
        return None  # what the record names is no repo, or no path


def _named_recipe(recorded: Any, parents: Sequence[Parent], where: str) -> Recipe:
    """The recorded recipe with each adapter given the name it had."""
    recipe = recipes.from_mapping(dict(recorded), where)
    if len(recipe.adapters) != len(parents):
        raise BadConfig("The record's recipe and its lineage list different adapters.", where=where)
    pairs = zip(recipe.adapters, parents, strict=True)
    return replace(recipe, adapters=tuple(replace(item, ref=_ref(parent), name=parent.name) for item, parent in pairs))


def _ref(parent: Parent) -> str:
    if parent.repo:
        return f"{parent.repo}@{parent.commit}" + (f":{parent.subfolder}" if parent.subfolder else "")
    path = parent.path or ""
    return path if path.startswith(("/", "../", "./")) else f"./{path}"


def _reopened(session: Session, parent: Parent, allow_pickle: bool) -> Opened:
    """A parent, held to the hashes of the lineage; the Hub is asked only for what is not in the cache."""
    folder = at_hand(session, parent) if parent.repo else None
    if folder is None:
        opened = open_ref(session, _ref(parent), name=parent.name, allow_pickle=allow_pickle)
    else:
        opened = Opened(open_adapter(folder, name=parent.name, allow_pickle=allow_pickle), folder, parent)
    return replace(opened, origin=parent, pins=parent.files)


def _compared(recorded: Path, rebuilt: Path, name: str) -> dict[str, Any]:
    if not (recorded / name).is_file():
        raise LoramergeError(f"The result has no {name} to compare with.", where=str(recorded))
    hashes = sha256_file(recorded / name), sha256_file(rebuilt / name)
    size = (rebuilt / name).stat().st_size
    return {"file": name, "same": hashes[0] == hashes[1], "size": size, "sha256": hashes[1]}
