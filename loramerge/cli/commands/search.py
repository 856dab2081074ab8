"""`loramerge search`."""

from __future__ import annotations

import click

from loramerge.cli._session import session


@click.command(
    "search",
    short_help="Find adapters on the Hub.",
    epilog="Example: loramerge search math --base meta-llama/Llama-2-7b-hf",
)
@click.argument("text", required=False, default="", metavar="[TEXT]")
@click.option("--base", metavar="MODEL", help="Only adapters of this base model.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most this many.")
def command(text: str, base: str | None, limit: int) -> None:
    """Find adapters on the Hub, by text and by base model."""
    with session() as (work, out):
        from loramerge import api

        rows = api.search(work, text, base=base, limit=limit)
        out.table(rows, id="repo")
        if rows:
            out.hint(f"loramerge show {rows[0]['repo']}")
