"""How commands fail: one table from exceptions to messages and exit codes, one door that prints them."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys

import click
import pytest

from loramerge import errors
from loramerge.cli._errors import describe
from loramerge.errors import LoramergeError

# The contract: 0 ok · 1 failure · 2 usage · 3 bad format or content · 4 incompatible adapters ·
# 5 not found, gated or not allowed · 6 network or offline · 7 integrity (hash, signature, lock) · 130 interrupted.
CODES = {
    "LoramergeError": 1,
    "UsageError": 2,
    "BadOption": 2,
    "UnknownName": 2,
    "AmbiguousName": 2,
    "MissingExtra": 2,
    "NeedsData": 2,
    "OutputExists": 2,
    "FormatError": 3,
    "UnknownFormat": 3,
    "BadConfig": 3,
    "BadTensor": 3,
    "UnsafePickle": 3,
    "UnsupportedAdapter": 3,
    "IncompatibleError": 4,
    "ShapeMismatch": 4,
    "BaseMismatch": 4,
    "NeedsBase": 4,
    "AccessError": 5,
    "NotFound": 5,
    "Gated": 5,
    "NotAllowed": 5,
    "NetworkError": 6,
    "Offline": 6,
    "IntegrityError": 7,
    "LockMismatch": 7,
}


def test_the_contract_names_every_class():
    known = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, LoramergeError)}

    assert known == set(CODES)


@pytest.mark.parametrize("name", CODES)
def test_a_class_has_the_exit_code_of_the_contract(name):
    error = getattr(errors, name)("What.", where="there", hint="this")

    assert describe(error) == ("What.", "there", "this", CODES[name])


@pytest.mark.parametrize(
    ("number", "message", "hint"),
    [
        (errno.ENOSPC, "The disk is full.", "free some space, or choose another folder with -o"),
        (errno.EDQUOT, "The disk quota is used up.", "free some space, or choose another folder with -o"),
        (errno.EFBIG, "The file grew beyond the limit of this process.", "ulimit -f unlimited, or another disk"),
        (errno.EACCES, "Permission denied.", "choose a folder that you may write to with -o or -C"),
        (errno.EPERM, "Permission denied.", "choose a folder that you may write to with -o or -C"),
        (errno.EROFS, "The file system is read-only.", "choose a folder that you may write to with -o or -C"),
        (errno.EMFILE, "Too many open files.", "ulimit -n 4096"),
        (errno.EIO, "Input/output error.", ""),
    ],
)
def test_what_the_system_refuses_is_said_with_the_file_and_a_way_out(number, message, hint):
    error = OSError(number, os.strerror(number), "./x")

    assert describe(error) == (message, "./x", hint, 1)


def test_an_error_of_the_system_without_a_number_keeps_its_words():
    assert describe(OSError("odd")) == ("odd.", "", "", 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_an_interruption_is_130(error):
    assert describe(error) == ("Interrupted; nothing half-written was left.", "", "", 130)


def test_too_little_memory_has_a_way_out():
    assert describe(MemoryError())[2:] == ("--workers 1, or a smaller --max-memory", 1)


def test_what_nobody_foresaw_names_its_class_and_where_to_look():
    assert describe(ValueError("odd")) == ("ValueError: odd", "", "--debug shows where; please report it", 1)


# Through the door


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("frobnicate", 2, ["no command named 'frobnicate'", "try: "]),
        ("megre", 2, ["no command named 'megre'", "try: merge"]),
        ("ls --nope", 2, ["No such option '--nope'", "try: loramerge ls --help"]),
        ("--nope ls", 2, ["No such option '--nope'", "try: loramerge --help"]),
        ("lego", 2, ["Missing option '--k'", "try: loramerge lego --help"]),
        ("show", 2, ["Missing argument 'REF'", "try: loramerge show --help"]),
        ("ls here", 2, ["unexpected extra argument", "try: loramerge ls --help"]),
        ("lego --k eight", 2, ["'eight' is not a valid integer"]),
        ("--workers 0 ls", 2, ["Invalid value for '--workers'"]),
        ("--format xml ls", 2, ["Invalid value for '--format'"]),
        ("push a b c", 2, ["one REF at most", "try: loramerge push --help"]),
        ("hub serf", 2, ["No such command 'serf'"]),
        ("merge --max-memory lots", 2, ["'lots' is not a size", "try: 512MB"]),
        ("merge --max-memory 1KB", 2, ["above --max-memory", "at: layers.", "try: --max-memory"]),
        ("merge --method legoo", 2, ["no merge method named 'legoo'", "try: lego"]),
        ("merge -O k=3", 2, ["no option 'k'"]),
        ("merge -O k", 2, ["'k' is not KEY=VALUE", "try: -O k=8"]),
        ("merge --base ab", 2, ["'ab' is no name of a base model", "try: --base PATH"]),
        ("merge -w mat-lora=1", 2, ["named 'mat-lora'", "try: math-lora"]),
        ("merge missing.yaml", 2, ["recipe cannot be read"]),
        ("lego --k 0", 2, ["k is 0, below 1"]),
        ("lego --k 99", 2, ["no module has more than 14 units"]),
        ("lego --k 4 --k-for *.none=2", 2, ["No module matches '*.none'"]),
        ("show mat-lora", 2, ["no adapter named 'mat-lora'", "try: math-lora"]),
        ("assemble my-own-lora -o x", 5, ["There is no units.jsonl here", "try: loramerge decompose"]),
        ("show ./nothing", 5, ["no such folder"]),
        ("show acme/nothing", 5, ["acme/nothing"]),
        ("show not//a//repo", 2, ["is not a repo of the Hub"]),
        ("log my-own-lora", 3, ["no record of how this was made"]),
        ("--offline pull acme/other", 6, ["--offline forbids"]),
        ("--endpoint http://127.0.0.1:9 show acme/math-lora@v9", 6, ["127.0.0.1:9"]),
        ("merge -o my-own-lora", 2, ["take the place of the input 'my-own-lora'"]),
    ],
)
def test_a_mistake_is_told_in_three_lines_at_most(run, work, line, code, said):
    before = sorted(work.rglob("*"))

    found = run(*line.split())

    assert (found.code, found.out) == (code, "")
    assert found.err.startswith("Error: ")
    assert len(found.err.splitlines()) <= 3
    assert all(part in found.err for part in said), found.err
    assert sorted(work.rglob("*")) == before


def test_an_error_for_scripts_is_one_object_on_stderr(run, work):
    found = run("--format", "json", "show", "mat-lora")

    assert (found.code, found.out) == (2, "")
    assert json.loads(found.err) == {
        "error": "This workspace has no adapter named 'mat-lora'.",
        "where": str(work),
        "hint": "math-lora, my-own-lora, code-lora",
        "exit_code": 2,
    }


def command(*arguments, **options):
    line = [sys.executable, "-m", "loramerge", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize("group", [[], ["hub"]])
def test_no_command_at_all_is_answered_with_help(group):
    process = command(*group)

    out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (2, "")
    assert err.startswith(" ".join(["Usage: loramerge", *group]))


@pytest.mark.parametrize("debug", [False, True])
def test_a_traceback_is_shown_to_who_asks_for_it(tmp_path, debug):
    process = command("show", "nothing", *(["--debug"] if debug else []), cwd=tmp_path)

    out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (1 if debug else 2, "")
    assert ("Traceback" in err) == debug
    assert "This workspace has no adapter named 'nothing'." in err


def test_ctrl_c_ends_a_command_with_one_line_and_130(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    os.mkfifo(recipe)
    process = command("merge", "recipe.yaml", cwd=tmp_path)

    with recipe.open("w"):  # waits until the command has opened it, which then waits for what is never written
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)

    assert (process.returncode, out) == (130, "")
    assert err.splitlines() == [
        "",
        "Error: Interrupted; nothing half-written was left.",
    ]  # the first ends the line of ^C
