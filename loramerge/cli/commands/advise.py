"""`loramerge advise`."""

from __future__ import annotations

from typing import Any

import click

from loramerge.cli import _options as opt
from loramerge.cli._session import session


@click.command(
    "advise",
    short_help="Name merge methods to try, and why.",
    epilog="Example: loramerge advise math-lora code-lora",
)
@opt.sources
@opt.bases
@opt.mismatch
@opt.allow_pickle
def command(refs: tuple[str, ...], **values: Any) -> None:
    """Name two or three merge methods to try on these adapters, with reasons and the commands to run.

    Without REF, the sources of this workspace. Quietly, the commands alone.
    """
    with session() as (work, out):
        from loramerge import api

        found = api.advise(work, refs, **values)
        out.text(found.commands if out.mode == "quiet" else found.lines, found.data)
        for note in found.notes:
            out.note(note)
