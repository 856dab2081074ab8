from __future__ import annotations

import subprocess
import sys

import pytest

from loramerge.errors import UnknownName
from loramerge.registry import Registry, near


@pytest.fixture
def plugins(tmp_path, monkeypatch) -> Registry[str]:
    """The registry of a package made for the test, which is importable while it runs."""
    package = tmp_path / "houseplants"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_shared.py").write_text("raise AssertionError('not a plugin')")
    (package / "notes.txt").write_text("")
    for stem in ("fern", "spider_plant", "lambda_"):
        (package / f"{stem}.py").write_text(f"PLANT = {stem!r}\n")
    (package / "cactus.py").write_text("raise AssertionError('imported without being asked for')")
    monkeypatch.syspath_prepend(tmp_path)
    yield Registry("houseplants", "PLANT", "plant")
    for name in [name for name in sys.modules if name.split(".")[0] in ("houseplants", "greenhouse")]:
        del sys.modules[name]


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """An installed distribution that brings plants through entry points."""
    (tmp_path / "greenhouse.py").write_text("ORCHID = 'an orchid'\nFERN = 'another fern'\n")
    info = tmp_path / "greenhouse-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greenhouse\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[houseplants]\norchid = greenhouse:ORCHID\nfern = greenhouse:FERN\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_names_are_file_names_and_listing_imports_nothing(plugins):
    names = plugins.names()

    assert names == ["cactus", "fern", "lambda", "spider-plant"]
    assert not [name for name in sys.modules if name.startswith("houseplants.")]


@pytest.mark.parametrize(
    ("name", "expected"), [("fern", "fern"), ("spider-plant", "spider_plant"), ("lambda", "lambda_")]
)
def test_a_plugin_is_its_modules_last_statement(plugins, name, expected):
    assert name in plugins
    assert plugins[name] == expected


def test_an_unknown_name_is_answered_with_its_neighbours(plugins):
    with pytest.raises(UnknownName, match="no plant named 'spider-plan'") as caught:
        plugins["spider-plan"]

    assert caught.value.hint == "spider-plant"
    assert "spider-plan" not in plugins


def test_a_name_like_nothing_is_answered_with_all(plugins):
    with pytest.raises(UnknownName) as caught:
        plugins["zzz"]

    assert caught.value.hint == "cactus, fern, lambda, spider-plant"


@pytest.mark.parametrize("name", ["_shared", "__init__", "notes", "spider_plant", "../fern", ""])
def test_what_is_no_plugin_has_no_name(plugins, name):
    with pytest.raises(UnknownName):
        plugins[name]


def test_other_packages_join_through_entry_points_and_replace_nothing(plugins, foreign):
    assert plugins.names() == ["cactus", "fern", "lambda", "orchid", "spider-plant"]
    assert plugins["orchid"] == "an orchid"
    assert plugins["fern"] == "fern"


def test_whoever_stops_at_our_own_does_not_ask_what_is_installed(plugins, foreign):
    names = iter(plugins)

    first = [next(names) for _ in range(4)]

    assert first == ["cactus", "fern", "lambda", "spider-plant"]
    assert "_foreign" not in vars(plugins)
    assert list(names) == ["orchid"]


def test_a_plugin_is_loaded_once(plugins):
    plugins["fern"]
    del sys.modules["houseplants.fern"]

    assert plugins["fern"] == "fern"
    assert "houseplants.fern" not in sys.modules


def test_listing_the_real_plugins_is_light():
    code = (
        "import sys; from loramerge.methods._method import MERGE; from loramerge.formats._format import FORMATS\n"
        "print(*MERGE.names(), *FORMATS.names()); print('torch' in sys.modules)"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    names, loaded = run.stdout.splitlines()
    assert {"cat", "lego", "linear", "peft"} <= set(names.split())
    assert loaded == "False"


def test_near_names_come_best_first():
    assert near("lineer", ["cat", "linear", "line", "lego"])[0] == "linear"
    assert near("zzz", ["cat", "linear"]) == []
