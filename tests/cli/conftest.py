"""A Hub with adapters, workspaces to work in, and the command line in this process."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from loramerge import api
from loramerge.cli.main import main

# The neighbours of these tests are imported by name: they run as scripts too.
sys.path.insert(0, str(Path(__file__).parent))

BASE = "meta-llama/Llama-2-7b-hf"


@dataclass(frozen=True)
class Shop:
    """A Hub on loopback where acme has published math-lora and code-lora; `token` is that of "me"."""

    endpoint: str
    token: str
    acme: str


@dataclass(frozen=True)
class Outcome:
    """How a command line ended."""

    code: int
    out: str
    err: str

    @property
    def data(self):
        """What it printed, as the one JSON value that it is."""
        return json.loads(self.out)

    @property
    def lines(self):
        """What it printed, line by line."""
        return self.out.splitlines()


@pytest.fixture(scope="session")
def shop(tmp_path_factory, write_adapter):
    """Skipped without the extra that serves a Hub."""
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    from loramerge.hub.server.serve import add_user, running

    root = tmp_path_factory.mktemp("shop")
    with running(root / "hub") as server:
        acme = add_user(root / "hub", "acme")
        session = api.Session(root, endpoint=server.endpoint, token=acme)
        for name, rank in (("math-lora", 4), ("code-lora", 8)):
            folder = write_adapter(root / name, rank=rank, base=BASE)
            card = f"---\nlicense: mit\nlibrary_name: peft\nbase_model: {BASE}\n---\n"
            (folder / "README.md").write_text(card)
            api.push(session, str(folder), f"acme/{name}")
        session.hub.api.create_tag("acme/code-lora", tag="v2")
        yield Shop(server.endpoint, server.token, acme)


@pytest.fixture(scope="session")
def stocked(shop, tmp_path_factory, write_adapter):
    """A workspace with both pulled and my-own-lora, a folder in it, added."""
    folder = tmp_path_factory.mktemp("stocked") / "work"
    write_adapter(folder / "my-own-lora", rank=2, base=BASE)
    session = api.Session(folder, endpoint=shop.endpoint, token=shop.token)
    api.pull(session, ["acme/math-lora", "acme/code-lora@v2", "./my-own-lora"])
    return folder


@pytest.fixture
def work(shop, stocked, tmp_path, monkeypatch):
    """A copy of the stocked workspace, to do with as one likes; the current folder."""
    folder = tmp_path / "work"
    shutil.copytree(stocked, folder)
    monkeypatch.chdir(folder)
    api.pull(api.Session(folder, endpoint=shop.endpoint))  # the cache is shared, and some tests purge it
    return folder


@pytest.fixture
def run(shop, capsys, monkeypatch):
    """run("ls", "-q") -> how that command line ended, as "me" and with the Hub of `shop`."""
    monkeypatch.setenv("HF_TOKEN", shop.token)

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["--endpoint", shop.endpoint, "--workers", "1", *map(str, arguments)])
        printed = capsys.readouterr()
        return Outcome(left.value.code, printed.out, printed.err)

    return run
