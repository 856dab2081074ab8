"""`loramerge stats`: its example runs, and what is wrong with a base or a text is said in a line."""

from __future__ import annotations

import shlex
import shutil

import pytest
from adapters import write_adapter
from bases import LINES, write_base

from loramerge.cli.main import COMMANDS
from loramerge.formats._statistics import read_statistics

QUERY = "model.layers.0.self_attn.q_proj"
STATS = "stats ./my-lora --base ./base --text examples.txt"


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("bases") / "base")


@pytest.fixture
def here(base, tmp_path, monkeypatch):
    """A folder with a base, an adapter for it, and a text."""
    shutil.copytree(base, tmp_path / "base")
    write_adapter(tmp_path / "my-lora", modules={QUERY: (16, 16)}, task_type="CAUSAL_LM")
    (tmp_path / "examples.txt").write_text("\n".join(LINES) + "\n\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_its_example_runs(run, here):
    words = shlex.split(COMMANDS["stats"].epilog.removeprefix("Example: loramerge "))

    found = run(*words)

    assert (found.code, found.err) == (0, "")
    assert f"path: {here / 'stats.safetensors'}" in found.out
    assert read_statistics(here / "stats.safetensors").has("grams", QUERY)


def test_scripts_read_its_path_or_one_object(run, here):
    quiet = run(*shlex.split(STATS), "-q")
    data = run(*shlex.split(STATS), "--fisher", "--force", "--format", "json").data

    assert quiet.lines == [str(here / "stats.safetensors")]
    assert data == {
        "path": str(here / "stats.safetensors"),
        "base": "acme/base",
        "adapter": "my-lora",
        "modules": 1,
        "lines": 5,
        "tokens": 29,
        "notes": [],
    }


def test_bases_texts_and_outputs_lie_in_the_workspace(run, here, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))

    assert run("-C", here, *shlex.split(STATS)).code == 0
    assert (here / "stats.safetensors").is_file()


def empty_text(here):
    (here / "examples.txt").write_text("\n  \n")


def binary_text(here):
    (here / "examples.txt").write_bytes(b"\xff\xfe")


def no_text(here):
    (here / "examples.txt").unlink()


def no_base(here):
    shutil.rmtree(here / "base")


def no_weights(here):
    (here / "base" / "model.safetensors").unlink()


def only_a_pickle(here):
    (here / "base" / "model.safetensors").rename(here / "base" / "pytorch_model.bin")


def cut_weights(here):
    path = here / "base" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def broken_config(here):
    (here / "base" / "config.json").write_text('{"model_type": "llama",')


def unknown_model(here):
    (here / "base" / "config.json").write_text('{"model_type": "no-such-model"}')


def no_tokenizer(here):
    for path in (here / "base").glob("tokenizer*"):
        path.unlink()


def other_modules(here):
    write_adapter(here / "my-lora", modules={"model.layers.7.self_attn.q_proj": (16, 16)}, task_type="CAUSAL_LM")


def other_shape(here):
    write_adapter(here / "my-lora", modules={QUERY: (16, 8)}, task_type="CAUSAL_LM")


def output(here):
    (here / "stats.safetensors").write_text("mine")


def nothing(here):
    pass


# What is wrong, the command after it, the exit code, and parts of what is said.
WRONG = [
    (empty_text, STATS, 3, "The text is empty", "one example a line"),
    (binary_text, STATS, 3, "not UTF-8", "examples.txt"),
    (no_text, STATS, 5, "There is no such text", "examples.txt"),
    (no_base, STATS, 5, "There is no model here", "config.json"),
    (no_weights, STATS, 3, "no file named model.safetensors", "base"),
    (only_a_pickle, STATS, 3, "no file named model.safetensors", "base"),
    (cut_weights, STATS, 3, "transformers cannot load the base", "base"),
    (broken_config, STATS, 3, "transformers cannot load the base", "base"),
    (unknown_model, STATS, 3, "transformers cannot load the base", "no-such-model"),
    (no_tokenizer, STATS, 3, "no tokenizer that can be loaded", "tokenizer.json"),
    (other_modules, STATS, 4, "lacks 1 of the 1 modules of my-lora", QUERY),
    (other_shape, STATS, 4, "16×16 and 16×8", "my-lora"),
    (output, STATS, 2, "The output is there already", "--force"),
    (nothing, f"{STATS} -o no/stats.safetensors", 5, "There is no such folder", "no"),
    (nothing, f"{STATS} --modules '*.k_proj'", 2, "No module is taken by '*.k_proj'", "*.q_proj"),
    (nothing, f"{STATS} --like ./my-lora", 2, "--like does not apply", "not both"),
    (nothing, "stats --base ./base --text examples.txt", 2, "Which modules", "--like"),
    (nothing, f"{STATS} --max-memory 1KB", 2, "--max-memory allows", QUERY),
    (nothing, f"{STATS} --max-tokens 0", 2, "max-tokens", "--help"),
    (nothing, "stats ./my-lora --base ./bose --text examples.txt", 5, "There is no model here", "bose"),
]


@pytest.mark.parametrize(
    ("arrange", "line", "code", "what", "also"), WRONG, ids=[f"{row[0].__name__}-{at}" for at, row in enumerate(WRONG)]
)
def test_bad_input_gets_a_clear_error_and_leaves_nothing_behind(run, here, arrange, line, code, what, also):
    arrange(here)
    before = sorted(here.rglob("*"))

    found = run(*shlex.split(line))

    assert (found.code, found.out) == (code, ""), found.err
    assert what in found.err
    assert also in found.err
    assert found.err.startswith("Error: ")
    assert len(found.err.splitlines()) <= 3
    assert sorted(here.rglob("*")) == before
