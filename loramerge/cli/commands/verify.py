"""`loramerge verify`."""

from __future__ import annotations

import click

from loramerge.cli._session import session


@click.command(
    "verify", short_help="Hash files again and compare with the lock.", epilog="Example: loramerge verify math-lora"
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
def command(names: tuple[str, ...]) -> None:
    """Hash the files again and compare with the lock (all entries without NAME)."""
    with session() as (work, out):
        from loramerge import api

        out.table(api.verify(work, names), id="name")
