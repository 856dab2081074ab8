"""`loramerge assemble`."""

from __future__ import annotations

from pathlib import Path

import click

from loramerge.cli import _options as opt
from loramerge.cli._session import session


@click.command(
    "assemble",
    short_help="Put units together again.",
    epilog="Example: loramerge assemble math-units -o math-small --keep 'share>0.01'",
)
@click.argument("units", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "-o", "--out", "folder", type=click.Path(path_type=Path), required=True, metavar="OUT", help="New folder."
)
@click.option("--keep", metavar="EXPR", help="Units to keep, e.g. 'share>0.01 and module~*.query'.")
@opt.force
def command(units: Path, folder: Path, keep: str | None, force: bool) -> None:
    """Put units together again; all of them give back the adapter bit for bit."""
    with session() as (work, out):
        from loramerge import api

        made = api.assemble(work, units, folder, keep=keep, force=force)
        out.result("Assembled", made.facts, id="path", notes=made.notes)
