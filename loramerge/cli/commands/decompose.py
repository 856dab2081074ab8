"""`loramerge decompose`."""

from __future__ import annotations

from pathlib import Path

import click

from loramerge.cli import _options as opt
from loramerge.cli._session import session


@click.command(
    "decompose",
    short_help="Take an adapter apart into rank-one units.",
    epilog="Example: loramerge decompose math-lora -o math-units",
)
@opt.ref
@click.option(
    "-o", "--out", "folder", type=click.Path(path_type=Path), required=True, metavar="DIR", help="New folder."
)
@opt.force
@opt.allow_pickle
def command(ref: str, folder: Path, force: bool, allow_pickle: bool) -> None:
    """Take an adapter apart into minimal semantic units: a table you can edit, and the factors."""
    with session() as (work, out):
        from loramerge import api

        made = api.decompose(work, ref, folder, force=force, allow_pickle=allow_pickle)
        out.result("Decomposed", made.facts, id="path", notes=made.notes)
        out.hint(f"loramerge assemble {made.path} -o whole --keep 'share>0.01'")
