"""`loramerge rm`."""

from __future__ import annotations

import click

from loramerge.cli._session import session


@click.command("rm", short_help="Forget adapters.", epilog="Example: loramerge rm math-lora --purge")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--purge", is_flag=True, help="Also delete a pulled adapter's files from the cache.")
def command(names: tuple[str, ...], purge: bool) -> None:
    """Forget adapters. Local folders and results stay where they are."""
    with session() as (work, out):
        from loramerge import api

        rows = api.remove(work, names, purge=purge)
        out.table(rows, id="name")
