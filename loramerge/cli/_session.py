"""From global options to a session and a sink."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loramerge import options
from loramerge.cli._output import Output

if TYPE_CHECKING:
    from loramerge.api.session import Session


def sink() -> Output:
    """The sink that the global options ask for."""
    return output(click.get_current_context().find_root().ensure_object(dict))


def output(settings: dict[str, Any]) -> Output:
    """The sink that these settings ask for."""
    if settings.get("quiet"):
        return Output("quiet")
    return Output("json" if settings.get("format_") == "json" else "human")


@contextmanager
def session() -> Iterator[tuple[Session, Output]]:
    """A session made from the global options, its progress drawn on stderr; and the sink."""
    from loramerge.api.session import Session

    settings = click.get_current_context().find_root().ensure_object(dict)
    out = output(settings)
    limit = settings.get("max_memory")
    with out.progress() as progress:
        yield (
            Session(
                Path(settings.get("workspace") or "."),
                endpoint=settings.get("endpoint"),
                offline=bool(settings.get("offline")),
                insecure=bool(settings.get("insecure")),
                workers=settings.get("workers"),
                executor=settings.get("executor") or "threads",
                device=settings.get("device") or "cpu",
                max_memory=options.size(limit) if limit else None,
                progress=progress,
            ),
            out,
        )
