"""`loramerge ls`."""

from __future__ import annotations

import click

from loramerge.cli._session import session


@click.command("ls", short_help="List sources and results.", epilog="Example: loramerge ls")
def command() -> None:
    """List the sources and results of this workspace."""
    with session() as (work, out):
        from loramerge import api

        rows = api.listing(work)
        out.table(rows, id="name")
        if not rows:
            out.note("nothing here yet")
            out.hint("loramerge pull USER/ADAPTER")
