"""`loramerge ema`."""

from __future__ import annotations

from typing import Any

import click

from loramerge.cli import _options as opt
from loramerge.cli._making import make


@click.command(
    "ema",
    short_help="Average checkpoints, the later ones counting more.",
    epilog="Example: loramerge ema math-lora code-lora --beta 0.9 --warmup ramp",
)
@click.argument("refs", nargs=-1, required=True, metavar="CKPT...")
@click.option("--beta", type=float, metavar="B", help="Share of the old average kept at each step.  [default: 0.999]")
@click.option(
    "--warmup",
    type=click.Choice(["mean", "ramp", "none"]),
    help="β at step k: min(B, k/(k+1)), min(B, (1+k)/(10+k)), or B.  [default: mean]",
)
@opt.rank
@opt.making
def command(refs: tuple[str, ...], beta: float | None, warmup: str | None, rank: str | None, **values: Any) -> None:
    """Take the exponential moving average of checkpoints of one training run, oldest first.

    With the defaults up to a thousand checkpoints count the same.
    """
    options = {"beta": beta, "warmup": warmup}
    given = {name: value for name, value in options.items() if value is not None}
    make(refs, values, method="ema", options=given, rank=rank)
