"""`loramerge interpolate`."""

from __future__ import annotations

from typing import Any

import click

from loramerge.cli import _options as opt
from loramerge.cli._making import walk
from loramerge.errors import BadOption


@click.command(
    "interpolate",
    short_help="Go from one adapter to another.",
    epilog="Example: loramerge interpolate math-lora code-lora --at 0.5",
)
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--at", "t", type=float, metavar="T", help="One point: 0 is A, 1 is B.")
@click.option("--points", type=int, metavar="N", help="N points, both ends among them, in DIR-000, DIR-001, …")
@click.option(
    "--space",
    type=click.Choice(["update", "factors"]),
    default="update",
    show_default=True,
    help="update: whatever ranks and factors. factors: A's and B's each, for points of one training run.",
)
@click.option(
    "--path",
    type=click.Choice(["lerp", "slerp"]),
    default="lerp",
    show_default=True,
    help="Straight, or along the arc of directions.",
)
@opt.rank
@opt.making
def command(first: str, second: str, t: float | None, points: int | None, **values: Any) -> None:
    """Make points of the way from adapter A to adapter B. The ends are A and B, to the bit where the rank allows."""
    if (t is None) == (points is None):
        raise BadOption("One point or many?", hint="--at 0.5, or --points 11")
    walk([first, second], values, t=t, points=points)
