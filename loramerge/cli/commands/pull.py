"""`loramerge pull`."""

from __future__ import annotations

from pathlib import Path

import click

from loramerge.cli import _options as opt
from loramerge.cli._session import session


@click.command(
    "pull",
    short_help="Fetch adapters, pinned and verified.",
    epilog="Example: loramerge pull acme/math-lora acme/code-lora@v2 ./my-own-lora",
)
@opt.sources
@click.option("--as", "name", metavar="NAME", help="What to call it here (one REF only).")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="Also copy the files into DIR/NAME.")
@click.option("--frozen", is_flag=True, help="Fail if a tag or branch no longer means what the lock pins.")
@click.option("--dry-run", is_flag=True, help="Check everything that a header tells; download nothing.")
@opt.allow_pickle
def command(
    refs: tuple[str, ...], name: str | None, to: Path | None, frozen: bool, dry_run: bool, allow_pickle: bool
) -> None:
    """Fetch adapters: pinned to a commit, every file verified, recorded in loramerge.lock.

    Without REF, restore everything that the lock pins.
    """
    with session() as (work, out):
        from loramerge import api

        rows = api.pull(
            work, refs, name=name, allow_pickle=allow_pickle, to=to, dry_run=dry_run, frozen=frozen, say=out.note
        )
        out.table(rows, id="name")
        out.hint("loramerge inspect NAME, or loramerge lego --k 8")
