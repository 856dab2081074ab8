"""Every command: what people see, what scripts read, and that its example runs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import yaml
from changes import change_config

from loramerge.cli.main import COMMANDS
from loramerge.core.provenance import sha256_file
from loramerge.formats._format import open_adapter

# What an example needs to have been done before it.
BEFORE = {
    "assemble": ["decompose math-lora -o math-units"],
    "log": ["lego --k 8"],
    "push": ["lego --k 8"],
    "rebuild": ["lego --k 8"],
    "report": ["lego --k 8"],
}
ENDLESS = {"hub", "demo"}
"""`hub serve` runs until it is stopped, and has a test of its own below; so has the demo, which takes minutes."""
APART = {"stats", "eval", "tune"}
"""Those that run a base model: `test_stats.py` and `test_eval.py` have one."""


def example(name):
    """The command line of a command's example, and the command's own part of it."""
    words = shlex.split(COMMANDS[name].epilog.removeprefix("Example: "))
    assert words[:2] == ["loramerge", name]
    return words[1:]


def run_all(run, lines):
    for line in lines:
        found = run(*shlex.split(line))
        assert found.code == 0, found.err


@pytest.mark.parametrize("name", sorted(set(COMMANDS.names()) - ENDLESS - APART))
def test_the_example_of_a_command_runs(run, work, name):
    run_all(run, BEFORE.get(name, []))

    found = run(*example(name))

    assert found.code == 0, found.err
    assert found.out


@pytest.mark.slow
def test_the_example_of_the_demo_runs():
    line = [sys.executable, "-m", "loramerge", *example("demo")]

    found = subprocess.run(line, capture_output=True, text=True, check=False, timeout=600)

    assert found.returncode == 0, found.stderr
    assert "digits" in found.stdout


@contextmanager
def hub_serve(folder, *options):
    """The example of `hub serve` in a process of its own; interrupted in the end, it has to end well and silently."""
    words = shlex.split(COMMANDS["hub"].commands["serve"].epilog.removeprefix("Example: loramerge "))
    line = [sys.executable, "-m", "loramerge", *options, *words, "--port", "0"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")


def test_hub_serve_serves_until_it_is_stopped(run, tmp_path, monkeypatch):
    with hub_serve(tmp_path, "--format", "json") as process:
        served = json.loads(process.stdout.readline())
        monkeypatch.setenv("HF_TOKEN", served["token"])
        found = run("--endpoint", served["endpoint"], "--format", "json", "search")

    assert served["user"] == "me"
    assert served["token"].startswith("hf_")
    assert served["notes"] == []
    assert found.data == []
    assert (tmp_path / "hub" / "hub.sqlite").is_file()


def test_hub_serve_started_again_says_that_its_token_was_shown(tmp_path):
    with hub_serve(tmp_path) as process:
        first = process.stderr.readline()
    with hub_serve(tmp_path) as process:
        note, hint = (process.stderr.readline() for _ in range(2))
    with hub_serve(tmp_path, "--format", "json") as process:
        served = json.loads(process.stdout.readline())

    assert " HF_TOKEN=hf_" in first
    assert "was shown at the first start" in note
    assert "next: export HF_ENDPOINT=http" in hint
    assert "HF_TOKEN" not in hint
    assert (served["token"], served["notes"]) == (None, [note.strip()])


# One row for each command that prints data: command line, what `-q` prints, keys of its JSON (of each row, of lists).

ROWS = {"name", "role", "base", "format", "rank", "modules", "size", "source"}
MERGED = {"name", "path", "modules", "units_in", "rank", "norm", "norm_ratio", "families", "notes"}
PRINTED = [
    ("pull acme/math-lora", [], ["math-lora"], ROWS),
    ("pull acme/math-lora --dry-run", [], ["math-lora"], ROWS),
    ("pull", [], ["code-lora", "math-lora", "my-own-lora"], ROWS),
    ("ls", [], ["code-lora", "math-lora", "my-own-lora"], ROWS),
    ("verify", [], ["code-lora", "math-lora", "my-own-lora"], {"name", "role", "files", "size"}),
    ("rm math-lora my-own-lora", [], ["math-lora", "my-own-lora"], {"name", "role", "source", "freed"}),
    (
        "search lora",
        [],
        ["acme/code-lora", "acme/math-lora"],
        {"repo", "commit", "base", "gated", "licence"},
    ),
    (
        "show math-lora",
        [],
        ["math-lora"],
        {"name", "format", "base", "rank", "scale", "modules", "families", "commit", "notes"},
    ),
    ("show acme/math-lora", [], ["math-lora"], {"name", "base", "rank", "families", "commit", "licence", "files"}),
    (
        "inspect math-lora --modules",
        [],
        ["layers.0.q", "layers.0.v", "layers.1.q", "layers.1.v"],
        {"families", "modules", "notes"},
    ),
    ("decompose math-lora -o math-units", [], ["{work}/math-units"], {"path", "units", "of", "modules"}),
    ("assemble u -o whole", ["decompose math-lora -o u"], ["{work}/whole"], {"path", "units", "of", "modules"}),
    ("lego --k 8", [], ["{work}/lego-8"], MERGED | {"energy_kept", "cluster_sizes", "mixed"}),
    ("merge --rank 2", [], ["{work}/linear-2"], MERGED | {"relative_error"}),
    ("interpolate math-lora code-lora --at 0.25", [], ["{work}/interpolate-0.25"], MERGED),
    (
        "interpolate math-lora code-lora --points 2 --path slerp -o way",
        [],
        ["way-000", "way-001"],
        {"t", "name", "path", "rank", "norm"},
    ),
    ("ema math-lora code-lora my-own-lora --beta 0.5", [], ["{work}/ema-0.5"], MERGED),
    ("merge --method cat", [], ["{work}/cat-14"], MERGED),
    (
        "merge --plan",
        [],
        ["8"],
        {"adapters", "method", "modules", "rank", "read_bytes", "peak_bytes", "families", "notes"},
    ),
    (
        "rebuild lego-8",
        ["lego --k 8"],
        ["adapter_config.json", "adapter_model.safetensors"],
        {"file", "same"},
    ),
    ("report", ["lego --k 8"], ["{work}/report.html"], {"path", "size", "sections"}),
    ("push me/printed --dry-run", ["lego --k 8"], ["me/printed"], {"id", "url", "files", "changed", "notes"}),
]
printed = pytest.mark.parametrize(("line", "before", "ids", "keys"), PRINTED, ids=[row[0] for row in PRINTED])


@printed
def test_quiet_prints_one_id_per_line_and_nothing_else(run, work, line, before, ids, keys):
    run_all(run, before)

    found = run(*shlex.split(line), "-q")

    assert (found.code, found.err) == (0, "")
    assert sorted(found.lines) == [name.format(work=work) for name in ids]


@printed
def test_json_prints_one_value_and_nothing_else(run, work, line, before, ids, keys):
    run_all(run, before)

    found = run(*shlex.split(line), "--format", "json")

    assert (found.code, found.err) == (0, "")
    assert len(found.lines) == 1
    rows = found.data if isinstance(found.data, list) else [found.data]
    assert all(keys <= row.keys() for row in rows)


@printed
def test_people_see_data_on_stdout_and_talk_on_stderr(run, work, line, before, ids, keys):
    run_all(run, before)

    found = run(*shlex.split(line))

    assert found.code == 0
    assert "next:" not in found.out
    for name in ids if "push" not in line and "--plan" not in line else []:
        assert name.format(work=work) in found.out


def test_the_story_runs_from_pull_to_pull(run, tmp_path, monkeypatch, write_adapter):
    write_adapter(tmp_path / "my-own-lora", base="meta-llama/Llama-2-7b-hf")
    monkeypatch.chdir(tmp_path)
    run_all(
        run,
        [
            "pull acme/math-lora acme/code-lora@v2 ./my-own-lora",
            "inspect math-lora",
            "lego --k 8",
            "push me/story",
            "pull me/story --as again --to copies",
            "verify",
        ],
    )

    name = "adapter_model.safetensors"
    assert sha256_file(tmp_path / "copies" / "again" / name) == sha256_file(tmp_path / "lego-8" / name)
    assert run("log", "again").lines[0].startswith("again = lego(")
    assert run("rebuild", "again").code == 0


# Global options


@pytest.mark.parametrize("line", ["-C {} -q ls", "ls -C {} -q", "-q ls -C {}", "--format json -q ls -C {}"])
def test_global_options_may_stand_before_and_after_the_command(run, work, monkeypatch, tmp_path, line):
    monkeypatch.chdir(tmp_path)

    assert run(*line.format(work).split()).lines == ["code-lora", "math-lora", "my-own-lora"]


def test_what_stands_after_the_command_wins(run, work):
    found = run("--format", "human", "ls", "--format", "json")

    assert [row["name"] for row in found.data] == ["code-lora", "math-lora", "my-own-lora"]


def test_options_that_say_how_to_compute_do_not_change_the_bytes(run, work):
    lines = [
        "merge -o one --workers 1",
        "merge -o two --workers 2 --executor threads --device cpu",
        "--max-memory 1MB merge -o three --workers 2",
    ]
    run_all(run, lines)

    assert len({sha256_file(work / name / "adapter_model.safetensors") for name in ("one", "two", "three")}) == 1


def test_outputs_lie_in_the_workspace_whatever_the_current_folder(run, work, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    run_all(run, [f"-C {work} {line}" for line in ("lego --k 2 -o made", "decompose made -o u", "assemble u -o u2")])

    assert (work / "made").is_dir()
    assert (work / "u2").is_dir()


def test_a_pinned_adapter_needs_no_network(run, work):
    assert run("--offline", "lego", "--k", "2").code == 0
    assert run("--offline", "pull", "acme/other").code == 6


@pytest.mark.parametrize("name", [*COMMANDS.names(), "hub serve"])
def test_help_names_the_global_options_and_an_example(run, name):
    found = run(*name.split(), "--help")

    assert found.code == 0
    assert found.err == ""
    assert ("Example: loramerge" in found.out) == (name != "hub")
    assert all(option in found.out for option in ("--format", "-q, --quiet", "--endpoint")) == (name != "hub")


def test_the_version_is_data(run):
    assert run("--version").lines == ["loramerge, version 0.1.0"]


# What single commands promise


def test_pull_as_another_name_and_into_a_folder(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    run_all(run, ["pull acme/math-lora --as maths --to copies"])

    assert run("ls", "-q").lines == ["maths"]
    assert sorted(path.name for path in (tmp_path / "copies" / "maths").iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_a_dry_run_of_pull_changes_nothing(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    found = run("pull", "acme/math-lora", "--dry-run", "--format", "json")

    assert found.data[0]["rank"] == 4
    assert list(tmp_path.iterdir()) == []


def test_show_of_a_remote_adapter_leaves_nothing_behind(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    shown = run("show", "acme/code-lora@v2", "--format", "json").data

    assert (shown["rank"], shown["modules"], shown["licence"]) == (8, 4, "mit")
    assert list(tmp_path.iterdir()) == []


def test_search_finds_by_base_model(run):
    base = "meta-llama/Llama-2-7b-hf"

    assert sorted(run("search", "lora", "--base", base, "-q").lines) == ["acme/code-lora", "acme/math-lora"]
    assert run("search", "--base", "acme/other", "-q").lines == []
    assert len(run("search", "lora", "--limit", "1", "-q").lines) == 1


def test_rm_forgets_and_purge_empties_the_cache(run, work):
    found = run("rm", "my-own-lora", "my-own-lora", "--format", "json")

    assert [row["freed"] for row in found.data] == [0]
    assert run("ls", "-q").lines == ["code-lora", "math-lora"]
    assert (work / "my-own-lora").is_dir()
    assert run("rm", "math-lora", "--purge", "--format", "json").data[0]["freed"] > 0
    assert run("--offline", "pull", "acme/math-lora").code == 6
    assert run("pull", "acme/math-lora").code == 0


def test_merge_reads_the_recipe_that_flags_amount_to(run, work):
    flags = shlex.split("merge math-lora code-lora -w math-lora=0.3 --rank 3 --scale 0.5 --dtype f16")

    dumped = run(*flags, "--dump-recipe")
    (work / "recipe.yaml").write_text(dumped.out)
    run_all(run, [f"{shlex.join(flags)} -o flags", "merge recipe.yaml -o recipe"])

    assert yaml.safe_load(dumped.out) == {
        "adapters": [{"ref": "math-lora", "weight": 0.3}, {"ref": "code-lora"}],
        "method": "linear",
        "rank": "3",
        "scale": 0.5,
        "dtype": "F16",
    }
    assert not (work / "linear-3").exists()
    assert len({sha256_file(work / name / "adapter_model.safetensors") for name in ("flags", "recipe")}) == 1


def test_a_recipe_lies_in_the_workspace(run, work, monkeypatch, tmp_path):
    (work / "both.yaml").write_text("adapters: [math-lora, ./my-own-lora]\nmethod: cat")
    monkeypatch.chdir(tmp_path)

    assert run("-C", work, "-q", "merge", "both.yaml").lines == [str(work / "cat-6")]


FLAGS = ["--method lego", "--rank 3", "-w 1", "--scale 2", "--seed 1", "--extras drop", "-O k=3", "--base a=b"]


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_beside_a_recipe_that_says_them_are_refused(run, work, flag):
    (work / "both.yaml").write_text("adapters: [math-lora, code-lora]")

    found = run("merge", "both.yaml", *flag.split())

    assert found.code == 2
    assert "The recipe says this itself" in found.err


def test_lego_takes_every_option_of_its_method(run, work):
    line = (
        "lego math-lora code-lora --k 3 --k-for *.v=2 --preset paper --reweight none --norm 2 --features product"
        " --gauge balanced --units clustered --balance 0.5 --ref-rank max --n-init 2 --seed 5 -w 1 -w 0.5 -o made"
        " --dtype F64"
    )

    run_all(run, [line])

    recipe = json.loads((work / "made" / "loramerge.json").read_text())["recipe"]
    assert recipe["options"] == {
        "k": 3,
        "reweight": "none",
        "norm": "2",
        "features": "product",
        "gauge": "balanced",
        "units": "clustered",
        "balance": 0.5,
        "ref_rank": "max",
        "n_init": 2,
    }
    assert (recipe["seed"], recipe["modules"]) == (5, [{"match": "*.v", "options": {"k": 2}}])
    assert {spec.rank for spec in open_adapter(work / "made").modules.values()} == {2, 3}


def test_the_preset_paper_is_the_published_method(run, work):
    run_all(run, ["lego --k 3 --preset paper"])

    recipe = json.loads((work / "lego-3" / "loramerge.json").read_text())["recipe"]
    assert {key: recipe["options"][key] for key in ("features", "gauge", "norm", "reweight", "ref_rank", "n_init")} == {
        "features": "raw",
        "gauge": "raw",
        "norm": "inf",
        "reweight": "both",
        "ref_rank": "mean",
        "n_init": 10,
    }


def test_a_plan_writes_nothing_and_says_what_it_takes(run, work):
    before = sorted(work.iterdir())

    found = run("lego", "--k", "8", "--plan", "--format", "json").data

    assert sorted(work.iterdir()) == before
    assert found["adapters"] == ["code-lora", "math-lora", "my-own-lora"]
    assert (found["modules"], found["rank"], found["dtype"]) == (4, 8, "F32")
    assert found["write_bytes"] == 2 * 4 * 8 * ((8 + 8) + (6 + 8))


@pytest.mark.parametrize("flags", [[], ["--modules"]])
def test_inspect_tells_scripts_families_modules_and_notes(run, work, flags):
    change_config(work / "my-own-lora", trained_by="hand")

    found = run("inspect", "./my-own-lora", *flags, "--format", "json").data

    assert [row["modules"] for row in found["families"]] == [2, 2]
    assert [row["rank"] for row in found["modules"]] == [2, 2, 2, 2]
    assert all(len(row["spectrum"]) == 2 for row in found["modules"])
    assert any("trained_by" in note for note in found["notes"])


def test_inspect_tells_people_families_and_notes(run, work):
    change_config(work / "my-own-lora", trained_by="hand")

    found = run("inspect", "./my-own-lora")

    assert "numerical rank" in found.out
    assert "trained_by" in found.err


def test_decompose_hints_at_the_way_back_and_the_way_back_is_exact(run, work):
    apart = run("decompose", "my-own-lora", "-o", "units")
    whole = run("assemble", "units", "-o", "whole", "--format", "json").data

    assert "next: loramerge assemble" in apart.err
    assert (whole["units"], whole["of"]) == (8, 8)
    before, after = open_adapter(work / "my-own-lora"), open_adapter(work / "whole")
    assert list(after.modules) == list(before.modules)
    assert all(after.load(name).a.equal(before.load(name).a) for name in before.modules)
    assert all(after.load(name).b.equal(before.load(name).b) for name in before.modules)


def test_push_sends_the_newest_result_once(run, work):
    run_all(run, ["merge --rank 2", "lego --k 2"])

    first, again = (run("push", "me/newest", "--format", "json").data for _ in range(2))

    assert (first["files"], first["changed"]) == (4, 4)
    assert (again["id"], again["changed"]) == (first["id"], 0)
    assert run("push", "me/newest").out.startswith("✓ Nothing to push")


def test_push_takes_a_reference_a_message_and_a_pull_request(run, work):
    run_all(run, ["merge --rank 2", "lego --k 2", "push linear-2 me/options --private -m first"])

    sent = run("push", "lego-2", "me/options", "--pr", "--format", "json").data

    assert "/discussions/1" in sent["url"]
    assert run("show", "me/options", "--format", "json").data["private"] is True


def test_what_was_changed_since_it_was_made_is_not_sent(run, work):
    run_all(run, ["lego --k 2"])
    (work / "lego-2" / "README.md").write_text("mine now")

    found = run("push", "me/changed")

    assert found.code == 7
    assert "README.md" in found.err


def test_log_prints_a_tree_and_its_values(run, work):
    run_all(run, ["lego --k 2 -o inner", "merge inner math-lora -o outer"])

    lines, tree = run("log", "outer").lines, run("log", "outer", "--format", "json").data

    assert [line.split(" × ")[-1].split(" ")[0] for line in lines[1:]] == [
        "inner",
        "code-lora",
        "math-lora",
        "my-own-lora",
        "math-lora",
    ]
    assert tree["parents"][0]["parents"][1]["repo"] == "acme/math-lora"
    assert len(tree["parents"][0]["parents"][1]["commit"]) == 40


@pytest.mark.parametrize("arguments", ["ls", "ls -q", "--help"])
def test_who_stops_reading_ends_a_command_quietly(work, arguments):
    line = [sys.executable, "-m", "loramerge", *arguments.split()]
    reader, writer = os.pipe()
    os.close(reader)

    found = subprocess.run(line, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=work, check=False)
    os.close(writer)

    assert (found.returncode, found.stderr) == (1, "")
