"""The story: train adapters, push, pull, look, merge, measure, push the best, pull it back and check it.

Everything happens in one folder and on this machine: the Hub is loramerge's own on a loopback port, the
digits come with scikit-learn, the adapters are trained and loaded by PEFT. With one thread the numbers
of a second run are those of the first.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from loramerge.core.provenance import pin
from loramerge.errors import IntegrityError, MissingExtra, OutputExists

if TYPE_CHECKING:
    from loramerge.api.session import Session
    from loramerge.demo.digits import Digits
    from loramerge.demo.model import DigitsTransformer

RANKS = {"faint": 4, "thin": 8, "dotted": 16}
"""The rank of the adapter for each shift."""
NEEDS = ("peft", "transformers", "starlette", "uvicorn")
USER = "me"

Row = Mapping[str, Any]


class Listener(Protocol):
    """Who is told the story."""

    def note(self, text: str) -> None:
        """A line of it."""

    def talk_table(self, rows: Sequence[Row], *, title: str = "") -> None:
        """Something to look at on the way."""


@dataclass(frozen=True)
class Scores:
    """What was measured: one row per model, with its rank, its accuracies, and their mean over the shifts."""

    rows: Sequence[Row]
    best: str
    """The merge with the highest mean."""


@dataclass(frozen=True)
class _Stage:
    """Where the story is played: a folder, its Hub, and who listens."""

    out: Listener
    folder: Path
    endpoint: str
    token: str
    effort: float

    def session(self, name: str) -> Session:
        """A workspace of that name with a cache of its own, as on a machine of its own."""
        from loramerge.api.session import Session

        place = self.folder / name
        place.mkdir()
        return Session(place, self.endpoint, self.token, workers=1, cache=self.folder / f"{name}-cache")

    def step(self, text: str, *commands: str, at: str = "work") -> None:
        """A step: what happens, and what a user would type for it in which folder."""
        self.out.note("")
        self.out.note(text)
        for command in commands:
            self.out.note(f"  {at} $ {command}")


def run(out: Listener, folder: Path | None = None, *, effort: float = 1.0) -> Scores:
    """Play the story in `folder` (kept afterwards; must be empty) or in a temporary one.

    `effort` is the share of the training that is done: little makes everything quick and the models bad.

    Raises MissingExtra where PEFT or the Hub's server is not installed, OutputExists where the folder
    holds something, IntegrityError where what comes back from the Hub is not what was sent.
    """
    _require_extras()
    with _place(folder) as place, _loopback():
        from loramerge.hub.server.serve import running

        with running(place / "hub", user=USER) as hub:
            return _play(_Stage(out, place, hub.endpoint, hub.token, effort))


def _play(stage: _Stage) -> Scores:
    from loramerge.demo import digits

    login = f"export HF_ENDPOINT={stage.endpoint} HF_TOKEN=hf_…"
    stage.step("A Hub of our own", "loramerge hub serve --root hub &", login, at="demo")
    training, test = digits.load()
    base = _train(stage, training)
    work = stage.session("work")
    _publish(stage, work)
    names = _fetch(stage, work)
    merges = _merge(stage, work)

    stage.step("Read the 500 test digits with the base, each adapter and each merge, all loaded by PEFT")
    tests = {"original": test, **{shift: test.shifted(shift) for shift in RANKS}}
    folders = {name: _folder(work, name) for name in names} | merges
    rows = [_row("base", base, tests), *(_scored(name, base, path, tests) for name, path in folders.items())]
    best = max((row for row in rows if row["model"] in merges), key=lambda row: float(row["shifts"]))
    _publish_best(stage, work, best, base, tests)
    return Scores(rows, str(best["model"]))


def _train(stage: _Stage, training: Digits) -> DigitsTransformer:
    from loramerge.demo import train

    stage.step(f"Train a small transformer on {len(training.labels)} digits, and with PEFT one LoRA per shift of them")
    base = train.base(training, train.BASE.times(stage.effort))
    schedule = train.ADAPTER.times(stage.effort)
    for shift, rank in RANKS.items():
        train.adapter(base, training.shifted(shift), rank, stage.folder / "trained" / shift, schedule)
        stage.out.note(f"  trained/{shift}, rank {rank}")
    return base


def _publish(stage: _Stage, work: Session) -> None:
    from loramerge import api

    stage.step("Push them", *(f"loramerge push ../trained/{shift} {_repo(shift)}" for shift in RANKS))
    for shift in RANKS:
        api.push(work, f"../trained/{shift}", _repo(shift))


def _fetch(stage: _Stage, work: Session) -> list[str]:
    from loramerge import api

    repos = [_repo(shift) for shift in RANKS]
    stage.step(
        "Pull them into a workspace: pinned to a commit, every file verified", f"loramerge pull {' '.join(repos)}"
    )
    rows = api.pull(work, repos)
    stage.out.talk_table(rows)
    names = [str(row["name"]) for row in rows]
    stage.step("Look at one", f"loramerge inspect {names[0]}")
    stage.out.talk_table(api.inspect(work, names[0]).families)
    return names


def _merge(stage: _Stage, work: Session) -> dict[str, Path]:
    from loramerge import api

    stage.step(
        "Merge all three into one of rank 8, in three ways",
        "loramerge lego --k 8",
        "loramerge merge --method linear --rank 8 -o mean-8",
        "loramerge merge --method linear --weights sqrt --rank 8 -o sqrt-8",
    )
    made = [
        api.lego(work, k=8),
        api.merge(work, method="linear", rank=8, out=Path("mean-8")),
        api.merge(work, method="linear", weighting="sqrt", rank=8, out=Path("sqrt-8")),
    ]
    stage.out.talk_table(made[0].report["families"])
    return {merged.name: merged.path for merged in made}


def _publish_best(
    stage: _Stage, work: Session, best: Row, base: DigitsTransformer, tests: Mapping[str, Digits]
) -> None:
    from loramerge import api

    name, repo = str(best["model"]), _repo("merged")
    stage.step("Push the best merge with its card", f"loramerge push {name} {repo}")
    api.push(work, name, repo)

    stage.step(
        "Pull it back on another machine, and check it", f"loramerge pull {repo}", "loramerge verify", at="elsewhere"
    )
    other = stage.session("elsewhere")
    pulled = str(api.pull(other, [repo])[0]["name"])
    api.verify(other, [pulled])
    _compare(work.folder / name, _folder(other, pulled))
    if _scored(name, base, _folder(other, pulled), tests) != best:
        raise IntegrityError("What came back from the Hub reads digits differently.", where=repo)
    stage.out.note("  the same bytes, and the same accuracy")

    commands = (f"loramerge log {pulled}", f"loramerge rebuild {pulled}")
    stage.step("What it was made of; and make it again from that", *commands, at="elsewhere")
    for line in api.log(other, pulled).lines():
        stage.out.note(f"  {line}")
    stage.out.talk_table(api.rebuild(other, pulled))


def _compare(sent: Path, received: Path) -> None:
    names = ("adapter_model.safetensors", "adapter_config.json")
    if pin(sent, names) != pin(received, names):
        raise IntegrityError("What came back from the Hub is not what was sent.", where=str(received))


def _scored(name: str, base: DigitsTransformer, folder: Path, tests: Mapping[str, Digits]) -> Row:
    from loramerge.demo import train

    adapted = train.adapted(base, folder)
    return _row(name, adapted, tests, rank=adapted.peft_config["default"].r)


def _row(name: str, model: Any, tests: Mapping[str, Digits], rank: int | None = None) -> Row:
    from loramerge.demo import train

    found = {shift: train.accuracy(model, digits) for shift, digits in tests.items()}
    return {"model": name, "rank": rank, **found, "shifts": sum(found[shift] for shift in RANKS) / len(RANKS)}


def _folder(work: Session, name: str) -> Path:
    return work.workspace.path_of(work.workspace.get(name), work.hub)


def _repo(name: str) -> str:
    return f"{USER}/digits-{name}"


def _require_extras() -> None:
    missing = [name for name in NEEDS if find_spec(name) is None]
    if missing:
        raise MissingExtra(f"The demo needs {', '.join(missing)}.", hint="pip install 'loramerge[demo]'")


@contextmanager
def _loopback() -> Iterator[None]:
    """Proxies and HF_HUB_OFFLINE are about other machines: neither may stand between the story and its Hub.

    huggingface_hub reads the latter once, when it is first imported.
    """
    before = dict(os.environ)
    direct = ",".join(filter(None, (before.get("no_proxy") or before.get("NO_PROXY"), "127.0.0.1", "localhost")))
    os.environ.update(no_proxy=direct, NO_PROXY=direct)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="loramerge-demo-") as made:
            yield Path(made)
        return
    if folder.exists() and any(folder.iterdir()):
        raise OutputExists("The demo wants a folder of its own.", where=str(folder), hint="an empty or a new one")
    folder.mkdir(parents=True, exist_ok=True)
    yield folder.resolve()
