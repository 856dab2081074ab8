"""Progress bars: bytes for pull and push, modules for merges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bars() -> Iterator[Callable[[str, int, int, str], None]]:
    """Draws one bar per task on stderr; yields `(task, done, total, unit)`, unit "B" for bytes."""
    from rich.console import Console
    from rich.filesize import decimal
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    ids: dict[str, object] = {}

    def update(task: str, done: int, total: int, unit: str) -> None:
        count = f"{decimal(done)} / {decimal(total)}" if unit == "B" else f"{done} / {total} {unit}"
        if task not in ids:
            ids[task] = shown.add_task(task, total=total, count=count)
        shown.update(ids[task], completed=done, total=total, count=count)  # type: ignore[arg-type]

    with shown:
        yield update
