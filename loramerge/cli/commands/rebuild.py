"""`loramerge rebuild`."""

from __future__ import annotations

import click

from loramerge.cli import _options as opt
from loramerge.cli._session import session


@click.command(
    "rebuild", short_help="Make a result again and compare bytes.", epilog="Example: loramerge rebuild ./lego-8"
)
@opt.ref
@opt.allow_pickle
def command(ref: str, allow_pickle: bool) -> None:
    """Run a result's recorded recipe again, from the pinned parents, and compare weights and config."""
    with session() as (work, out):
        from loramerge import api

        rows = api.rebuild(work, ref, allow_pickle=allow_pickle)
        out.table(rows, id="file")
        out.note("the same bytes")
