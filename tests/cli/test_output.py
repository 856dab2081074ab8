"""The sink: what goes where in which mode, and that strangers' texts stay texts."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys

import pytest

from loramerge.cli._output import Output, clean

ROWS = [{"name": "x", "rank": 4, "energy": 0.123456}, {"name": "y", "rank": None, "note": "late"}]
EVIL = "\x1b[31mred\x1b[0m\r\n[bold]b[/bold] [/] :boom: \x9b2J\x00\x7f\u202eab\udcff"


@pytest.fixture
def said(capsys):
    """said(mode, method, ...) -> (stdout, stderr) of one call of the sink."""

    def say(mode, method, *arguments, **options):
        capsys.readouterr()
        getattr(Output(mode), method)(*arguments, **options)
        return tuple(capsys.readouterr())

    return say


def cells(text):
    """The words of a printed table, line by line, without rules."""
    return [line.split() for line in text.splitlines() if line.strip(" ─━╺")]


# Data


def test_a_table_of_rows_that_differ_has_all_columns(said):
    out, err = said("human", "table", ROWS, id="name")

    assert cells(out) == [["name", "rank", "energy", "note"], ["x", "4", "0.123"], ["y", "late"]]
    assert err == ""


@pytest.mark.parametrize(("mode", "expected"), [("json", json.dumps(ROWS) + "\n"), ("quiet", "x\ny\n")])
def test_a_table_for_scripts(said, mode, expected):
    assert said(mode, "table", ROWS, id="name") == (expected, "")


@pytest.mark.parametrize(("mode", "expected"), [("human", ""), ("json", "[]\n"), ("quiet", "")])
def test_no_rows_are_still_an_answer(said, mode, expected):
    assert said(mode, "table", [], id="name") == (expected, "")


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("human", "✓ Merged\n  path: ./x\n  norm ratio: 0.5\n  kept: yes\n"),
        (
            "json",
            '{"path": "./x", "norm_ratio": 0.5, "kept": true, "none": null, "empty": {}, "rows": [1], "notes": []}\n',
        ),
        ("quiet", "./x\n"),
    ],
)
def test_one_result(said, mode, expected):
    fields = {"path": "./x", "norm_ratio": 0.5, "kept": True, "none": None, "empty": {}}

    assert said(mode, "result", "Merged", fields, id="path", more={"rows": [1]}) == (expected, "")


def test_a_zero_is_a_value_and_is_shown(said):
    out, _ = said("human", "result", "Done", {"id": "x", "freed": 0, "same": False}, id="id")

    assert out == "✓ Done\n  id: x\n  freed: 0\n  same: no\n"


def test_facts_and_the_table_that_belongs_to_them(said):
    facts, rows = {"name": "x", "extras": {}, "kinds": {"bias": 2}}, [{"family": "mlp"}]

    human, _ = said("human", "record", facts, more=("families", rows), id="name")
    plain, _ = said("json", "record", facts, more=("families", rows), id="name")

    assert cells(human) == [["name:", "x"], ["kinds:", "2", "bias"], ["family"], ["mlp"]]
    assert json.loads(plain) == {**facts, "families": rows, "notes": []}
    assert said("quiet", "record", facts, more=("families", rows), id="name") == ("x\n", "")


@pytest.mark.parametrize(
    ("method", "arguments", "more"),
    [
        ("result", ["Done", {"id": "x"}], {}),
        ("record", [{"id": "x"}], {"more": ("rows", [{"a": 1}])}),
    ],
    ids=["result", "record"],
)
def test_notes_are_a_key_for_scripts_and_talk_for_people(said, method, arguments, more):
    human, talk = said("human", method, *arguments, id="id", **more, notes=("first", "second"))
    plain, silence = said("json", method, *arguments, id="id", **more, notes=("first", "second"))

    assert "first" not in human
    assert talk == "  first\n  second\n"
    assert (json.loads(plain)["notes"], silence) == (["first", "second"], "")
    assert said("quiet", method, *arguments, id="id", **more, notes=("first", "second")) == ("x\n", "")


@pytest.mark.parametrize(("mode", "expected"), [("human", "a\nb\n"), ("quiet", "a\nb\n"), ("json", '{"a": 1}\n')])
def test_lines_of_text(said, mode, expected):
    assert said(mode, "text", iter(["a", "b"]), {"a": 1}) == (expected, "")


# Talk


@pytest.mark.parametrize(
    ("method", "arguments"), [("note", ["n"]), ("hint", ["loramerge ls"]), ("talk_table", [[{"a": 1}]])]
)
def test_talk_is_for_people_and_goes_to_stderr(said, method, arguments):
    out, err = said("human", method, *arguments)

    assert out == ""
    assert err
    assert said("json", method, *arguments) == said("quiet", method, *arguments) == ("", "")


def test_an_error_has_up_to_three_lines(said):
    assert said("human", "error", "Bad.", "./x", "do y", 3) == ("", "Error: Bad.\n  at: ./x\n  try: do y\n")
    assert said("quiet", "error", "Bad.", "", "", 3) == ("", "Error: Bad.\n")


def test_an_error_for_scripts_is_one_object(said):
    out, err = said("json", "error", "Bad.", "./x", "", 3)

    assert out == ""
    assert json.loads(err) == {"error": "Bad.", "where": "./x", "hint": "", "exit_code": 3}


# Strangers


CALLS = [
    ("table", [[{"name": EVIL, "n": 1}]], {"id": "name", "title": EVIL}),
    ("result", ["Done", {"name": EVIL, "list": [EVIL]}], {"id": "name", "notes": [EVIL]}),
    ("record", [{"name": EVIL, EVIL: 1}], {"id": "name", "more": ("rows", [{"name": EVIL}]), "notes": [EVIL]}),
    ("text", [[EVIL, EVIL], {"name": EVIL}], {}),
    ("talk_table", [[{"name": EVIL}]], {"title": EVIL}),
    ("note", [EVIL], {}),
    ("hint", [EVIL], {}),
    ("error", [EVIL, EVIL, EVIL, 1], {}),
]


@pytest.mark.parametrize("mode", ["human", "json", "quiet"])
@pytest.mark.parametrize(("method", "arguments", "options"), CALLS, ids=[call[0] for call in CALLS])
def test_what_moves_a_terminal_never_reaches_it(said, mode, method, arguments, options):
    for text in said(mode, method, *arguments, **options):
        assert all(character.isprintable() for character in text.replace("\n", "")), repr(text)


@pytest.mark.parametrize(("method", "arguments", "options"), CALLS, ids=[call[0] for call in CALLS])
def test_markup_is_text(said, method, arguments, options):
    printed = "".join(said("human", method, *arguments, **options))

    assert "[bold]b[/bold] [/]" in printed
    assert ":boom:" in printed


@pytest.mark.parametrize(("method", "arguments", "options"), CALLS[:4], ids=[call[0] for call in CALLS[:4]])
def test_json_holds_what_was_said_whatever_it_was(said, method, arguments, options):
    out, _ = said("json", method, *arguments, **options)

    assert out.isascii()
    assert EVIL in _texts(json.loads(out))


def _texts(value):
    """All leaves and keys of a JSON value."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return [text for item in value for text in _texts(item)] if isinstance(value, list) else [value]


def test_one_name_is_one_line_for_scripts(said):
    out, _ = said("quiet", "table", [{"name": "a\nb"}, {"name": "c\u2028d"}], id="name")

    assert out == "a b\nc d\n"


@pytest.mark.parametrize(
    ("text", "expected"), [("ok é ΔW ✓", "ok é ΔW ✓"), ("a\tb", "a b"), ("\x1b]0;t\x07", " ]0;t ")]
)
def test_clean_text_is_printable(text, expected):
    assert clean(text) == expected


def test_a_hostile_adapter_is_shown_listed_and_merged_as_text(run, tmp_path, monkeypatch, write_adapter):
    for name in ("one", "two"):
        write_adapter(tmp_path / name, base=f"\x1b[2J[red]{name[0]}/x\n", task_type="\x9b1m[b]")
    monkeypatch.chdir(tmp_path)

    found = [
        run("show", "./one"),
        run("show", "./one", "-q"),
        run("pull", "./one", "./two"),
        run("ls"),
        run("merge", "--allow-base-mismatch"),
        run("log", "linear-4"),
        run("verify"),
        run("merge"),
    ]

    assert [one.code for one in found] == [0, 0, 0, 0, 0, 0, 0, 4]
    for text in (text for one in found for text in (one.out, one.err)):
        assert all(character.isprintable() for character in text.replace("\n", "")), repr(text)
    assert "[red]" in found[0].out
    assert "[red]" in found[3].out


def test_a_hostile_record_is_drawn_as_text(run, work):
    assert run("merge", "--rank", "2", "-o", "made").code == 0
    path = work / "made" / "loramerge.json"
    record = json.loads(path.read_text())
    record["lineage"]["parents"][0]["name"] = "x\n└─ \x1b[2Jtrusted"
    path.write_text(json.dumps(record))

    found = run("log", "./made")

    assert found.code == 0
    assert len(found.lines) == 4
    assert "x └─  [2Jtrusted" in found.lines[1]


# Terminals


def on_a_terminal(line, folder, **environment):
    """(stdout, stderr) of a command line that sees terminals behind both."""
    pairs = [pty.openpty() for _ in range(2)]
    settings = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "loramerge", *line.split()],
        stdout=pairs[0][1],
        stderr=pairs[1][1],
        cwd=folder,
        env=settings,
    )
    for _, child in pairs:
        os.close(child)
    found = {parent: b"" for parent, _ in pairs}
    open_ = set(found)
    while open_:
        for parent in select.select(list(open_), [], [], 30)[0]:
            try:
                found[parent] += (data := os.read(parent, 65536))
            except OSError:  # what Linux says when the other side is closed
                data = b""
            open_ -= set() if data else {parent}
    for parent in found:
        os.close(parent)
    assert process.wait(timeout=30) == 0
    return [text.decode() for text in found.values()]


def test_on_a_terminal_bars_are_drawn_on_stderr_and_no_color_is_honoured(work):
    out, err = on_a_terminal("merge --rank 2", work, NO_COLOR="1")

    assert "✓ Merged" in out
    assert "\x1b" not in out
    assert "linear" in err
    assert "4 / 4 modules" in err
    assert "\x1b[3" not in err


@pytest.mark.parametrize("mode", ["-q", "--format json"])
def test_on_a_terminal_scripts_still_read_data_only(work, mode):
    out, err = on_a_terminal(f"merge --rank 2 {mode}", work)

    assert err == ""
    assert "\x1b" not in out


def test_an_encoding_without_the_right_letters_is_no_reason_to_fail(work):
    line = [sys.executable, "-m", "loramerge", "merge", "--rank", "2"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}

    found = subprocess.run(line, capture_output=True, text=True, cwd=work, env=environment, check=False)

    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("? Merged")
