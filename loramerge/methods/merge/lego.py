"""LoRA-LEGO: pool the rank-one units of all adapters, cluster them, keep the centroids.

Per module, with unit j of adapter i the pair m = (a, b) of row j of √|wᵢsᵢ| Aᵢ and column j of
±√|wᵢsᵢ| Bᵢ (the sign of wᵢsᵢ goes into b):

1. dead units, whose product b aᵀ is zero, are dropped; the gauge settles how each is written down
2. k-means groups the others into k clusters C_c with means μ_c = (1/|C_c|) Σ m
3. parameter reweighting undoes that means are shorter than members: μ_c ← μ_c · mean‖m‖ / ‖μ_c‖,
   the norm taken over both halves together
4. output reweighting undoes that more units make a larger output: b ← b · √(r/k)
5. the result is ΔW = Σ_c b_c a_cᵀ, of rank k, its units balanced (|a_c| = |b_c|)

Options
    k         units kept. A module with no more than k of them keeps them all, unclustered
    reweight  both | parameters (3 alone) | output (4 alone) | none
    norm      inf | 2: the norm in 3
    features  what k-means compares. raw: [a; b]. normalized: [a/|a|; b/|b|], means stay those of
              (a, b). product: b aᵀ, where (a, b) and (−a, −b) are one point; the centroid is the best
              rank-one approximation of the cluster's mean product, and 3 compares norms of products
              (‖a‖‖b‖)
    gauge     raw: units as stored. balanced: each scaled to |a| = |b|. signed: balanced, and k-means
              groups lines, so that (a, b) and (−a, −b) coincide and each member is turned to its mean
    ref_rank  the r in √(r/k): mean, max or min of the adapters' numbers of living units, or a number
    n_init    starts of k-means; the best is kept. Small problems take up to ten times as many
    units     clustered: as above. selected: nothing is averaged, see below
    balance   of selected units, in [0, 1]: 0 takes the largest, 1 those that are most of their adapter

`units=selected` is for adapters that have little in common, whose units no centroid stands for. Units are then
the singular triplets of the updates (no gauge is left), turned apart as in the method `tsv`: U⊥ S V⊥ᵀ. k of
these N are kept, those with the largest sᵢⱼ / ‖ΔWᵢ‖^balance. Parameter reweighting gives the result the length
that all N have together, output reweighting is √(r/N): what 4 is where k is all units, since all N had their part
in the turning. With balance=0 and reweight=none it is `tsv` cut to rank k. Options of means and k-means (norm,
features, gauge, n_init) do not apply. Not part of the publication.

`--preset paper` is raw features, raw gauge, norm inf, both reweightings, ref_rank mean, n_init 10.

Gauge: depends on how the factors are written down, by the nature of units; a rotation of an adapter's
units is another input. Sign and scale of single units do not matter under `gauge=signed` (sign alone:
features=product). Selected units depend on the updates alone; where shares are equal, which of them are kept is
not determined. The order of adapters and of units never matters.

Laws, of clustered units: k = all units with reweight=none is Σ wᵢΔWᵢ exactly, with reweight=output √(r/N) times it; n
copies of one adapter, permuted, at k = r give that adapter back. One adapter alone is pruned.
Units that coincide are never parted, so the k used can be below the k asked for; √(r/k) takes the one
used. Weights multiply units and are 1 unless said; in clustering all units count the same. LoRA's own
biases are summed: Σ wᵢ sᵢ biasᵢ.

What differs from the publication: scales and weights are folded in; ranks may differ; k-means ends
with exchanging single units, so its inertia is no higher than Lloyd's; which norm the paper means in 3
is not certain, inf is what both public reproductions take.

The report of a module holds: units (living), dead, k, all_kept (no more than k units), sizes (units of
each cluster, largest first), sources (distinct adapters in each, same order), mixing (entropy of the
adapters in a cluster over log n, mean over units: 0 each cluster is one adapter's, 1 all are evenly
mixed), inertia, explained (1 − inertia / Σ‖features‖²), energy (the squared cosine between the result
and Σ wᵢΔWᵢ: the part of the sum's energy along the result, however long it is), cancelled (clusters
whose mean is zero, so that there is no length to restore). Of selected units: units, dead, k, all_kept, energy, and
kept (how many directions each adapter has in the result, in their order).

Cost: O((out + in) N² + n_init · N² k) time, N = Σ rᵢ, O((out + in) N + N²) memory; above 8,192 units
scikit-learn's MiniBatchKMeans clusters the features (products through 1,024 landmarks, signs settled by
each unit's largest entry).

Source: Zhao et al. 2024 (ICLR 2025), https://arxiv.org/abs/2409.16167
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from loramerge.errors import BadOption
from loramerge.methods import _inner, _weighing
from loramerge.methods._method import Context, Method, Outcome

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.cluster import Clusters
    from loramerge.linalg.joint import Joint
    from loramerge.linalg.units import Units

_CANCELLED = 1e-6
"""A mean shorter than this share of its members is what float32 leaves of zero."""


@dataclass(frozen=True)
class Options:
    """As the module's documentation says."""

    k: int = 8
    reweight: Literal["both", "parameters", "output", "none"] = "both"
    norm: Literal["inf", "2"] = "inf"
    features: Literal["raw", "normalized", "product"] = "raw"
    gauge: Literal["raw", "balanced", "signed"] = "raw"
    ref_rank: Literal["mean", "max", "min"] | int = "mean"
    n_init: int = 10
    units: Literal["clustered", "selected"] = "clustered"
    balance: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.balance <= 1:
            raise BadOption(f"balance is {self.balance:g}, outside [0, 1].", hint="0.9")
        for name, value in (("k", self.k), ("n_init", self.n_init), ("ref_rank", self.ref_rank)):
            if isinstance(value, int) and value < 1:
                raise BadOption(f"{name} is {value}, below 1.", hint="1 or more")


PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": MappingProxyType(
            {
                "features": "raw",
                "gauge": "raw",
                "norm": "inf",
                "reweight": "both",
                "ref_rank": "mean",
                "n_init": 10,
                "units": "clustered",
                "balance": 0.9,
            }
        )
    }
)


def lego(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    """k units made of those of all updates, in float64, and what the module's documentation lists."""
    return _selected(updates, options, context) if options.units == "selected" else _grouped(updates, options, context)


def _grouped(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    from loramerge.linalg.units import nothing, total_bias

    weighted = _weighing.weighted(updates, context)
    living, found = clusters(weighted, options, context)
    counts = {"units": len(living), "dead": sum(update.plain().rank for update in weighted) - len(living)}
    if found is None:
        return Outcome([replace(nothing(updates[0].shape), bias=total_bias(weighted))], {**counts, "k": 0})
    centroids, cancelled = _centroids(living, found, options)
    delta = replace(centroids.balanced().lowrank(), bias=total_bias(weighted))
    return Outcome([delta], {**counts, **_report(delta, weighted, living, found, options), "cancelled": cancelled})


def clusters(weighted: Sequence[LowRank], options: Options, context: Context) -> tuple[Units, Clusters | None]:
    """The living units of weighted updates as the gauge writes them, and their clusters; None where all are dead."""
    from loramerge.linalg.units import pool

    units = pool(weighted)
    living = _settled(units.take(units.sizes() > 0), options.gauge)
    seed = zlib.crc32(f"{context.module}:{context.seed}".encode())
    return living, _clustered(living, options, seed) if len(living) else None


def _selected(updates: Sequence[LowRank], options: Options, context: Context) -> Outcome:
    from loramerge.linalg.units import pool
    from loramerge.methods._reassembly import select

    def rule(found: Joint) -> tuple[LowRank, Mapping[str, Any]]:
        chosen = select(found, context.weights, options.k, options.balance)
        living = sum(chosen.ranks)
        factor = chosen.shortened if options.reweight in ("both", "parameters") else 1.0
        if options.reweight in ("both", "output"):
            factor *= (_reference(chosen.ranks, options.ref_rank) / living) ** 0.5
        counts = {"k": chosen.core.rank, "all_kept": options.k >= living, "kept": list(chosen.left)}
        return chosen.core.times(factor), {"units": living, **counts}

    outcome = _inner.merged(updates, context, rule)
    weighted = _weighing.weighted(updates, context)
    units = pool([replace(outcome.delta, bias=None)]).balanced()
    total = sum(update.plain().rank for update in weighted)
    report = {"units": 0, "k": 0, **outcome.report}
    if report["units"]:
        report["energy"] = _energy(units.lowrank(), pool(weighted), weighted)
    delta = replace(units.lowrank(), bias=outcome.delta.bias)
    return Outcome([delta], {**report, "dead": total - report["units"]})


def _settled(units: Units, gauge: str) -> Units:
    """The units as the gauge writes them, in an order that depends on their numbers only."""
    if gauge != "raw":
        units = units.balanced()
    return (units.signed() if gauge == "signed" else units).ordered()


def _clustered(units: Units, options: Options, seed: int) -> Clusters:
    from loramerge.linalg import cluster

    if options.k >= len(units):
        return cluster.singletons(len(units))
    compared = units.normalized() if options.features == "normalized" else units
    product = options.features == "product"
    if len(units) > cluster.GRAM_LIMIT:
        rows = compared.landmarked() if product else compared.rows()
        return cluster.minibatch(rows.cpu().numpy(), options.k, n_init=options.n_init, seed=seed)
    return cluster.kmeans(
        compared.gram(product=product).cpu().numpy(),
        options.k,
        n_init=options.n_init,
        seed=seed,
        signed=options.gauge == "signed" and not product,
    )


def _centroids(units: Units, found: Clusters, options: Options) -> tuple[Units, int]:
    """The clusters' means, reweighted as asked, and how many of them are zero."""
    import torch

    labels = torch.from_numpy(found.labels).to(units.a.device)
    if found.k == len(units):
        means = units
    elif options.features == "product":
        means = _product_means(units, labels, found.k)
    else:
        means = _signed_means(units, labels, torch.from_numpy(found.signs).to(units.a), found.k)
    members = _shares(labels, found.k) @ _lengths(units, options) if found.k < len(units) else _lengths(units, options)
    lengths = _lengths(means, options)
    gone = lengths <= _CANCELLED * members
    if options.reweight in ("both", "parameters"):
        # What is restored is the length of [a; b], or that of b aᵀ, into which the factor goes twice.
        factor = (members / lengths.where(~gone, 1.0)).where(~gone, 1.0)[:, None]
        factor = factor.sqrt() if options.features == "product" else factor
        means = replace(means, a=means.a * factor, b=means.b * factor)
    if options.reweight in ("both", "output"):
        means = replace(
            means, b=means.b * (_reference(units.owner.bincount().tolist(), options.ref_rank) / found.k) ** 0.5
        )
    return means, int(gone.sum())


def _shares(labels: Tensor, k: int) -> Tensor:
    """(k, N) with 1/|C_c| where a unit is in a cluster, so that a product with it takes means."""
    import torch

    member = torch.nn.functional.one_hot(labels, k).T.to(torch.float64)
    shares: Tensor = member / member.sum(1, keepdim=True)
    return shares


def _signed_means(units: Units, labels: Tensor, signs: Tensor, k: int) -> Units:
    shares = _shares(labels, k) * signs
    return replace(units, a=shares @ units.a, b=shares @ units.b)


def _product_means(units: Units, labels: Tensor, k: int) -> Units:
    """The best rank-one approximation of each cluster's mean product; a lone unit stays as it is."""
    import torch

    from loramerge.linalg.truncate import truncate_sum

    means = []
    for c in range(k):
        members = units.take(labels == c)
        mean = members.lowrank().times(1 / len(members))
        means.append(mean.folded() if len(members) == 1 else truncate_sum([mean], 1).delta)
    return replace(units, a=torch.cat([m.a for m in means]), b=torch.cat([m.b for m in means], dim=1).T)


def _lengths(units: Units, options: Options) -> Tensor:
    """(N,) the norm of each [a; b], or of each b aᵀ where products are what is compared."""
    import torch

    a, b = (torch.linalg.vector_norm(half, ord=float(options.norm), dim=1) for half in (units.a, units.b))
    if options.features == "product":
        return a * b  # type: ignore[no-any-return]
    return torch.maximum(a, b) if options.norm == "inf" else torch.hypot(a, b)


def _reference(ranks: Sequence[int], ref_rank: str | int) -> float:
    """The r of √(r/k), from the adapters that have a living unit at all."""
    if isinstance(ref_rank, int):
        return ref_rank
    living = [rank for rank in ranks if rank]
    return sum(living) / len(living) if ref_rank == "mean" else float({"max": max, "min": min}[ref_rank](living))


def _report(
    delta: LowRank, weighted: Sequence[LowRank], units: Units, found: Clusters, options: Options
) -> dict[str, Any]:
    import torch

    held = torch.zeros(found.k, len(weighted), dtype=torch.float64)
    held.index_put_(
        (torch.from_numpy(found.labels), units.owner.cpu()), torch.ones(len(units)).double(), accumulate=True
    )
    sizes = held.sum(1)
    order = sizes.argsort(descending=True, stable=True)
    entropy = torch.special.entr(held / sizes[:, None]).sum(1)
    return {
        "k": found.k,
        "all_kept": options.k >= len(units),
        "sizes": sizes[order].int().tolist(),
        "sources": (held > 0).sum(1)[order].tolist(),
        "mixing": float((sizes * entropy).sum()) / len(units) / log(max(2, len(weighted))),
        "inertia": found.inertia,
        "explained": found.explained,
        "energy": _energy(delta, units, weighted),
    }


def _energy(delta: LowRank, units: Units, weighted: Sequence[LowRank]) -> float:
    """⟨ΔW, S⟩² / (‖ΔW‖² ‖S‖²) with S = Σ wᵢΔWᵢ; 0 where either is zero."""
    from loramerge.linalg.measure import gram, inner, norm

    size = norm(delta) ** 2 * float(gram(weighted).sum())
    return min(1.0, inner(delta, units.lowrank()) ** 2 / size) if size > 0 else 0.0


def _check(options: Sequence[Options], ranks: Sequence[Sequence[int]]) -> None:
    """Refuses a k above the units of every module: nothing would be clustered."""
    most = max(sum(module) for module in ranks)
    if all(chosen.k > sum(module) for chosen, module in zip(options, ranks, strict=True)):
        least = min(chosen.k for chosen in options)
        raise BadOption(
            f"k is {least}, but no module has more than {most} units.", hint=f"--k {most}, or merge --method cat"
        )


METHOD = Method(
    lego,
    Options,
    source="https://arxiv.org/abs/2409.16167",
    copies=8,
    rank="own",
    weights="sum",
    bound=lambda options, ranks: min(options.k, sum(ranks)),
    check=_check,
    label=lambda options: str(options.k),
    presets=PRESETS,
    breaks={
        "identity": "an adapter of more than k units is pruned to k",
        "idempotence": "as identity; at k = r it does hold",
        "gauge": "units are taken as they are stored: a rotation of them is another input",
        "linearity": "means and clusters are not linear in the weights",
    },
)
