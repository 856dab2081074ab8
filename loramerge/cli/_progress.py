"""Progress bars: bytes for pull and push, modules for merges."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bars:
    """One bar per task on stderr, drawn from the first news of a task until `stop`."""

    def __init__(self) -> None:
        self._shown: Progress | None = None
        self._ids: dict[str, TaskID] = {}

    def update(self, task: str, done: int, total: int, unit: str) -> None:
        """What is done of a task; `unit` "B" counts bytes."""
        from rich.filesize import decimal

        count = f"{decimal(done)} / {decimal(total)}" if unit == "B" else f"{done} / {total} {unit}"
        if self._shown is None:
            self._shown = _started()
        if task not in self._ids:
            self._ids[task] = self._shown.add_task(task, total=total, count=count)
        self._shown.update(self._ids[task], completed=done, total=total, count=count)

    def stop(self) -> None:
        """Take the bars away: something is going to be printed where they are."""
        if self._shown:
            self._shown.stop()
            self._shown, self._ids = None, {}


def _started() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    shown = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # data stays data
    )
    shown.start()
    return shown
