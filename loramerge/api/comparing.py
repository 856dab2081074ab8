"""How alike adapters are, pair by pair: over all modules, and per family of modules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.api import _plot, basing, opening
from loramerge.api.making import recipe_of
from loramerge.api.prepare import common_base
from loramerge.core.catalog import canonical_base, family_of
from loramerge.core.names import natural
from loramerge.core.provenance import finite
from loramerge.engine.executors import ordered_map
from loramerge.engine.plan import check_shapes, default_workers
from loramerge.errors import UsageError
from loramerge.formats._dora import has_dora

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.api.opening import Opened
    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter
    from loramerge.linalg.compare import Floats, Sums
    from loramerge.recipe import Recipe

Row = dict[str, Any]

SHOWN = ("cosine", "row_overlap", "column_overlap", "sign_conflict", "weighted_conflict", "norm_ratio")
"""The figures of a row; those of `linalg.compare.figures` that explain them are in `data` only."""


@dataclass(frozen=True)
class Comparison:
    """What was measured. Matrices are (n, n) in the order of `adapters`, NaN where there is nothing to compare.

    `adapters` are rows: name, base, rank, modules, norm. `overall` and the values of `families` are the
    figures of `loramerge.linalg.compare`; `modules` counts each family's modules.
    """

    adapters: Sequence[Row]
    overall: Sums
    families: Mapping[str, Sums]
    modules: Counter[str]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """The adapters' names."""
        return [row["name"] for row in self.adapters]

    @cached_property
    def pairs(self) -> list[Row]:
        """One row per pair, over all modules; the most alike first."""
        values = {name: matrix.tolist() for name, matrix in _shown(self.overall).items()}
        rows = [
            {"pair": f"{self.names[i]} {self.names[j]}", **{name: values[name][i][j] for name in SHOWN}}
            for i, j in combinations(range(len(self.adapters)), 2)
        ]
        return [finite(row) for row in sorted(rows, key=lambda row: -row["cosine"])]

    @property
    def family_rows(self) -> list[Row]:
        """One row for all modules, one per family: each figure's mean over the pairs that have it there."""
        rows = [("all", self.modules.total(), self.overall)]
        rows += [(family, self.modules[family], figures) for family, figures in self.families.items()]
        return [
            finite({"family": family, "modules": count, **{k: mean(v) for k, v in _shown(found).items()}})
            for family, count, found in rows
        ]

    @property
    def data(self) -> Row:
        """Everything, as plain JSON values; matrices as lists of rows."""
        return {
            "adapters": list(self.adapters),
            "overall": _plain(self.overall),
            "families": [
                {"family": family, "modules": self.modules[family], **_plain(figures)}
                for family, figures in self.families.items()
            ],
            "notes": list(self.notes),
        }

    def plot(self, path: Path) -> None:
        """Write a PNG of the cosines, overlaps and sign conflicts of all pairs, like beside like."""
        _plot.heatmaps(path, self.names, {name: self.overall[name] for name in _plot.PANELS}, self._tree)

    def dendrogram(self, path: Path) -> None:
        """Write a PNG of the tree that average linkage makes of the distances 1 − cosine, coloured by base."""
        _plot.dendrogram(path, self.names, [row["base"] or "unknown" for row in self.adapters], self._tree)

    @cached_property
    def _tree(self) -> Floats:
        from loramerge.linalg.compare import linkage

        return linkage(self.overall["cosine"])


def compare(
    session: Session,
    refs: Sequence[str] = (),
    *,
    plot: Path | None = None,
    dendrogram: Path | None = None,
    **what: Any,
) -> Comparison:
    """Compare adapters (without `refs`: the sources of the workspace), from their factors alone.

    `what` is as for `recipe_of` (bases, allow_base_mismatch, allow_pickle). A module that one of a pair
    lacks is a zero update of it. Adapters of different bases, or that disagree about a module's shape, raise
    BaseMismatch and ShapeMismatch; with `allow_base_mismatch` only modules of one name and shape are
    compared, and what nobody else has counts in the norms alone, so that adapters which share nothing have
    cosine 0. Raises UsageError below two adapters. `plot` and `dendrogram` are PNG files to write; what is
    wrong with them is said before the work.
    """
    targets = [
        _plot.target(session.workspace.root / path.expanduser()) if path else None for path in (plot, dendrogram)
    ]
    recipe = recipe_of(session, refs, **what)
    found = measure(session, recipe, open_all(session, recipe))
    for path, draw in zip(targets, (found.plot, found.dendrogram), strict=True):
        if path:
            draw(path)
    return found


def open_all(session: Session, recipe: Recipe) -> list[Opened]:
    """The adapters to compare, hashes verified. Raises UsageError below two, and what opening them raises."""
    opened = opening.open_all(session, recipe.adapters, allow_pickle=recipe.allow_pickle)
    if len(opened) < 2:
        raise UsageError("One adapter cannot be compared.", where=opened[0].adapter.name, hint="name two or more")
    for one in opened:
        one.verify()
    return opened


def measure(session: Session, recipe: Recipe, opened: Sequence[Opened]) -> Comparison:
    """Compare open adapters; reads each tensor once. Raises as `compare` does."""
    from loramerge.linalg.compare import add, figures, norms

    base, notes = common_base([one.adapter for one in opened], recipe)
    opened, _, said = basing.attach(session, recipe, opened, base)
    adapters = [one.adapter for one in opened]
    groups = _groups(adapters, apart=recipe.allow_base_mismatch)
    work = ordered_map(
        _likeness, groups, tuple(adapters), kind=session.executor, workers=session.workers or default_workers()
    )
    overall: Sums = {}
    families: dict[str, Sums] = {}
    modules: Counter[str] = Counter()
    for number, (group, sums) in enumerate(zip(groups, work, strict=True), 1):
        for total in (overall, families.setdefault(group.family, {})):
            add(total, sums, group.members, len(adapters))
        modules[group.family] += 1
        session.progress("compare", number, len(groups), "modules")
    found = figures(overall)
    return Comparison(
        [_row(adapter, norm) for adapter, norm in zip(adapters, norms(overall).tolist(), strict=True)],
        found,
        {family: figures(sums) for family, sums in families.items()},
        modules,
        (*notes, *said, *_apart(groups), *_notes(adapters, found)),
    )


def mean(figure: Tensor) -> float:
    """The mean of a figure over the pairs that have it; NaN where none has."""
    import torch

    n = len(figure)
    rows, columns = torch.triu_indices(n, n, offset=1)
    values = figure[rows, columns]
    return float(values[values.isfinite()].mean())


@dataclass(frozen=True)
class _Group:
    """The adapters that have one module in one shape."""

    module: str
    family: str
    members: tuple[int, ...]


def _groups(adapters: Sequence[Adapter], *, apart: bool) -> list[_Group]:
    """The union of the modules, in natural order; those of one name and several shapes `apart`, or an error."""
    found: dict[str, dict[Any, list[int]]] = {}
    for index, adapter in enumerate(adapters):
        for name, spec in adapter.modules.items():
            found.setdefault(name, {}).setdefault((spec.kind, spec.kernel, spec.shape), []).append(index)
    groups = []
    for name in sorted(found, key=natural):
        if not apart:
            owners = [adapters[i] for i in sorted(i for members in found[name].values() for i in members)]
            check_shapes(name, [owner.modules[name] for owner in owners], [owner.name for owner in owners])
        for members in found[name].values():
            groups.append(_Group(name, family_of(name, adapters[members[0]].base), tuple(members)))
    if not groups:
        raise UsageError("There is no LoRA module to compare.", hint="loramerge show NAME")
    return groups


def _apart(groups: Sequence[_Group]) -> list[str]:
    several = [name for name, count in Counter(group.module for group in groups).items() if count > 1]
    if not several:
        return []
    return [f"{len(several)} modules ({several[0]} …) have several shapes, and are not compared across them"]


def _likeness(group: _Group, adapters: Sequence[Adapter]) -> Sums:
    from loramerge.linalg.compare import likeness

    return likeness([adapters[i].load(group.module) for i in group.members])


def _row(adapter: Adapter, norm: float) -> Row:
    base = canonical_base(adapter.base)
    return {"name": adapter.name, "base": base, "rank": adapter.rank, "modules": len(adapter.modules), "norm": norm}


def _notes(adapters: Sequence[Adapter], overall: Sums) -> list[str]:
    """What a reader of the figures should know."""
    from loramerge.linalg.compare import SAMPLE

    said = []
    if dora := [a.name for a in adapters if has_dora(a)]:
        said.append(f"of {', '.join(dora)} the factors are compared; the DoRA magnitudes are left out")
    if zero := [a.name for a, size in zip(adapters, overall["cosine"].diagonal().tolist(), strict=True) if not size]:
        said.append(f"{', '.join(zero)}: every update is zero")
    pairs = len(adapters) * (len(adapters) - 1) // 2
    if alone := int(overall["row_overlap"].isnan().triu(1).sum()):
        said.append(f"{alone} of {pairs} pairs share no update that could be compared: their cosine is 0")
    errors = [float(overall[name].nan_to_num(0.0).max()) for name in ("sign_conflict_error", "weighted_conflict_error")]
    if any(errors):
        said.append(
            f"sign conflicts are of {SAMPLE} entries a module: standard error up to {errors[0]:.3f}"
            f" (weighted: {errors[1]:.3f})"
        )
    return said


def _shown(figures: Sums) -> Sums:
    """The figures of a row; of the two norm ratios of a pair the one that is not below 1."""
    return {name: figures[name] for name in SHOWN} | {
        "norm_ratio": figures["norm_ratio"].maximum(figures["norm_ratio"].T)
    }


def _plain(figures: Sums) -> Row:
    return {name: finite(matrix.tolist()) for name, matrix in figures.items()}
