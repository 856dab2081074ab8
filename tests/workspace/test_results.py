from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from loramerge.core.provenance import FilePin, Lineage, Parent, pin
from loramerge.errors import BadConfig, IntegrityError, LoramergeError, OutputExists
from loramerge.workspace import results
from loramerge.workspace.results import Record, copy, new_folder, read_record, write_record

LINEAGE = Lineage(
    method="lego",
    options={"k": 8},
    parents=(Parent("a", 0.0, (FilePin("x", 1, "a" * 64),), repo="u/a", commit="c" * 40, licence="mit"),),
    base="u/base",
    versions={"loramerge": "0.1.0"},
)


def make(out: Path, text: str = "new", *, force: bool = False) -> None:
    with new_folder(out, force) as folder:
        (folder / "heads").mkdir()
        (folder / "heads/x.txt").write_text(text)
        write_record(folder, Record("adapter", LINEAGE))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_folder_appears_when_the_block_ends_and_not_before(tmp_path):
    out = tmp_path / "out"

    with new_folder(out) as folder:
        (folder / "x").write_text("x")
        before = out.exists()

    assert not before
    assert names(tmp_path) == {"out"}
    assert (out / "x").read_text() == "x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, LoramergeError])
def test_whatever_stops_the_work_leaves_nothing(tmp_path, error):
    def work():
        with new_folder(tmp_path / "deep/er/out") as folder:
            (folder / "x").write_text("x")
            raise error("stop")

    with pytest.raises(error, match="stop"):
        work()

    assert names(tmp_path) == set()


def test_missing_parents_are_made(tmp_path):
    make(tmp_path / "deep/er/out")

    assert (tmp_path / "deep/er/out/heads/x.txt").is_file()


def test_an_output_that_is_there_is_refused(tmp_path):
    make(tmp_path / "out", "old")

    with pytest.raises(OutputExists) as caught:
        make(tmp_path / "out")

    assert "--force" in caught.value.hint
    assert (tmp_path / "out/heads/x.txt").read_text() == "old"


def test_force_replaces_a_result(tmp_path):
    make(tmp_path / "out", "old")
    (tmp_path / "out/stale").write_text("stale")

    make(tmp_path / "out", "new", force=True)

    assert (tmp_path / "out/heads/x.txt").read_text() == "new"
    assert names(tmp_path) == {"out"}
    assert "stale" not in names(tmp_path / "out")


def test_a_replacement_that_fails_leaves_the_old_one(tmp_path):
    make(tmp_path / "out", "old")

    def work():
        with new_folder(tmp_path / "out", force=True):
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        work()

    assert (tmp_path / "out/heads/x.txt").read_text() == "old"
    assert names(tmp_path) == {"out"}


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_force_never_replaces_what_is_not_a_result(tmp_path, kind):
    out = tmp_path / "precious"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.tex").write_text("x")
    else:
        out.write_text("x")

    with pytest.raises(OutputExists, match="not a result"):
        make(out, force=True)

    assert out.exists()


def test_systems_without_an_exchange_of_names_replace_in_two_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "_exchanged", lambda one, other: False)
    make(tmp_path / "out", "old")

    make(tmp_path / "out", "new", force=True)

    assert (tmp_path / "out/heads/x.txt").read_text() == "new"
    assert names(tmp_path) == {"out"}


def test_an_output_lost_between_those_two_steps_comes_back(tmp_path):
    make(tmp_path / "out", "old")
    code = f"""
        results._exchanged = lambda one, other: False
        rename = Path.rename
        def once(self, target):
            rename(self, target)
            os.kill(os.getpid(), 9)
        Path.rename = once
        with results.new_folder(Path({str(tmp_path / "out")!r}), True):
            pass
    """
    assert child(code).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()

    with pytest.raises(OutputExists):
        make(tmp_path / "out")

    assert (tmp_path / "out/heads/x.txt").read_text() == "old"


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path):
    code = f"""
        with results.new_folder(Path({str(tmp_path / "out")!r})) as folder:
            (folder / "x").write_text("x")
            os.kill(os.getpid(), 9)
    """
    assert child(code).returncode == -signal.SIGKILL
    left = names(tmp_path)

    make(tmp_path / "out")

    assert len(left) == 1
    assert next(iter(left)).startswith(".out.")
    assert names(tmp_path) == {"out"}


def test_what_a_living_process_writes_is_left_alone(tmp_path):
    with new_folder(tmp_path / "out") as ours:
        make(tmp_path / "out")
        alive = ours.exists()
        (tmp_path / "out").rename(tmp_path / "other")

    assert alive


def test_a_kill_at_any_moment_of_a_replacement_shows_the_old_or_the_new(tmp_path):
    make(tmp_path / "out", "old")
    code = f"""
        print("ready", flush=True)
        for i in range(10**6):
            with results.new_folder(Path({str(tmp_path / "out")!r}), True) as folder:
                (folder / "loramerge.json").write_text("{{}}")
                (folder / "a").write_text(str(i))
                (folder / "b").write_text(str(i))
    """
    for moment in range(12):
        with subprocess.Popen([sys.executable, "-c", program(code)], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(0.003 * moment)
            process.send_signal(signal.SIGKILL)

        seen = names(tmp_path / "out")
        assert seen in ({"heads", "loramerge.json"}, {"loramerge.json", "a", "b"})
        assert "a" not in seen or (tmp_path / "out/a").read_text() == (tmp_path / "out/b").read_text()

    make(tmp_path / "out", force=True)
    assert names(tmp_path) == {"out"}


def test_a_file_size_limit_is_a_clear_error_and_leaves_nothing(tmp_path):
    code = f"""
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with results.new_folder(Path({str(tmp_path / "out")!r})) as folder:
            (folder / "x").write_bytes(bytes(5000))
    """

    said = child(code).stdout

    assert said.startswith("The output cannot be written: File too large. Nothing is left of it.")
    assert names(tmp_path) == set()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_a_clear_error_and_leaves_nothing(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with (
            pytest.raises(LoramergeError, match="No space left on device") as caught,
            new_folder(tmp_path / "out") as f,
        ):
            (f / "x").write_bytes(bytes(1 << 20))
        left = names(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path], check=True)

    assert caught.value.where == str(tmp_path / "out")
    assert left == set()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not write")
def test_a_read_only_parent_is_a_clear_error():
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        code = f"""
            with results.new_folder(Path({parent!r}) / "out"):
                pass
        """

        said = child(code, become=65534).stdout

        assert said.startswith("The output cannot be written: Permission denied")
        assert names(Path(parent)) == set()


def test_an_input_that_cannot_be_read_is_not_blamed_on_the_output(tmp_path):
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "out"):
        Path("/nowhere/input").read_bytes()

    assert names(tmp_path) == set()


def test_copies_are_files_with_the_pinned_bytes(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (tmp_path / "blob").write_text("bytes")
    (source / "heads").mkdir()
    (source / "heads/x").symlink_to(tmp_path / "blob")

    copy(source, pin(source, ["heads/x"]), target)

    assert not (target / "heads/x").is_symlink()
    assert (target / "heads/x").read_text() == "bytes"


def test_a_copy_of_other_bytes_is_refused(tmp_path):
    (tmp_path / "x").write_text("bytes")
    (pinned,) = pin(tmp_path, ["x"])
    (tmp_path / "x").write_text("bytez")
    (tmp_path / "target").mkdir()

    with pytest.raises(IntegrityError, match="x has sha256"):
        copy(tmp_path, [pinned], tmp_path / "target")


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    record = Record("adapter", LINEAGE, {"method": "lego"}, {"families": [{"family": "q", "kept": 0.5}]})

    write_record(tmp_path, record)

    assert read_record(tmp_path) == record


def test_a_record_is_the_same_bytes_for_the_same_record(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_record(tmp_path / name, Record("adapter", LINEAGE, {"b": 1, "a": 2}, {"x": float("nan")}))

    assert (tmp_path / "a/loramerge.json").read_bytes() == (tmp_path / "b/loramerge.json").read_bytes()


DAMAGE = {
    "absent": None,
    "not JSON": b"{",
    "not UTF-8": b"\xff",
    "an abyss": b"[" * 100_000,
    "no object": b"[]",
    "a later schema": b'{"schema": 2}',
    "no kind": b'{"schema": 1}',
    "no lineage": b'{"schema": 1, "kind": "adapter", "recipe": {}, "report": {}}',
    "hostile lineage": b'{"schema": 1, "kind": "adapter", "recipe": {}, "report": {}, "lineage": {"schema": 1,'
    b' "method": "x", "options": {}, "parents": [{"name": ["x"], "weight": 1}]}}',
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_record_is_a_clear_error(tmp_path, kind):
    if DAMAGE[kind] is not None:
        (tmp_path / "loramerge.json").write_bytes(DAMAGE[kind])

    with pytest.raises(BadConfig) as caught:
        read_record(tmp_path)

    assert caught.value.where.endswith("loramerge.json")


def child(body: str, become: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program that prints one of our errors if it ends with one."""
    return subprocess.run([sys.executable, "-c", program(body, become)], capture_output=True, text=True, check=False)


def program(body: str, become: int | None = None) -> str:
    lines = [
        "import os",
        "from pathlib import Path",
        "from loramerge.errors import LoramergeError",
        "from loramerge.workspace import results",
        f"os.setuid({become})" if become else "",
        "try:",
        textwrap.indent(textwrap.dedent(body), "    "),
        "except LoramergeError as error:",
        "    print(error)",
    ]
    return "\n".join(lines)


def test_an_output_that_appears_meanwhile_is_not_lost(tmp_path):
    out = tmp_path / "out"

    def write() -> None:
        with new_folder(out) as folder:
            (folder / "new").write_text("new")
            out.mkdir()
            (out / "precious").write_text("mine")

    with pytest.raises(OutputExists):
        write()

    assert [path.name for path in out.iterdir()] == ["precious"]


def test_a_training_folder_is_not_replaced(tmp_path):
    out = tmp_path / "run"
    (out / "checkpoint-100").mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors", "checkpoint-100/optimizer.pt"):
        (out / name).write_text("x")

    with pytest.raises(OutputExists, match="not a result"), new_folder(out, force=True):
        pass

    assert (out / "checkpoint-100/optimizer.pt").exists()
