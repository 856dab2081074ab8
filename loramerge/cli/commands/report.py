"""`loramerge report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from loramerge.cli._session import session


@click.command(
    "report",
    short_help="Write an HTML page about merges, evaluations and searches.",
    epilog="Example: loramerge report lego-8 -o report.html",
)
@click.argument("inputs", nargs=-1, metavar="[RESULT|EVAL.json|TUNE.json]...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("report.html"),
    show_default=True,
    metavar="FILE.html",
    help="The file to write.",
)
@click.option("--slides", is_flag=True, help="A deck: arrow keys turn the slides, n shows the notes.")
@click.option("--title", metavar="TEXT", help="What to call it.")
@click.option("--force", is_flag=True, help="Replace the output.")
def command(inputs: tuple[str, ...], **values: Any) -> None:
    """Write one HTML file, complete in itself, about what was merged, evaluated and searched.

    Without an input, about the newest result. It is right on light and dark screens and on paper.
    """
    with session() as (work, out):
        from loramerge import api

        made = api.report(work, inputs, **values)
        out.result("Reported", made.facts, id="path")
