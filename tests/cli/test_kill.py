"""kill -9 at any moment of pull, merge and push: no half result is visible, the lock is whole, and all goes on.

Half of the moments are spread evenly over the time that the command takes; the others follow an event
(a file appears, the Hub is asked for something) by a few milliseconds, since what matters most happens
in the last few.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from place import GUARD, Place, place, walk, write_adapter

from loramerge import api
from loramerge.core.provenance import FilePin, git_blob_sha1, sha256_file
from loramerge.workspace import lock

KILLS = 50
KILLED = -signal.SIGKILL
Event = Callable[[], bool]


@dataclass(frozen=True)
class Moment:
    """Some seconds after an event; without one, after the start."""

    seconds: float
    event: Event | None = None


class Warm:
    """A process that forks command lines (`warm.py`)."""

    def __init__(self, here: Place) -> None:
        self.log = here.root / "log"
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("warm.py")],
            cwd=here.work,
            env=here.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.process.stdout.readline() == "ready\n"

    def run(self, arguments: list[str], kill: Moment | None = None) -> int:
        """The command's exit code; -9 where it was killed."""
        print(json.dumps({"arguments": arguments, "log": str(self.log)}), file=self.process.stdin, flush=True)
        fork = int(self.process.stdout.readline())
        if kill:
            self._kill(fork, kill)
        return int(self.process.stdout.readline())

    def kill(self, arguments: list[str], moment: Moment) -> bool:
        """Whether the command was killed; it had ended well by itself before, otherwise."""
        code = self.run(arguments, moment)
        assert code in (0, KILLED), self.log.read_text()
        return code == KILLED

    def _kill(self, fork: int, moment: Moment) -> None:
        while moment.event and not moment.event():
            if self._ended(0.0005):
                return
        if not self._ended(moment.seconds):
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(fork, signal.SIGKILL)

    def _ended(self, seconds: float) -> bool:
        """Whether the fork ends within that time."""
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def _warm():
    """One for all tests, with its place: it starts after the Hub, whose address it inherits."""
    with place() as made:
        _ = made.hub
        warm = Warm(made)
        yield made, warm
        warm.close()


@pytest.fixture
def here(_warm):
    """The place with two adapters and nothing else."""
    made, _ = _warm
    for folder in (made.work, made.home):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_adapter(made.work / "a", rank=8, shape=(64, 64), layers=4, seed=1)
    write_adapter(made.work / "b", rank=4, shape=(64, 64), layers=4, seed=2)
    return made


@pytest.fixture
def warm(_warm):
    return _warm[1]


def moments(duration: float, events: list[Event], seed: int) -> Iterator[Moment]:
    """In turn one at any time of the command and one shortly after each event."""
    draw = random.Random(seed)
    while True:
        for event in events:
            yield Moment(draw.uniform(0, duration))
            yield Moment(draw.choice((0, draw.uniform(0, 0.01))), event)


def duration(warm: Warm, arguments: list[str]) -> float:
    started = time.monotonic()
    assert warm.run(arguments) == 0, warm.log.read_text()
    return time.monotonic() - started


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def contents(folder: Path) -> dict[str, str]:
    """All files below, hidden ones too, by hash."""
    return {name: sha256_file(folder / name) for name in walk(folder) if not name.endswith("/")}


def hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name.startswith(".")} - {GUARD}


def reset(folder: Path, lock_file: Path, before: bytes) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock_file.write_bytes(before)


def pins(text: bytes) -> tuple[Any, ...]:
    """What a lock with one entry pins."""
    return tuple(FilePin(**pin) for pin in tomllib.loads(text.decode())["adapter"][0]["files"])


def asked(here: Place, *patterns: str) -> list[Event]:
    """The Hub was asked for something since its list of requests was cleared."""
    return [lambda pattern=pattern: here.faults.count(pattern) > 0 for pattern in patterns]


def publish(here: Place, repo: str, folder: Path) -> None:
    here.api.create_repo(repo)
    here.api.upload_folder(repo_id=repo, folder_path=folder)


def on_disk(folder: Path) -> dict[str, str]:
    """A result's files as the Hub names their contents: by sha256 where they go by LFS, else by git's blob id."""
    found = {name: sha256_file(folder / name) for name in walk(folder) if name.endswith(".safetensors")}
    return {**{name: git_blob_sha1(folder / name) for name in walk(folder) if name not in found}, **found}


def on_hub(here: Place, repo: str) -> dict[str, str] | None:
    """The same of a repo's newest commit; None where there is no repo."""
    if not here.api.repo_exists(repo):
        return None
    files = here.api.model_info(repo, files_metadata=True).siblings
    found = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in files}
    return {name: content for name, content in found.items() if name != ".gitattributes"}


MERGES = {
    "linear": ["-q", "merge", "./a", "./b", "--workers", "1", "-o", "out"],
    "lego": ["-q", "lego", "./a", "./b", "--k", "6", "--workers", "1", "-o", "out"],
}


def stages_of_a_merge(here: Place) -> list[Event]:
    locked = here.work / lock.NAME
    before = locked.read_bytes()
    return [
        lambda: any(here.work.glob(".out.*.partial")),
        lambda: any(here.work.glob(".out.*.partial/adapter_model.safetensors")),
        lambda: any(here.work.glob(".out.*.partial/README.md")),
        (here.work / "out").exists,
        (here.work / f".{lock.NAME}.new").exists,
        lambda: locked.read_bytes() != before,
    ]


@pytest.mark.parametrize("method", MERGES)
def test_a_merge_killed_at_any_moment_leaves_a_whole_result_or_none(here, warm, method):
    command, out, locked = MERGES[method], here.work / "out", here.work / lock.NAME
    api.pull(here.session, ["./a"])
    before = locked.read_bytes()
    events = stages_of_a_merge(here)
    assert warm.run(command) == 0
    whole = contents(out)
    reset(out, locked, before)
    moment = moments(duration(warm, command), events, seed=1)
    killed, seen = 0, set()

    while killed < KILLS:
        reset(out, locked, before)
        killed += warm.kill(command, next(moment))

        names = {entry.name for entry in lock.load(locked)}
        assert visible(here.work) - {"out"} == {"a", "b", lock.NAME}
        assert names in ({"a"}, {"a", "out"})
        assert contents(out) == whole if out.exists() else "out" not in names
        api.verify(here.session)
        seen.add((out.exists(), "out" in names, bool(hidden(here.work))))

        # Made and recorded before the kill, it is in the way of a second one, as ever.
        assert warm.run(command) == (2 if "out" in names else 0), warm.log.read_text()
        assert {entry.name for entry in lock.load(locked)} == {"a", "out"}
        assert contents(out) == whole
        assert not hidden(here.work)
    assert len(seen) > 2, "the moments differed too little"


def test_a_merge_over_a_result_killed_at_any_moment_leaves_the_old_or_the_new(here, warm):
    out, locked = here.work / "out", here.work / lock.NAME
    assert warm.run(MERGES["linear"]) == 0, warm.log.read_text()
    old, kept = contents(out), shutil.copytree(out, here.root / "kept")
    before, events = locked.read_bytes(), stages_of_a_merge(here)[:3] + stages_of_a_merge(here)[4:]
    command = [*MERGES["lego"], "--force"]
    moment = moments(duration(warm, command), events, seed=2)
    new, after = contents(out), locked.read_bytes()
    killed, seen = 0, set()

    while killed < KILLS // 2:
        reset(out, locked, before)
        shutil.copytree(kept, out)
        killed += warm.kill(command, next(moment))

        assert visible(here.work) == {"a", "b", "out", lock.NAME}
        assert contents(out) in (old, new)
        seen.add((contents(out) == new, locked.read_bytes() == after, bool(hidden(here.work))))
        assert len(lock.load(locked)) == 1

        assert warm.run(command) == 0, warm.log.read_text()
        assert contents(out) == new
        assert lock.load(locked)[0].files == pins(after)
        assert not hidden(here.work)
    assert len(seen) > 2, "the moments differed too little"


def test_a_pull_killed_at_any_moment_locks_only_what_is_there(here, warm):
    locked, cache = here.work / lock.NAME, here.home / "hub"
    api.pull(here.session, ["./a"])
    for name, seed in (("math", 3), ("code", 4)):
        publish(here, f"me/{name}", write_adapter(here.root / name, rank=32, shape=(512, 512), seed=seed))
    command, before = ["pull", "me/math", "me/code"], locked.read_bytes()
    events = [
        *asked(here, "GET /api/models/me/math", "GET .*/lfs/", "GET /api/models/me/code"),
        lambda: any(cache.glob("*/blobs/*.incomplete")),
        lambda: any(cache.glob("*/snapshots/*/adapter_model.safetensors")),
        (here.work / f".{lock.NAME}.new").exists,
        lambda: locked.read_bytes() != before,
    ]
    moment = moments(duration(warm, command), events, seed=3)
    killed, seen = 0, set()

    while killed < KILLS:
        reset(cache, locked, before)
        here.faults.requests.clear()
        killed += warm.kill(command, next(moment))

        names = {entry.name for entry in lock.load(locked)}
        assert names in ({"a"}, {"a", "math"}, {"a", "math", "code"})
        assert visible(here.work) == {"a", "b", lock.NAME}
        api.verify(here.session)
        seen.add((len(names), len(list(cache.glob("*/snapshots/*/adapter_model.safetensors")))))

        assert warm.run(command) == 0, warm.log.read_text()
        assert {entry.name for entry in lock.load(locked)} == {"a", "math", "code"}
        assert not hidden(here.work)
        api.verify(here.session)
    assert len(seen) > 2, "the moments differed too little"


def test_a_push_killed_at_any_moment_leaves_the_old_commit_or_the_new(here, warm):
    for number in (1, 2):
        api.merge(here.session, ["./a", "./b"], weights=[number, 1], out=Path(f"out-{number}"))
    wanted = {number: on_disk(here.work / f"out-{number}") for number in (1, 2)}
    events = asked(here, "preupload", "info/lfs/objects/batch", "PUT ", "POST .*/commit/", "paths-info/[0-9a-f]{40}")
    assert warm.run(["push", "out-2", "me/out"]) == 0
    moment = moments(duration(warm, ["push", "out-1", "me/out"]), events, seed=4)
    killed, there, seen = 0, 1, set()

    while killed < KILLS:
        other, fresh = 3 - there, f"me/out-{killed}"
        repo = fresh if killed % 5 == 4 else "me/out"  # now and then one that is still to be made
        command = ["push", f"out-{other}", repo]
        here.faults.requests.clear()
        killed += warm.kill(command, next(moment))

        found = on_hub(here, repo)
        commits = [commit.title for commit in here.api.list_repo_commits(repo)] if found is not None else []
        assert found in (wanted[other], {} if repo == fresh else wanted[there], None if repo == fresh else {})

        assert warm.run(command) == 0, warm.log.read_text()
        assert on_hub(here, repo) == wanted[other]
        assert len(here.api.list_repo_commits(repo)) == max(len(commits), 1) + (found != wanted[other])
        there = other if repo == "me/out" else there
        seen.add((repo == fresh, None if found is None else len(found), found == wanted[other]))
    assert len(seen) > 2, "the moments differed too little"


def test_the_workers_of_a_killed_merge_go_with_it(here):
    for name in "ab":
        write_adapter(here.work / name, rank=16, shape=(64, 64), layers=1000)
    process = here.start("loramerge lego ./a ./b --k 8 -o out --workers 2 --executor processes")
    # The file begins with room for its header; it grows when the workers have results.
    sizes = set()
    while len(sizes) < 3:
        sizes |= {path.stat().st_size for path in here.work.glob(".out.*.partial/adapter_model.safetensors")}
        time.sleep(0.01)

    process.kill()

    process.communicate(timeout=10)  # its output ends when the last process that holds it does
    assert visible(here.work) == {"a", "b"}
