"""`loramerge eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loramerge.cli import _options as opt
from loramerge.cli._evaluating import evaluate


@click.command(
    "eval",
    short_help="Score adapters and merges of them on tasks, together.",
    epilog="Example: loramerge eval math-lora code-lora --base ./base --task perplexity:math.txt --method ties",
)
@opt.sources
@opt.evaluating
@opt.rows_taken
@click.option("--method", "methods", multiple=True, metavar="M[,M…]", help="Merges of REFs by these methods too.")
@click.option(
    "-O", "--option", "pairs", multiple=True, metavar="KEY=V[|V…]", help="An option of the methods, its values in turn."
)
@click.option("--k", "ks", metavar="K[,K…]", help="Values of the option k (lego's units).")
@click.option("--rank", "ranks", metavar="RULE[,RULE…]", help="Ranks of the merges.  [default: max]")
@click.option("--scale", "scales", metavar="S[,S…]", help="What each merge is multiplied by, in turn.")
@click.option("--weights", "weighting", type=click.Choice(["mean", "sqrt", "sum"]), help="1/n, 1/√n or 1 each.")
@opt.data
@click.option("--points", type=int, metavar="N", help="N points of the straight way between two REFs.")
@click.option("--coefficients", type=click.Path(path_type=Path), metavar="FILE", help="Rows of weights of REFs (JSON).")
@click.option("--with-base", is_flag=True, help="Score the base itself too.")
@click.option("--no-sources", is_flag=True, help="Do not score the REFs themselves.")
@opt.mismatch
@opt.allow_pickle
@opt.seed
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write the scores there, as JSON.")
@opt.force
def command(refs: tuple[str, ...], **values: Any) -> None:
    """Run adapters, and merges of them that need not be written, through one base model together.

    Every score has a 95 % interval (bootstrap over the items). A TASK is a folder with INFO.json, or KIND:FILE
    with KIND classification, perplexity, choice, generation or similarity. Needs the extra `models`.
    """
    evaluate(refs, values)
