"""`loramerge log`."""

from __future__ import annotations

import click

from loramerge.cli import _options as opt
from loramerge.cli._session import session


@click.command("log", short_help="Print what a result was made of.", epilog="Example: loramerge log lego-8")
@opt.ref
def command(ref: str) -> None:
    """Print what an adapter was made of: the tree of its parents, with commits and hashes."""
    with session() as (work, out):
        from loramerge import api

        tree = api.log(work, ref)
        out.text(tree.lines(), tree.plain())
