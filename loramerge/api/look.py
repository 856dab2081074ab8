"""Looking at an adapter: what its header says, and what its numbers say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.api.opening import open_ref
from loramerge.api.summary import span
from loramerge.core.catalog import canonical_base, family_of
from loramerge.core.names import natural
from loramerge.workspace.lock import Entry
from loramerge.workspace.references import resolve

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter, ModuleSpec
    from loramerge.hub.pull import Remote
    from loramerge.linalg.units import Units

Row = dict[str, Any]

_DUPLICATE = 1 - 1e-6


@dataclass(frozen=True)
class Shown:
    """Facts of a header: about the whole, per family, and oddities."""

    facts: Row
    families: list[Row]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """Measurements: per family, per module, and what deserves a look."""

    families: list[Row]
    modules: list[Row]
    notes: list[str]


def show(session: Session, ref: str, *, allow_pickle: bool = False) -> Shown:
    """What header and config say. Reads no tensor; of a remote adapter only the header is fetched."""
    found = resolve(ref, session.workspace)
    if not isinstance(found, Path | Entry):
        from loramerge.hub.pull import plan_pull

        return _shown_remote(plan_pull(session.hub, found, allow_pickle=True))
    opened = open_ref(session, ref, allow_pickle=allow_pickle)
    origin = {"repo": found.repo, "commit": found.commit} if isinstance(found, Entry) else {}
    return _shown(opened.adapter, {**origin, "path": str(opened.folder)})


def inspect(session: Session, ref: str, *, allow_pickle: bool = False) -> Inspection:
    """Measure every module: ranks, norms, spectrum, dead and duplicate units. Reads each tensor once."""
    from loramerge.engine.executors import one_thread

    opened = open_ref(session, ref, allow_pickle=allow_pickle)
    opened.verify()
    adapter = opened.adapter
    rows = []
    with one_thread():
        for number, name in enumerate(sorted(adapter.modules, key=natural), 1):
            rows.append(_measured(adapter, name))
            session.progress("inspect", number, len(adapter.modules), "modules")
    return Inspection(_families(rows, adapter.base), rows, [*adapter.notes, *_oddities(rows)])


def _shown_remote(remote: Remote) -> Shown:
    origin: Row = {"repo": remote.repo, "commit": remote.commit, "licence": remote.licence}
    origin |= {"gated": remote.gated, "private": remote.private, "files": len(remote.pinned.files)}
    if remote.adapter is None:
        note = "the weights are a pickle, which has no header: only --allow-pickle reads it"
        return Shown({"name": remote.repo, **origin, "size": remote.pinned.size}, [], (*remote.notes, note))
    return _shown(remote.adapter, origin, remote.notes)


def _shown(adapter: Adapter, origin: Row, notes: Sequence[str] = ()) -> Shown:
    specs = list(adapter.modules.values())
    kinds = [spec.kind for spec in adapter.extras.values()]
    facts: Row = {
        "name": adapter.name,
        "format": adapter.format,
        "base": adapter.base,
        "known_as": canonical_base(adapter.base),
        "task": adapter.config.get("task_type"),
        "modules": len(specs),
        "rank": span(sorted(spec.rank for spec in specs)),
        "scale": span(sorted(spec.scale for spec in specs)),
        "dtype": span([spec.dtype for spec in specs]),
        "bytes": adapter.nbytes,
        "rslora": any(spec.rslora for spec in specs),
        "dora": any(spec.dora for spec in specs),
        "extras": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        **origin,
    }
    return Shown(facts, _spec_rows(adapter), (*notes, *adapter.notes))


def _spec_rows(adapter: Adapter) -> list[Row]:
    grouped: dict[str, list[ModuleSpec]] = {}
    for spec in adapter.modules.values():
        grouped.setdefault(family_of(spec.name, adapter.base), []).append(spec)
    return [
        {
            "family": family,
            "modules": len(specs),
            "kind": span([spec.kind for spec in specs]),
            "shape": span([f"{spec.out}×{spec.in_}" for spec in specs]),
            "rank": span(sorted(spec.rank for spec in specs)),
            "scale": span(sorted(spec.scale for spec in specs)),
        }
        for family, specs in grouped.items()
    ]


def _measured(adapter: Adapter, name: str) -> Row:
    from loramerge.linalg.measure import effective_rank, numerical_rank, singular_values
    from loramerge.linalg.units import pool

    update = adapter.load(name)
    units = pool([update.plain()])
    spectrum = singular_values(update)
    norm = float(spectrum.norm())
    return {
        "module": name,
        "rank": update.rank,
        "numerical_rank": numerical_rank(spectrum, update.shape),
        "effective_rank": effective_rank(spectrum),
        "norm": norm,
        "top_share": float(spectrum[0] / norm) ** 2 if norm else 0.0,
        "dead": int((units.sizes() == 0).sum()),
        "duplicates": _duplicates(units),
        "spectrum": [float(value) for value in spectrum],
    }


def _duplicates(units: Units) -> int:
    """Units whose product is parallel to an earlier unit's."""
    ones = units.take(units.sizes() > 0).normalized()
    cosine = ((ones.a @ ones.a.T) * (ones.b @ ones.b.T)).abs().tril(-1)
    return int((cosine > _DUPLICATE).any(dim=1).sum()) if len(ones) else 0


def _families(rows: Sequence[Row], base: str | None) -> list[Row]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(family_of(row["module"], base), []).append(row)
    return [
        {
            "family": family,
            "modules": len(found),
            "rank": span(sorted(row["rank"] for row in found)),
            "numerical_rank": span(sorted(row["numerical_rank"] for row in found)),
            "effective_rank": sum(row["effective_rank"] for row in found) / len(found),
            "norm": sum(row["norm"] ** 2 for row in found) ** 0.5,
            "top_share": sum(row["top_share"] for row in found) / len(found),
            "dead": sum(row["dead"] for row in found),
            "duplicates": sum(row["duplicates"] for row in found),
        }
        for family, found in grouped.items()
    ]


def _oddities(rows: Sequence[Row]) -> list[str]:
    norms = sorted(row["norm"] for row in rows)
    middle = norms[len(norms) // 2] if norms else 0.0
    said = []
    for row in rows:
        if row["norm"] == 0:
            said.append(f"{row['module']}: the update is zero, it was never trained")
        elif middle and row["norm"] > 100 * middle:
            said.append(f"{row['module']}: its norm is {row['norm'] / middle:.0f} times the median module's")
    return said if len(said) <= 5 else [*said[:5], f"and {len(said) - 5} more modules likewise"]
