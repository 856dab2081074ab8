"""`loramerge inspect`."""

from __future__ import annotations

import click

from loramerge.cli import _options as opt
from loramerge.cli._session import session


@click.command(
    "inspect", short_help="Measure ranks, norms, spectra, dead units.", epilog="Example: loramerge inspect math-lora"
)
@opt.ref
@click.option("--modules", is_flag=True, help="One row per module, not per family.")
@opt.allow_pickle
def command(ref: str, modules: bool, allow_pickle: bool) -> None:
    """Measure an adapter: ranks, norms, spectra, dead and duplicate units, oddities."""
    with session() as (work, out):
        from loramerge import api

        found = api.inspect(work, ref, allow_pickle=allow_pickle)
        rows, id = (found.modules, "module") if modules else (found.families, "family")
        out.table(rows, id=id, data=vars(found))
        for note in found.notes:
            out.note(note)
