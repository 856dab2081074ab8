"""`loramerge stats`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loramerge.cli import _options as opt
from loramerge.cli._session import session


@click.command(
    "stats",
    short_help="Measure a base's modules over a text, for methods that need data.",
    epilog="Example: loramerge stats ./my-lora --base ./base --text examples.txt -o stats.safetensors",
)
@click.argument("ref", required=False, metavar="[REF]")
@click.option("--base", required=True, metavar="DIR", help="The base model: a folder, or a Hub repo.")
@click.option(
    "--text", required=True, type=click.Path(path_type=Path), metavar="FILE", help="UTF-8, one example a line."
)
@click.option("--like", metavar="REF", help="Measure the modules of this adapter, without its update.")
@click.option("--modules", multiple=True, metavar="PATTERN", help="Measure only modules that match.")
@click.option("--fisher", is_flag=True, help="The factors of the diagonal Fisher information too.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Read no more than the first N tokens.")
@click.option("--max-length", type=click.IntRange(2), default=512, show_default=True, help="Tokens of a line.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Lines run at once.")
@click.option(
    "--dtype",
    type=click.Choice(["F32", "F16", "BF16"], case_sensitive=False),
    default="F32",
    show_default=True,
    help="What the model computes in; sums are F64.",
)
@opt.allow_pickle
@opt.seed
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default="stats.safetensors",
    show_default=True,
    metavar="FILE",
    help="Where the statistics go.",
)
@click.option("--force", is_flag=True, help="Replace the output.")
def command(ref: str | None, **values: Any) -> None:
    """Run a base, with the adapter REF on it if there is one, over a text and keep what its modules are given.

    Of each module the Gram matrix of its inputs, as a mean over all tokens: what `regmean` and `local-tsv` need, and
    the metric of activation-aware truncation. With --fisher also what `fisher` needs. Without REF, --like or
    --modules say which modules. Needs the extra `models`.
    """
    with session() as (work, out):
        from loramerge import api

        made = api.stats(work, ref, **values)
        out.result("Measured", made.facts, id="path", notes=made.notes)
