from __future__ import annotations

import hashlib
import json
import subprocess

import pytest

from loramerge.core.provenance import (
    FilePin,
    Lineage,
    Parent,
    changed,
    digest,
    finite,
    from_json,
    git_blob_sha1,
    pin,
    sha256_file,
    to_json,
)
from loramerge.errors import BadConfig

PIN = FilePin("adapter_model.safetensors", 10, "a" * 64)
LINEAGE = Lineage(
    method="ties",
    options={"density": 0.3, "k": None},
    parents=(
        Parent("math", 0.0, (PIN,), repo="u/math", revision="v1", commit="c" * 40, subfolder="best", licence="mit"),
        Parent("mine", -1.5, (PIN,), path="../mine", base="u/base"),
    ),
    rank="energy:0.9",
    weights="sqrt",
    seed=7,
    base="u/base",
    versions={"torch": "2.13.0"},
)


def test_a_lineage_comes_back_from_json_as_it_was():
    assert from_json(json.loads(json.dumps(to_json(LINEAGE)))) == LINEAGE


@pytest.mark.parametrize(
    "damage",
    [
        {"schema": 2},
        {"parents": None},
        {"parents": [{"name": "x"}]},
        {"parents": [{"name": ["x"], "weight": 1.0}]},
        {"parents": [{"name": "x", "weight": "much"}]},
        {"parents": [{"name": "x", "weight": 1.0, "files": [{"path": "x"}]}]},
        {"parents": [{"name": "x", "weight": 1.0, "surprise": 1}]},
        {"seed": "seven"},
        {"options": []},
        {"surprise": 1},
    ],
)
def test_what_is_no_lineage_is_refused_and_says_where(damage):
    with pytest.raises(BadConfig) as caught:
        from_json({**to_json(LINEAGE), **damage}, "result/loramerge.json")

    assert caught.value.where == "result/loramerge.json"


@pytest.mark.parametrize("value", [None, [], "text", {}])
def test_what_is_no_table_is_no_lineage(value):
    with pytest.raises(BadConfig):
        from_json(value)


@pytest.mark.parametrize("size", [0, 1, 3 << 20])
def test_hashes_are_those_that_everybody_computes(tmp_path, size):
    path = tmp_path / "x"
    path.write_bytes(b"\x07" * size)
    git = subprocess.run(["git", "hash-object", "--no-filters", path], capture_output=True, text=True, check=True)

    assert sha256_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert git_blob_sha1(path) == git.stdout.strip()


def test_every_kind_of_change_is_named(tmp_path):
    for name in ("same", "longer", "other", "gone"):
        (tmp_path / name).write_text("words")
    pins = pin(tmp_path, ["same", "longer", "other", "gone"])
    (tmp_path / "longer").write_text("words!")
    (tmp_path / "other").write_text("wordz")
    (tmp_path / "gone").unlink()

    first, second, third = changed(tmp_path, pins)

    assert first == "gone is missing"
    assert second == "longer has 6 bytes, not 5"
    assert third.startswith("other has sha256")


def test_one_digest_for_several_files_does_not_depend_on_their_order():
    other = FilePin("adapter_config.json", 3, "b" * 64)

    assert digest([PIN, other]) == digest([other, PIN])
    assert digest([PIN]) != digest([PIN, other])


def test_json_has_no_infinity():
    assert finite({"a": (float("nan"), 1.5, [float("inf")]), 2: "x"}) == {"a": [None, 1.5, [None]], "2": "x"}
