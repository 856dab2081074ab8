"""An adapter taken apart into minimal semantic units, and put together again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.api import result
from loramerge.api.keep import condition
from loramerge.api.opening import open_ref
from loramerge.core.catalog import same_base
from loramerge.core.names import natural
from loramerge.errors import BadOption, LoramergeError, UsageError
from loramerge.formats._format import FORMATS, Outline, open_adapter, outline_of, updates_of
from loramerge.workspace.results import new_folder
from loramerge.workspace.units import ADAPTER, read_table, write_table

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter
    from loramerge.core.lowrank import LowRank

Row = dict[str, Any]


@dataclass(frozen=True)
class Taken:
    """What was made: the folder, how many units in how many modules, of how many there were; and remarks."""

    path: Path
    units: int
    of: int
    modules: int
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> Row:
        """All but the remarks."""
        return {"path": self.path, "units": self.units, "of": self.of, "modules": self.modules}


def decompose(session: Session, ref: str, out: Path, *, force: bool = False, allow_pickle: bool = False) -> Taken:
    """Write an adapter's units as a table (norm, energy share, nearest unit elsewhere) beside its own files.

    "Elsewhere" are the workspace's other sources of the same base; one that cannot be opened is left
    out, with a note. Raises what the readers raise of the adapter itself.
    """
    from loramerge.engine.executors import one_thread

    opened = open_ref(session, ref, allow_pickle=allow_pickle)
    others, notes = _others(session, opened.adapter)
    target = session.workspace.root / out.expanduser()
    with new_folder(target, force) as folder, one_thread():
        (folder / ADAPTER).mkdir()
        write_copy(folder / ADAPTER, opened.adapter)
        count = write_table(folder, _rows(session, opened.adapter, others))
    return Taken(target, count, count, len(opened.adapter.modules), notes)


def assemble(session: Session, units: Path, out: Path, *, keep: str | None = None, force: bool = False) -> Taken:
    """An adapter of the units that are still in the table (and that `keep` takes), recorded as a result.

    All of them give back the adapter bit for bit, config and extras included. A module without a unit
    is left out. Raises BadOption for a condition that is none and for an output that cannot be a result,
    UsageError where nothing is left.
    """
    source = session.workspace.root / units.expanduser()
    target = (session.workspace.root / out.expanduser()).resolve()
    result.check_target(session, target, [(source.name, source)])
    rows = read_table(source)
    if keep is not None:
        test = condition(keep)
        rows = [row for row in rows if test(row)]
    adapter = open_adapter(source / ADAPTER, name=source.name)
    chosen = _chosen(adapter, rows)
    total = sum(spec.rank for spec in adapter.modules.values())
    count = sum(len(kept) for kept in chosen.values())
    if not count:
        raise UsageError("No unit is left to assemble.", where=str(source), hint="a weaker --keep")
    with new_folder(target, force) as folder:
        if count == total:
            write_copy(folder, adapter)
        else:
            _write_some(folder, adapter, chosen)
    result.record(session, target)
    return Taken(target, count, total, len(chosen))


def write_copy(folder: Path, adapter: Adapter) -> None:
    """An adapter as it is: the same tensors bit for bit, and a config that says the same."""
    write = FORMATS["peft"].write
    assert write is not None
    write(folder, outline_of(adapter), updates_of(adapter))


def _write_some(folder: Path, adapter: Adapter, chosen: Mapping[str, Sequence[int]]) -> None:
    if any(spec.dora for spec in adapter.modules.values()):
        raise LoramergeError(
            "Units of a DoRA adapter cannot be left out: its magnitudes belong to all of them together.",
            where=adapter.name,
        )
    modules = [replace(adapter.modules[name], rank=len(kept)) for name, kept in chosen.items()]
    outline: Outline = replace(outline_of(adapter), modules=modules, verbatim=False)
    write = FORMATS["peft"].write
    assert write is not None
    write(folder, outline, ((name, _some(adapter.load(name), kept)) for name, kept in chosen.items()))


def _some(update: LowRank, kept: Sequence[int]) -> LowRank:
    flat = update.plain()
    return replace(flat, b=flat.b[:, list(kept)], a=flat.a[list(kept)])


def _chosen(adapter: Adapter, rows: Sequence[Row]) -> dict[str, list[int]]:
    """Module → sorted units. Raises BadOption for a line that names a unit which is not there."""
    found: dict[str, set[int]] = {}
    for row in rows:
        spec = adapter.modules.get(row["module"])
        if spec is None or not 0 <= row["unit"] < spec.rank:
            raise BadOption(f"There is no unit {row['unit']} of {row['module']}.", where=adapter.name)
        found.setdefault(row["module"], set()).add(row["unit"])
    return {name: sorted(found[name]) for name in sorted(found, key=natural)}


def _others(session: Session, adapter: Adapter) -> tuple[list[Adapter], tuple[str, ...]]:
    """The workspace's other sources of this base, and what is to be said of those that cannot be opened."""
    others, notes = [], []
    for entry in session.workspace.sources():
        if entry.name == adapter.name or not same_base(adapter.base, entry.base or None):
            continue
        try:
            others.append(open_ref(session, entry.name).adapter)
        except LoramergeError as error:
            notes.append(f"{entry.name} is not compared with: {error.message}")
    return others, tuple(notes)


def _rows(session: Session, adapter: Adapter, others: Sequence[Adapter]) -> Iterator[Row]:
    from loramerge.linalg.units import pool

    names = sorted(adapter.modules, key=natural)
    for number, name in enumerate(names, 1):
        update = adapter.load(name).plain()
        sizes = pool([update]).sizes()
        total = float(sizes.square().sum())
        nearest = _nearest(adapter, others, name, update)
        for unit, size in enumerate(sizes.tolist()):
            share = size * size / total if total else 0.0
            row = {"module": name, "unit": unit, "norm": size, "share": share}
            yield row | ({"nearest": nearest[unit][0], "cosine": nearest[unit][1]} if nearest else {})
        session.progress("decompose", number, len(names), "modules")


def _nearest(adapter: Adapter, others: Sequence[Adapter], name: str, update: LowRank) -> list[tuple[str, float]]:
    """For each unit the most parallel unit of other adapters, `name#unit`, and the cosine of their products."""
    from loramerge.linalg.units import pool

    shape = adapter.modules[name].shape
    having = [other for other in others if name in other.modules and other.modules[name].shape == shape]
    if not having:
        return []
    loaded = [other.load(name).plain() for other in having]
    mine, theirs = pool([update]).normalized(), pool(loaded).normalized()
    cosine = (mine.a @ theirs.a.T) * (mine.b @ theirs.b.T)
    labels = [f"{other.name}#{unit}" for other, held in zip(having, loaded, strict=True) for unit in range(held.rank)]
    best = cosine.abs().argmax(dim=1).tolist()
    return [(labels[at], float(cosine[unit, at])) for unit, at in enumerate(best)]
