"""Where work happens and how: one object that every function of the API takes first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loramerge.hub.session import Hub
    from loramerge.workspace.workspace import Workspace

Progress = Callable[[str, int, int, str], None]
"""`(task, done, total, unit)`; the unit is "B" for bytes, else a word."""


def silent(task: str, done: int, total: int, unit: str) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class Session:
    """A workspace folder, the Hub to use, and how to compute.

    `workers` None uses every core this process may; `executor` is "threads" or "processes" (the
    bytes are the same); `device` is "cpu", "cuda" or "auto"; `max_memory` in bytes bounds what
    merges hold at once; `cache` is where downloads are kept (default: huggingface_hub's own). `insecure` lets a
    token go over plain http to another machine.
    """

    folder: Path = Path()
    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    offline: bool = False
    workers: int | None = None
    executor: str = "threads"
    device: str = "cpu"
    max_memory: int | None = None
    cache: Path | None = None
    insecure: bool = False
    progress: Progress = silent

    @cached_property
    def hub(self) -> Hub:
        """The Hub, asked only when something needs it."""
        from loramerge.hub.session import Hub

        return Hub(
            endpoint=self.endpoint, token=self.token, offline=self.offline, cache=self.cache, insecure=self.insecure
        )

    @cached_property
    def workspace(self) -> Workspace:
        """The folder's lock and results."""
        from loramerge.workspace.workspace import Workspace

        return Workspace(self.folder)
