"""`loramerge hub serve`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from loramerge.cli._session import sink

if TYPE_CHECKING:
    from loramerge.hub.server.serve import Running


@click.group("hub", short_help="Run a small Hub of your own.")
def command() -> None:
    """Run a small Hub of your own."""


@command.command("serve", epilog="Example: loramerge hub serve --root ./hub")
@click.option("--root", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Where everything is kept.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8642, show_default=True, help="0 picks a free one.")
@click.option("--user", default="me", show_default=True, help="The user that the token stands for.")
@click.option("--token", metavar="hf_…", help="Use this token; without, one is made on the first start.")
def serve(root: Path, host: str, port: int, user: str, token: str | None) -> None:
    """Serve a Hub for this machine or a LAN, until interrupted."""
    from loramerge.hub.server.serve import serve as run

    out = sink()

    def ready(running: Running) -> None:
        token = running.token or None
        kept = f"The token of {running.user!r} was shown at the first start; --token hf_… adds another."
        out.result("Serving", {**vars(running), "token": token}, id="endpoint", notes=[] if token else [kept])
        out.hint(f"export HF_ENDPOINT={running.endpoint}" + (f" HF_TOKEN={token}" if token else ""))
        # Whoever reads through a pipe waits for this line, and the command does not end.
        sys.stdout.flush()

    run(root, host=host, port=port, user=user, token=token, ready=ready)
