"""`loramerge demo`."""

from __future__ import annotations

from pathlib import Path

import click

from loramerge.cli._session import sink


@click.command("demo", short_help="Play the whole story on this machine.", epilog="Example: loramerge demo")
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Play in this new folder and keep it.")
def command(keep: Path | None) -> None:
    """Play the whole story on this machine: train, push, pull, merge, measure, push back.

    Real training, the real Hub protocol on a loopback port, real evaluation; about two minutes.
    """
    from loramerge.demo.story import run

    out = sink()
    scores = run(out, keep)
    out.table(scores.rows, id="model", title="Accuracy on 500 test digits (shifts: mean of the three)")
    out.note(f"the best merge here is {scores.best}")
