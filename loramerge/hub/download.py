"""Pinned files into the cache, every byte checked by us: the client itself looks at lengths only."""

from __future__ import annotations

import glob
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.core.provenance import FilePin, git_blob_sha1, sha256_file
from loramerge.errors import IntegrityError, LoramergeError
from loramerge.hub import cache
from loramerge.hub.pull import Pinned, RemoteFile
from loramerge.hub.session import quiet

if TYPE_CHECKING:
    from loramerge.hub.session import Hub

Progress = Callable[[str, int, int], None]
"""Told `(what, bytes done, bytes in all)` as often as there is news, from any thread."""


def download(hub: Hub, pinned: Pinned, progress: Progress | None = None) -> tuple[Path, tuple[FilePin, ...]]:
    """The adapter's folder in the cache and the sha256 of each file. Asks nothing when all is there.

    Raises IntegrityError where a file is not what its commit (or the lock) promises; its bytes are
    removed then, so that the next pull fetches them anew.
    """
    paths = [file.path for file in pinned.files]
    folder = cache.find(hub, pinned.repo, pinned.commit, pinned.subfolder, paths)
    if folder is None:
        _fetch(hub, pinned, progress)
        folder = cache.find(hub, pinned.repo, pinned.commit, pinned.subfolder, paths)
    if folder is None:
        raise IntegrityError(f"The Hub lists files of {pinned.repo} that it does not deliver.", where=hub.url)
    return folder, _verified(pinned, folder)


def _fetch(hub: Hub, pinned: Pinned, progress: Progress | None) -> None:
    from huggingface_hub import snapshot_download

    endpoint = hub.api.endpoint  # raises Offline
    _room(hub.cache_dir, pinned)
    stop = threading.Event()
    fetch = partial(
        snapshot_download,
        pinned.repo,
        revision=pinned.commit,
        allow_patterns=[glob.escape(pinned.in_repo(file.path)) for file in pinned.files],
        cache_dir=hub.cache_dir,
        endpoint=endpoint,
        token=hub.credentials,
        max_workers=4,
        tqdm_class=_bars(progress, pinned.repo, pinned.size, stop),
    )
    with hub.translated(pinned.repo), quiet():
        _interruptible(fetch, stop)


def _interruptible(work: Callable[[], object], stop: threading.Event) -> None:
    """Do the work; Ctrl-C ends the waiting at once and sets `stop`. The client would finish its files first."""
    done: Future[object] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        done.result()
    except KeyboardInterrupt:
        stop.set()
        raise


def _room(cache_dir: Path, pinned: Pinned) -> None:
    exists = next(folder for folder in (cache_dir, *cache_dir.parents) if folder.is_dir())
    if (free := shutil.disk_usage(exists).free) < pinned.size:
        raise LoramergeError(
            f"{pinned.repo} has {pinned.size:,} bytes, and {free:,} are free.",
            where=str(cache_dir),
            hint="HF_HOME names the folder of the cache",
        )


def _verified(pinned: Pinned, folder: Path) -> tuple[FilePin, ...]:
    pins = {file.path: _pin(folder / file.path, file) for file in pinned.files}
    bad = [path for path, pin in pins.items() if pin is None]
    for path in bad:
        cache.drop(folder / path)
    if bad:
        raise IntegrityError(
            f"Files of {pinned.repo} are not what commit {pinned.commit[:12]} promises; they were removed.",
            where=", ".join(bad),
            hint="pull again; if it stays so, something between here and the Hub changes them",
        )
    return tuple(sorted(pin for pin in pins.values() if pin is not None))


def _pin(path: Path, promised: RemoteFile) -> FilePin | None:
    found = FilePin(promised.path, path.stat().st_size, sha256_file(path))
    same = found.sha256 == promised.sha256 if promised.sha256 else git_blob_sha1(path) == promised.blob
    return found if same else None


def _bars(progress: Progress | None, what: str, total: int, stop: threading.Event) -> type[Any]:
    """A class of bars that draw nothing: those that count bytes tell `progress`, and end their thread at `stop`."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            self._bytes = options.get("unit") == "B"
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if stop.is_set():
                raise InterruptedError
            with self.get_lock():
                self.n += n or 0
                if progress and self._bytes:
                    progress(what, min(int(self.n), total), total)

    return Bar
