"""What a report says of adapters and its record does not: spectra, likeness, and where units lie.

Modules are read one at a time, and all is computed from factors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from loramerge.api.lineage import at_hand
from loramerge.api.opening import Opened, distinct
from loramerge.core.catalog import family_of
from loramerge.core.names import natural
from loramerge.core.provenance import changed
from loramerge.errors import LoramergeError
from loramerge.formats._dora import has_dora
from loramerge.formats._format import open_adapter

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.api.session import Session
    from loramerge.core.adapter import Adapter
    from loramerge.core.provenance import Parent
    from loramerge.linalg.cluster import Clusters
    from loramerge.linalg.units import Units
    from loramerge.workspace.results import Record

MAPS = 4
"""Families of which the units are drawn: those with the largest results."""
DRAWN = 1000
"""Units of a map; of more the largest are drawn."""


@dataclass(frozen=True)
class UnitMap:
    """The units of one module in the plane that holds most of their variance.

    `places` are (owner, x, y, size from 0 to 1): the owner is the number of an adapter. `shares` are the two
    axes' shares of the variance. `centres` are (x, y, members) of clusters, `links` go from units to centres.
    """

    module: str
    family: str
    places: Sequence[tuple[int, float, float, float]]
    shares: tuple[float, float]
    centres: Sequence[tuple[float, float, int]] = ()
    links: Sequence[tuple[float, float, float, float]] = ()
    left_out: int = 0
    products: bool = True


@dataclass(frozen=True)
class Measured:
    """`names` are the parents that could be read, then the result. Spectra by family are one list a name.

    A spectrum's j-th number is the root mean square of the j-th singular values of the family's modules.
    `cosine` is that of the updates, a row and a column a name; NaN where an update is zero.
    """

    names: Sequence[str]
    spectra: Mapping[str, Sequence[Sequence[float]]]
    cosine: Sequence[Sequence[float]]
    maps: Sequence[UnitMap]
    notes: Sequence[str] = ()


def measure(session: Session, record: Record, result: Opened) -> Measured:
    """Measure a result beside those of its parents that are on this machine with the bytes of the record.

    Raises what reading the result raises; what is wrong with a parent is a note.
    """
    from loramerge.engine.executors import one_thread

    opened, places, notes = _parents(session, record.lineage.parents)
    names = distinct([*(one.adapter.name for one in opened), result.adapter.name])
    adapters = [replace(one.adapter, name=name) for one, name in zip([*opened, result], names, strict=True)]
    with one_thread():
        spectra, cosine = _survey(session, adapters)
        maps, told = _maps(record, adapters, places)
    return Measured(names, spectra, cosine, maps, [*notes, *_dora(adapters), *told])


def _parents(session: Session, parents: Sequence[Parent]) -> tuple[list[Opened], list[int], list[str]]:
    """The parents that can be read, which of the record's they are, and what is to be said of the others."""
    opened, places, notes = [], [], []
    for place, parent in enumerate(parents):
        try:
            path = at_hand(session, parent)
            if path is None or not path.exists():
                raise LoramergeError("it is not on this machine")
            folder = path if path.is_dir() else path.parent
            if differences := changed(folder, parent.files) or (["no hash is recorded"] if not parent.files else []):
                raise LoramergeError(f"it is not known to be what was merged ({differences[0]})")
            opened.append(Opened(open_adapter(path, name=parent.name), folder, parent))
            places.append(place)
        except (LoramergeError, OSError) as error:
            told = getattr(error, "message", str(error)).rstrip(".")
            notes.append(f"the spectra, units and likeness of {parent.name} are not shown: {told}")
    return opened, places, notes


def _survey(session: Session, adapters: Sequence[Adapter]) -> tuple[dict[str, list[list[float]]], list[list[float]]]:
    """The spectra by family and the cosines, each module read once."""
    import torch

    from loramerge.linalg.measure import gram, singular_values

    squares: dict[str, list[list[float]]] = {}
    seen: Counter[tuple[str, int]] = Counter()
    inner = torch.zeros(len(adapters), len(adapters), dtype=torch.float64)
    names = sorted({name for adapter in adapters for name in adapter.modules}, key=natural)
    for number, name in enumerate(names, 1):
        loaded = {at: adapter.load(name) for at, adapter in enumerate(adapters) if name in adapter.modules}
        for at, update in loaded.items():
            family = family_of(name, adapters[at].base)
            rows = squares.setdefault(family, [[] for _ in adapters])
            rows[at] = _added(rows[at], singular_values(update).square().tolist())
            seen[family, at] += 1
        for shape in {update.shape for update in loaded.values()}:
            members = [at for at, update in loaded.items() if update.shape == shape]
            inner[torch.tensor(members)[:, None], members] += gram([loaded[at] for at in members])
        session.progress("report", number, len(names), "modules")
    spectra = {
        family: [[(square / seen[family, at]) ** 0.5 for square in row] for at, row in enumerate(rows)]
        for family, rows in squares.items()
    }
    sizes = inner.diagonal().sqrt()
    return spectra, (inner / (sizes[:, None] * sizes)).clamp(-1, 1).tolist()


def _added(total: Sequence[float], part: Sequence[float]) -> list[float]:
    return [one + other for one, other in zip_longest(total, part, fillvalue=0.0)]


def _dora(adapters: Sequence[Adapter]) -> list[str]:
    names = [adapter.name for adapter in adapters if has_dora(adapter)]
    return [f"of {', '.join(names)} the factors are measured, without the DoRA magnitudes"] if names else []


def _maps(record: Record, adapters: Sequence[Adapter], places: Sequence[int]) -> tuple[list[UnitMap], list[str]]:
    """A map of each of a few families: of that module which has the largest update in the result."""
    from loramerge.linalg.measure import norm

    result = adapters[-1]
    largest: dict[str, tuple[float, str]] = {}
    for name in sorted(result.modules, key=natural):
        size, family = norm(result.load(name)), family_of(name, result.base)
        largest[family] = max(largest.get(family, (-1.0, "")), (size, name), key=lambda found: found[0])
    chosen = sorted(largest.items(), key=lambda item: -item[1][0])[:MAPS]
    made, notes = [], []
    for family, (_, module) in chosen:
        try:
            made.append(_map(record, adapters, places, module, family))
        except LoramergeError as error:
            notes.append(f"the units of {module} are not shown: {error.message}")
    if len(largest) > MAPS:
        notes.append(f"units are drawn of {MAPS} of {len(largest)} families, those with the largest results")
    return made, notes


def _map(record: Record, adapters: Sequence[Adapter], places: Sequence[int], module: str, family: str) -> UnitMap:
    """Of a LEGO merge the units as it clustered them; of any other the directions of all units' products."""
    import torch

    from loramerge.linalg.units import pool

    owners = [at for at, adapter in enumerate(adapters) if module in adapter.modules]
    shape = adapters[-1].modules[module].shape
    owners = [at for at in owners if adapters[at].modules[module].shape == shape]
    if found := _clustered(record, adapters, places, module):
        units, compared, clusters, product = found
        parents = [at for at in owners if at < len(adapters) - 1]
        return _projected(compared, units.sizes(), parents, module, family, clusters, product=product)
    units = pool([adapters[at].load(module).plain() for at in owners])
    largest = units.sizes().argsort(descending=True, stable=True)[:DRAWN]
    kept = units.take(torch.sort(largest).values)
    drawn = _projected(kept.normalized(), kept.sizes(), owners, module, family)
    return replace(drawn, left_out=len(units) - len(kept))


def _clustered(
    record: Record, adapters: Sequence[Adapter], places: Sequence[int], module: str
) -> tuple[Units, Units, Clusters, bool] | None:
    """The units of a LEGO merge, as `lego` compares them too, its clusters, and whether products are compared.

    All is made again; None for another method's merge, and where that does not give what is recorded.
    """
    from loramerge.methods._method import MERGE, Context
    from loramerge.methods._weighing import weighted
    from loramerge.methods.merge import lego
    from loramerge.options import parse

    lineage, said = record.lineage, record.report.get("modules", {})
    whole = len(places) == len(lineage.parents)
    if lineage.method != "lego" or record.recipe.get("modules") or not whole or not isinstance(said, Mapping):
        return None
    having = [at for at in range(len(places)) if module in adapters[at].modules]
    options: lego.Options = parse(MERGE["lego"].options, lineage.options)
    context = Context(module, tuple(lineage.parents[places[at]].weight for at in having), lineage.seed)
    updates = weighted([adapters[at].load(module) for at in having], context)
    units, clusters = lego.clusters(updates, options, context)
    if clusters is None or len(units) > DRAWN:
        return None
    sizes = sorted((int(size) for size in _counts(clusters)), reverse=True)
    row = said.get(module)
    if not isinstance(row, Mapping) or row.get("sizes") != sizes:
        return None
    compared = units.normalized() if options.features == "normalized" else units
    return units, compared, clusters, options.features == "product"


def _counts(clusters: Clusters) -> list[int]:
    counted = Counter(clusters.labels.tolist())
    return [counted[c] for c in range(clusters.k)]


def _projected(
    units: Units,
    sizes: Tensor,
    owners: Sequence[int],
    module: str,
    family: str,
    clusters: Clusters | None = None,
    *,
    product: bool = True,
) -> UnitMap:
    gram = units.gram(product=product)
    signs = None if clusters is None else units.a.new_tensor(clusters.signs)
    if signs is not None:
        gram = gram * signs[:, None] * signs
    plane, shares = principal_plane(gram)
    top = float(sizes.max()) or 1.0
    xy = plane.tolist()
    places = [
        (owners[owner], x, y, size / top)
        for owner, (x, y), size in zip(units.owner.tolist(), xy, sizes.tolist(), strict=True)
    ]
    found = UnitMap(module, family, places, shares, products=product)
    return found if clusters is None else replace(found, **_centred(xy, clusters))


def _centred(xy: Sequence[Sequence[float]], clusters: Clusters) -> dict[str, Any]:
    """The clusters' means (a projection of a mean is the mean of projections), and the lines to them."""
    counts, labels = _counts(clusters), clusters.labels.tolist()
    sums = [[0.0, 0.0] for _ in counts]
    for (x, y), c in zip(xy, labels, strict=True):
        sums[c][0] += x / counts[c]
        sums[c][1] += y / counts[c]
    links = [(x, y, *sums[c]) for (x, y), c in zip(xy, labels, strict=True)]
    return {"centres": [(x, y, count) for (x, y), count in zip(sums, counts, strict=True)], "links": links}


def principal_plane(gram: Tensor) -> tuple[Tensor, tuple[float, float]]:
    """(N, 2) places in the plane of most variance, from inner products (N, N), and the axes' shares of it.

    Classical scaling: the eigenvectors of the centred Gram. Signs are such that the largest entry is positive.
    """
    import torch

    centred = gram - gram.mean(0) - gram.mean(1, keepdim=True) + gram.mean()
    values, vectors = torch.linalg.eigh((centred + centred.T) / 2)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    total = float(values.sum())
    plane = gram.new_zeros(len(gram), 2)
    for axis in range(min(2, len(gram))):
        column = vectors[:, axis]
        plane[:, axis] = column * values[axis].sqrt() * column[column.abs().argmax()].sign()
    first, second = ([float(v) / total if total else 0.0 for v in values[:2]] + [0.0, 0.0])[:2]
    return plane, (first, second)
