from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from loramerge.core.provenance import FilePin
from loramerge.errors import AmbiguousName, BadOption, LockMismatch, UnknownName
from loramerge.workspace import lock
from loramerge.workspace.lock import Entry
from loramerge.workspace.workspace import Workspace

PIN = FilePin("adapter_model.safetensors", 10, "a" * 64)
SOURCE = Entry(
    name="math-lora",
    role="source",
    files=(PIN, FilePin("adapter_config.json", 3, "b" * 64)),
    repo="acme/math-lora",
    revision="v2",
    commit="c" * 40,
    subfolder="best",
    base="meta-llama/Llama-2-7b-hf",
    rank=16,
    modules=64,
    size=13,
)
RESULT = Entry(name="lego-8", role="result", files=(PIN,), path="lego-8", rank=8, modules=64, size=10)


def test_what_is_added_is_read_back_sorted_by_name(tmp_path):
    workspace = Workspace(tmp_path)

    workspace.add(SOURCE)
    workspace.add(RESULT)

    assert workspace.entries() == [replace(RESULT, number=1), replace(SOURCE, files=tuple(sorted(SOURCE.files)))]


def test_the_lock_does_not_depend_on_the_order_of_the_work(tmp_path):
    one, other = Workspace(tmp_path / "one"), Workspace(tmp_path / "other")
    entries = [replace(SOURCE, name=f"a{i}", subfolder=f"a{i}") for i in range(3)]
    for workspace, order in ((one, entries), (other, entries[::-1])):
        workspace.root.mkdir()
        for entry in order:
            workspace.add(entry)

    assert one.lock.read_bytes() == other.lock.read_bytes()


def test_a_folder_without_a_lock_is_an_empty_workspace(tmp_path):
    assert Workspace(tmp_path).entries() == []


def test_the_newest_result_is_the_one_made_last(tmp_path):
    workspace = Workspace(tmp_path)
    for name in ("b", "c", "a"):
        workspace.add(replace(RESULT, name=name, path=name))
    workspace.add(replace(RESULT, name="c", path="c"))

    assert workspace.newest_result().name == "c"


def test_a_workspace_without_results_says_so(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.add(SOURCE)

    with pytest.raises(UnknownName, match="no result"):
        workspace.newest_result()


def test_the_same_origin_again_is_an_update(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.add(SOURCE)

    workspace.add(replace(SOURCE, revision="v3", commit="d" * 40))

    assert [entry.commit for entry in workspace.entries()] == ["d" * 40]


def test_a_name_of_another_adapter_is_refused_and_names_the_way_out(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.add(SOURCE)

    with pytest.raises(AmbiguousName, match="acme/math-lora already") as caught:
        workspace.add(replace(SOURCE, repo="other/math-lora"))

    assert "--as" in caught.value.hint
    assert [entry.repo for entry in workspace.entries()] == ["acme/math-lora"]


def test_a_name_of_another_adapter_is_replaced_when_asked(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.add(SOURCE)

    workspace.add(replace(SOURCE, repo="other/math-lora"), replace_other=True)

    assert [entry.repo for entry in workspace.entries()] == ["other/math-lora"]


def test_removing_forgets_one_entry_and_keeps_the_files(tmp_path):
    workspace = Workspace(tmp_path)
    (tmp_path / "lego-8").mkdir()
    workspace.add(SOURCE)
    workspace.add(RESULT)

    gone = workspace.remove("lego-8")

    assert gone.path == "lego-8"
    assert [entry.name for entry in workspace.entries()] == ["math-lora"]
    assert (tmp_path / "lego-8").is_dir()


def test_removing_what_is_not_there_names_its_neighbours(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.add(SOURCE)

    with pytest.raises(UnknownName) as caught:
        workspace.remove("mth-lora")

    assert caught.value.hint == "math-lora"


@pytest.mark.parametrize(
    "name", ["", "a/b", "../x", "-x", "~x", "a b", "a@b", "a:b", "CON", "a.", "x\x1b[2J", "a" * 200]
)
def test_what_reads_as_something_else_cannot_be_a_name(tmp_path, name):
    with pytest.raises(BadOption, match="cannot be the name"):
        Workspace(tmp_path).add(replace(SOURCE, name=name))


DAMAGE = {
    "not TOML": (b"schema = = 1", "line 1"),
    "not UTF-8": (b"schema = \xff", "invalid start byte"),
    "a merge conflict": (b"schema = 1\n<<<<<<< HEAD\n", "line 2"),
    "an abyss": (b"schema = 1\nx = " + b"[" * 5000, "recursion"),
    "a later schema": (b"schema = 2", "schema"),
    "no schema": (b"", "schema"),
    "an unknown kind": (b"schema = 1\n[[virus]]\n", "'virus'"),
    "a table for a list": (b"schema = 1\n[adapter]\n", "'adapter'"),
    "an entry without files": (b'schema = 1\n[[adapter]]\nname = "x"\n', "files"),
    "an entry that pins no files": (
        b'schema = 1\n[[adapter]]\nname = "x"\nrole = "source"\npath = "x"\nfiles = []\n',
        "no files",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_lock_is_an_error_that_says_where(tmp_path, kind):
    text, where = DAMAGE[kind]
    (tmp_path / lock.NAME).write_bytes(text)

    with pytest.raises(LockMismatch, match=where) as caught:
        Workspace(tmp_path).entries()

    assert caught.value.hint


HOSTILE = {
    "name": "../../etc",
    "role": "root",
    "repo": "a/b/../../c",
    "revision": "v1\x1b[31m",
    "commit": "main",
    "subfolder": "../..",
    "rank": -1,
    "modules": "many",
    "size": 2**70,
    "pickle": "yes",
    "number": 1.5,
    "surprise": 1,
}


@pytest.mark.parametrize("field", HOSTILE)
def test_a_hostile_value_in_the_lock_is_refused(tmp_path, field):
    table = {**{f: getattr(SOURCE, f) for f in ("name", "role", "repo", "commit")}, field: HOSTILE[field]}
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    (tmp_path / lock.NAME).write_text("schema = 1\n[[adapter]]\n" + "\n".join(lines) + "\nfiles = []\n")

    with pytest.raises(LockMismatch, match=field):
        Workspace(tmp_path).entries()


@pytest.mark.parametrize(
    "pin",
    [
        {"path": "../x", "size": 1, "sha256": "a" * 64},
        {"path": "/etc/passwd", "size": 1, "sha256": "a" * 64},
        {"path": "x", "size": -1, "sha256": "a" * 64},
        {"path": "x", "size": 1, "sha256": "a" * 63},
        {"path": "x", "size": 1},
    ],
)
def test_a_hostile_file_in_the_lock_is_refused(tmp_path, pin):
    inline = ", ".join(f"{key} = {json.dumps(value)}" for key, value in pin.items())
    (tmp_path / lock.NAME).write_text(
        f'schema = 1\n[[adapter]]\nname = "x"\nrole = "source"\npath = "x"\nfiles = [{{{inline}}}]\n'
    )

    with pytest.raises(LockMismatch, match="adapter 1"):
        Workspace(tmp_path).entries()


def test_two_entries_of_one_name_are_refused(tmp_path):
    files = f'files = [{{path = "x", size = 1, sha256 = "{"a" * 64}"}}]'
    entry = f'[[adapter]]\nname = "x"\nrole = "source"\npath = "x"\n{files}\n'
    (tmp_path / lock.NAME).write_text("schema = 1\n" + entry + entry)

    with pytest.raises(LockMismatch, match="two entries 'x'"):
        Workspace(tmp_path).entries()


def test_a_lock_that_cannot_be_written_stays_as_it_was(tmp_path):
    Workspace(tmp_path).add(SOURCE)
    before = (tmp_path / lock.NAME).read_bytes()

    said = _child(
        f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        Workspace(Path({str(tmp_path)!r})).add(replace(SOURCE, name="other", repo="a/b"))
        """
    )

    assert "cannot be written: File too large" in said
    assert (tmp_path / lock.NAME).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} <= {lock.NAME, ".loramerge.guard"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not write")
def test_a_folder_that_may_not_be_written_is_a_clear_error(tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)

        said = _child(
            f"""
            Workspace(Path({str(tmp_path)!r})).add(SOURCE)  # loads what nobody may not read
            os.setuid(65534)
            Workspace(Path({folder!r})).add(SOURCE)
            """
        )

        assert "cannot be written: Permission denied" in said
        assert not list(Path(folder).iterdir())


def test_two_processes_that_add_at_once_lose_nothing(tmp_path):
    code = _code(
        f"""
        for i in range(15):
            name = f"{{sys.argv[1]}}-{{i}}"
            Workspace(Path({str(tmp_path)!r})).add(replace(SOURCE, name=name, subfolder=name))
        """
    )
    children = [subprocess.Popen([sys.executable, "-c", code, who]) for who in ("a", "b")]

    assert [child.wait() for child in children] == [0, 0]
    assert len(Workspace(tmp_path).entries()) == 30


def test_a_kill_at_any_moment_leaves_a_lock_that_can_be_read(tmp_path):
    code = _code(
        f"""
        workspace = Workspace(Path({str(tmp_path)!r}))
        print("ready", flush=True)
        while True:
            for i in range(20):
                workspace.add(replace(SOURCE, name=f"x{{i}}", subfolder=f"x{{i}}"))
            for i in range(20):
                workspace.remove(f"x{{i}}")
        """
    )
    workspace = Workspace(tmp_path)
    sizes = set()
    for moment in range(12):
        for entry in workspace.entries():
            workspace.remove(entry.name)
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
            child.stdout.readline()
            time.sleep(0.004 * moment)
            child.send_signal(signal.SIGKILL)

        sizes.add(len(workspace.entries()))  # raises where the lock is damaged

    assert len(sizes) > 2


def _child(body: str) -> str:
    """What a child process that ends with one of our errors says."""
    guarded = f"try:\n{textwrap.indent(textwrap.dedent(body), '    ')}\nexcept LoramergeError as e:\n    print(e)"
    run = subprocess.run([sys.executable, "-c", _code(guarded)], capture_output=True, text=True, check=True)
    return run.stdout


def _code(body: str) -> str:
    lines = (
        "import os, sys; from dataclasses import replace; from pathlib import Path",
        "from loramerge.core.provenance import FilePin; from loramerge.errors import LoramergeError",
        "from loramerge.workspace.lock import Entry; from loramerge.workspace.workspace import Workspace",
        "import filelock, tomli_w",
        f"SOURCE = {SOURCE!r}",
    )
    return "\n".join(lines) + "\n" + textwrap.dedent(body)
