"""`loramerge lego`."""

from __future__ import annotations

from typing import Any

import click

from loramerge.cli import _options as opt
from loramerge.cli._making import make


@click.command("lego", short_help="Merge by clustering units (LoRA-LEGO).", epilog="Example: loramerge lego --k 8")
@opt.sources
@click.option("--k", required=True, type=int, metavar="K", help="Units (the rank) of each module of the result.")
@click.option("--k-for", multiple=True, metavar="'PATTERN=K'", help="Another K for modules that match.")
@click.option("--preset", type=click.Choice(["paper"]), help="paper: every option as published.")
@click.option("--reweight", type=click.Choice(["both", "parameters", "output", "none"]), help="Which reweighting.")
@click.option("--norm", type=click.Choice(["inf", "2"]), help="Norm that the parameter reweighting restores.")
@click.option("--features", type=click.Choice(["raw", "normalized", "product"]), help="What is compared.")
@click.option("--gauge", type=click.Choice(["raw", "balanced", "signed"]), help="How units are made comparable.")
@click.option(
    "--units", type=click.Choice(["clustered", "selected"]), help="selected: orthogonalise all units and keep K."
)
@click.option("--balance", type=float, metavar="B", help="Of selected units: 0 the longest, 1 by shares of adapters.")
@click.option("--ref-rank", metavar="mean|max|min|N", help="r in √(r/k).")
@click.option("--n-init", type=click.IntRange(1), metavar="N", help="Starts of k-means; up to 10 N on small problems.")
@opt.making
def command(refs: tuple[str, ...], k: int, k_for: tuple[str, ...], preset: str | None, **values: Any) -> None:
    """Merge by LoRA-LEGO: pool rank-one units, cluster them, keep K centroids per module.

    Without REF, the sources of this workspace. One adapter is pruned to K units.
    """
    names = ("reweight", "norm", "features", "gauge", "units", "balance", "ref_rank", "n_init")
    options = {name: values.pop(name) for name in names}
    given = {name: value for name, value in options.items() if value is not None}
    make(refs, values, method="lego", options={"k": k, **given}, k_for=k_for, preset=preset)
