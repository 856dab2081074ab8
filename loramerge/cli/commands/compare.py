"""`loramerge compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loramerge.cli import _options as opt
from loramerge.cli._session import session

_SHOWN = 20


@click.command(
    "compare",
    short_help="Tell how alike adapters are, from their factors.",
    epilog="Example: loramerge compare math-lora code-lora",
)
@opt.sources
@click.option("--families", is_flag=True, help="One row per family of modules (means), not per pair.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw heatmaps of all pairs.")
@click.option("--dendrogram", type=click.Path(path_type=Path), metavar="FILE.png", help="Draw the tree of adapters.")
@opt.bases
@opt.mismatch
@opt.allow_pickle
def command(refs: tuple[str, ...], families: bool, **values: Any) -> None:
    """Compare adapters pair by pair: cosine of updates, subspace overlap, sign conflict, norm ratio.

    Without REF, the sources of this workspace. The rows of two adapters are families of modules.
    """
    with session() as (work, out):
        from loramerge import api

        found = api.compare(work, refs, **values)
        if families or len(found.pairs) == 1:
            out.table(found.family_rows, id="family", data=found.data)
        else:
            out.table(found.pairs if out.mode == "quiet" else found.pairs[:_SHOWN], id="pair", data=found.data)
            if len(found.pairs) > _SHOWN:
                out.note(f"the {_SHOWN} most alike of {len(found.pairs)} pairs; --format json has all")
        for note in found.notes:
            out.note(note)
