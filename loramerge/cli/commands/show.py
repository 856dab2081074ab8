"""`loramerge show`."""

from __future__ import annotations

import click

from loramerge.cli import _options as opt
from loramerge.cli._session import session


@click.command(
    "show", short_help="Show an adapter's header, also a remote one's.", epilog="Example: loramerge show acme/math-lora"
)
@opt.ref
@opt.allow_pickle
def command(ref: str, allow_pickle: bool) -> None:
    """Show what an adapter's header and config say; a remote one is not downloaded."""
    with session() as (work, out):
        from loramerge import api

        shown = api.show(work, ref, allow_pickle=allow_pickle)
        out.record(shown.facts, more=("families", shown.families), id="name", notes=shown.notes)
