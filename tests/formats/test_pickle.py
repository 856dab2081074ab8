"""Weights in a pickle: never read unless it is allowed, and nothing in one is run."""

from __future__ import annotations

import pickle
import zipfile

import pytest
import torch
from adapters import CONFIG, WEIGHTS
from safetensors.torch import load_file

from loramerge.errors import FormatError, UnsafePickle
from loramerge.formats import peft
from loramerge.formats._format import open_adapter

PICKLE = "adapter_model.bin"


def pickled(folder):
    """The folder with its weights as a pickle instead."""
    torch.save(load_file(folder / WEIGHTS), folder / PICKLE)
    (folder / WEIGHTS).unlink()
    return folder


def test_a_pickle_is_refused_unless_it_is_allowed(make):
    folder = make("saved")
    safe = peft.read(folder)
    pickled(folder)

    with pytest.raises(UnsafePickle, match="can run code") as error:
        open_adapter(folder)
    allowed = open_adapter(folder, allow_pickle=True)

    assert error.value.hint.startswith("--allow-pickle")
    assert (allowed.modules, allowed.extras) == (safe.modules, safe.extras)
    assert allowed.files == (PICKLE, CONFIG)


def test_a_pickle_that_runs_code_is_not_run(make, tmp_path):
    folder = pickled(make("plain"))
    torch.save({"x": Touch(tmp_path / "ran")}, folder / PICKLE)

    with pytest.raises(UnsafePickle, match="torch refuses"):
        open_adapter(folder, allow_pickle=True)

    assert not (tmp_path / "ran").exists()


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": 3}, "something other than named tensors"),
        ([torch.ones(2)], "something other than named tensors"),
    ],
    ids=["a number", "a list"],
)
def test_a_pickle_of_anything_but_tensors_is_refused(content, message, make):
    folder = pickled(make("plain"))
    torch.save(content, folder / PICKLE)

    with pytest.raises(UnsafePickle, match=message):
        open_adapter(folder, allow_pickle=True)


def test_a_pickle_in_a_strange_container_is_refused(make):
    folder = pickled(make("plain"))
    whole = (folder / PICKLE).read_bytes()
    with zipfile.ZipFile(folder / PICKLE, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_model/more", b"0" * 10_000_000)

    with pytest.raises(UnsafePickle, match="adapter_model/more"):
        open_adapter(folder, allow_pickle=True)
    (folder / PICKLE).write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(UnsafePickle, match="not a zip"):
        open_adapter(folder, allow_pickle=True)
    (folder / PICKLE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsafePickle, match="not a zip"):
        open_adapter(folder, allow_pickle=True)


def test_safetensors_are_preferred_to_a_pickle_of_the_same_names(make):
    folder = make("plain")
    torch.save(load_file(folder / WEIGHTS), folder / PICKLE)

    assert open_adapter(folder).files[0] == WEIGHTS


def test_a_pickle_of_other_names_beside_safetensors_is_an_error(make):
    folder = make("plain")
    tensors = load_file(folder / WEIGHTS)
    torch.save({**tensors, "base_model.model.evil.lora_A.weight": torch.ones(2, 2)}, folder / PICKLE)

    with pytest.raises(FormatError, match=r"same tensors: base_model\.model\.evil"):
        open_adapter(folder)
