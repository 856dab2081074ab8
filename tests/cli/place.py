"""A place for hostile conditions: a workspace, a cache and a Hub of their own, and what lies there."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "hub")]
os.environ["HF_HUB_DISABLE_XET"] = "1"  # read when huggingface_hub is imported; the embedded Hub has none

import adapters  # noqa: E402
from faults import Faults  # noqa: E402

NOBODY = 65534
GUARD = ".loramerge.guard"
"""What two processes take turns by; empty, and the only thing that a failure may add."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: exit code, data, and its error taken apart."""

    code: int
    stdout: str
    stderr: str

    def part(self, label: str) -> str:
        """The line of the error that begins with `label`, without it; "" where there is none."""
        lines = [line.strip() for line in self.stderr.splitlines()]
        return next((line.removeprefix(label).strip() for line in lines if line.startswith(label)), "")

    def line(self, words: str) -> str:
        """The first line with these words of all that the command says."""
        lines = [line.strip() for line in (self.stderr + self.stdout).splitlines()]
        return next((line for line in lines if words in line), "")


class Place:
    """`work` is the workspace and the commands' working directory, `home` is HF_HOME."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root, self.stack = root, stack
        self.work, self.home = root / "work", root / "home"
        for folder in (self.work, self.home):
            folder.mkdir()
        self.faults = Faults()
        self.token: str | None = None
        """What commands have for a token: None that of the Hub's user, "" none."""

    @cached_property
    def hub(self) -> Any:
        """A running Hub, with `faults` before it."""
        from loramerge.hub.server.serve import running

        return self.stack.enter_context(running(self.root / "hub", wrap=self.faults.wrap))

    @cached_property
    def api(self) -> Any:
        """The client of the Hub's user."""
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()  # of what is arranged; commands run in processes of their own
        return HfApi(self.hub.endpoint, self.hub.token)

    @property
    def names(self) -> dict[str, str]:
        """What `{…}` stands for in commands and expectations."""
        started = "hub" in self.__dict__
        return {"work": str(self.work), "home": str(self.home), "url": self.hub.endpoint if started else ""}

    @property
    def session(self) -> Any:
        """What a command line would work with, without a process of its own."""
        from loramerge.api import Session

        address = {"endpoint": self.hub.endpoint, "token": self.hub.token} if "hub" in self.__dict__ else {}
        return Session(self.work, cache=self.home / "hub", **address)

    def environment(self) -> dict[str, str]:
        """Nothing but what a command needs: the Hub's address and token, and where the cache is."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LD_LIBRARY_PATH") if name in os.environ}
        if "hub" in self.__dict__:
            token = self.hub.token if self.token is None else self.token
            kept |= {"HF_ENDPOINT": self.hub.endpoint, **({"HF_TOKEN": token} if token else {})}
        return {
            **kept,
            "HOME": str(self.home),
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_COLOR": "1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(TESTS.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, command: str, before: Sequence[str] = (), **options: Any) -> subprocess.Popen[str]:
        """The command line as a process of its own, in a group of its own; `options` are Popen's."""
        words = shlex.split(command.format(**self.names))
        assert words[0] == "loramerge"
        return subprocess.Popen(
            [*before, sys.executable, "-m", *words],
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **{"env": self.environment(), **options},
        )

    def run(self, command: str, **options: Any) -> Outcome:
        """The command line, run to its end."""
        return ended(self.start(command, **options))

    def interrupt(self, command: str, ready: Callable[[], bool], **options: Any) -> Outcome:
        """Ctrl-C, which goes to all processes of the command, as soon as `ready` holds; it ends within five seconds."""
        process = self.start(command, **options)
        while not ready() and process.poll() is None:
            time.sleep(0.001)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        return ended(process, seconds=5)

    def snapshot(self) -> dict[str, str]:
        """All that lies here: files of the workspace and whole downloads by hash, and each repo's head."""
        found = {path: _content(self.work / path) for path in walk(self.work) if path != GUARD}
        found |= {f"cache/{path}": _content(self.home / path) for path in walk(self.home) if _is_download(path)}
        if "hub" in self.__dict__:
            found |= {f"hub/{info.id}": str(self.api.model_info(info.id).sha) for info in self.api.list_models()}
        return found


@contextmanager
def place() -> Iterator[Place]:
    """A fresh place in a folder that every user of this machine may enter and write to."""
    with tempfile.TemporaryDirectory(prefix="loramerge-place-") as folder, ExitStack() as stack:
        made = Place(Path(folder).resolve(), stack)
        for path in (made.root, made.work, made.home):
            path.chmod(0o777)
        yield made


def ended(process: subprocess.Popen[str], seconds: float = 60) -> Outcome:
    """The outcome of a process, which is given that long."""
    stdout, stderr = process.communicate(timeout=seconds)
    return Outcome(process.returncode, stdout, stderr)


def write_adapter(folder: Path, *, shape: tuple[int, int] = (8, 8), layers: int = 2, **what: Any) -> Path:
    """One module of that shape in each layer; the rest is as in `adapters.py`."""
    return adapters.write_adapter(folder, modules={f"layers.{layer}.q": shape for layer in range(layers)}, **what)


def difference(before: dict[str, str], after: dict[str, str]) -> str:
    """What was added (+), removed (-) and changed (~), by outermost name; "as before" for nothing."""
    changed = {_outermost(path) for path in {*before, *after} if before.get(path) != after.get(path)}
    old, new = ({_outermost(path) for path in found} for found in (before, after))
    signs = {name: "+" if name not in old else "-" if name not in new else "~" for name in changed}
    return " ".join(sorted(sign + name for name, sign in signs.items())) or "as before"


def walk(folder: Path) -> list[str]:
    """All names below a folder, hidden ones too; a folder ends with a slash."""
    found = []
    for path, folders, files in os.walk(folder):
        inside = Path(path).relative_to(folder).as_posix()
        prefix = "" if inside == "." else f"{inside}/"
        found += [f"{prefix}{name}/" for name in folders] + [f"{prefix}{name}" for name in files]
    return sorted(found)


def _content(path: Path) -> str:
    return "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()


def _is_download(path: str) -> bool:
    """Weights that a reader of the cache would find, and what a download left half-way.

    Small files are not told: which of them come before the weights fail is chance.
    """
    return path.endswith((".safetensors", ".bin", ".incomplete"))


def _outermost(path: str) -> str:
    """A repo, a file of the cache without its path, or what lies in the workspace itself."""
    if path.startswith("cache/"):
        return f"cache/{path.rpartition('/')[2]}"
    return path if path.startswith("hub/") else path.partition("/")[0] + ("/" if "/" in path else "")
