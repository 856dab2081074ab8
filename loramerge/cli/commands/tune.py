"""`loramerge tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loramerge.cli import _options as opt
from loramerge.cli._evaluating import tune


@click.command(
    "tune",
    short_help="Search for the best merge of adapters.",
    epilog="Example: loramerge tune math-lora code-lora --base ./base --task perplexity:./math.txt -o best",
)
@opt.sources
@opt.evaluating
@click.option(
    "--space",
    multiple=True,
    metavar="NAME=DOMAIN",
    help="method=ties,tsv (else linear); scale=0.3..2; density=log:0.05..1; k=4|8; weight.NAME=0..1.5; "
    "weight.*@families=0..1.  [default: scale=log:0.3..3]",
)
@click.option("--sampler", default="tpe", show_default=True, metavar="NAME", help="tpe, cma, random or grid.")
@click.option(
    "--budget", type=float, default=20.0, show_default=True, help="Passes of one candidate over all rows that choose."
)
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True, help="Candidates raced together.")
@click.option(
    "--objective",
    type=click.Choice(["share", "score", "lorahub"]),
    default="share",
    show_default=True,
    help="share of the sources' own scores, the score, or LoraHub's: minus the loss, minus 0.05 mean |w|.",
)
@opt.rank
@click.option("--weights", "weighting", type=click.Choice(["mean", "sqrt", "sum"]), help="1/n, 1/√n or 1 each.")
@opt.data
@opt.mismatch
@opt.allow_pickle
@opt.seed
@click.option("-o", "--out", type=click.Path(path_type=Path), default="tuned", show_default=True, metavar="NAME")
@opt.force
def command(refs: tuple[str, ...], **values: Any) -> None:
    """Search methods, their options, scales and weights for the merge of REFs that does best on tasks.

    Candidates are never written and run together; the worse ones stop after a few rows. Writes NAME.yaml, the recipe
    of the best, and NAME.json, with its score on rows that did not choose it. The same call goes on after an
    interruption. Needs the extra `models`, and `search` for tpe and cma.
    """
    tune(refs, values)
