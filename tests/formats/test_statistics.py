"""Statistics on disk: what is written is read, and a file that lies is refused by name."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from loramerge.errors import BadConfig, BadTensor, FormatError, LoramergeError
from loramerge.formats._statistics import read_statistics, write_statistics

MODULE = "layers.0.q"
MARK = {"format": "pt", "loramerge": "statistics"}


def measured():
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return {
        ("grams", MODULE): x.T @ x / 50,
        ("fisher_in", MODULE): x.square().mean(0),
        ("fisher_out", MODULE): torch.tensor([0.5, 0.0], dtype=torch.float64),
    }


def written(path, tensors=None, **said):
    tensors = measured() if tensors is None else tensors
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    write_statistics(path, shapes, ((*key, tensor) for key, tensor in tensors.items()), **said)
    return path


def test_what_is_written_is_read(tmp_path):
    path = written(tmp_path / "mine.safetensors", base="acme/base", adapter="math", tokens=50)

    found = read_statistics(path)

    assert (found.name, found.base, found.adapter, found.tokens) == ("mine", "acme/base", "math", 50)
    assert found.shapes == {("grams", MODULE): (3, 3), ("fisher_in", MODULE): (3,), ("fisher_out", MODULE): (2,)}
    for key, want in measured().items():
        assert found.load(*key).dtype == torch.float64
        torch.testing.assert_close(found.load(*key), want, rtol=1e-6, atol=1e-7)


def test_what_is_not_known_is_not_said(tmp_path):
    found = read_statistics(written(tmp_path / "x.safetensors"), name="other")

    assert (found.name, found.base, found.adapter, found.tokens) == ("other", None, None, None)
    assert not found.has("grams", "layers.0.v")
    with pytest.raises(KeyError):
        found.load("grams", "layers.0.v")


def test_open_statistics_pickle(tmp_path):
    found = read_statistics(written(tmp_path / "x.safetensors"))

    again = pickle.loads(pickle.dumps(found))

    assert again.load("grams", MODULE).equal(found.load("grams", MODULE))


def test_the_same_numbers_give_the_same_bytes_and_replace_the_old(tmp_path):
    one = written(tmp_path / "one.safetensors", base="acme/base", tokens=50).read_bytes()
    (tmp_path / "two.safetensors").write_text("old")

    two = written(tmp_path / "two.safetensors", base="acme/base", tokens=50).read_bytes()

    assert one == two


def test_a_failure_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_text("old")

    def rows():
        yield "grams", MODULE, torch.eye(3)
        raise LoramergeError("stopped")

    with pytest.raises(LoramergeError, match="stopped"):
        write_statistics(path, {("grams", MODULE): (3, 3), ("fisher_in", MODULE): (3,)}, rows())

    assert [item.name for item in tmp_path.iterdir()] == ["x.safetensors"]
    assert path.read_text() == "old"


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path):
    with pytest.raises(LoramergeError, match="cannot be written: No such file") as caught:
        written(tmp_path / "no" / "x.safetensors")

    assert caught.value.where == str(tmp_path / "no" / "x.safetensors")


def test_what_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(BadTensor, match=r"fisher_in\.q holds 1 elements that are NaN or infinite"):
        written(tmp_path / "x.safetensors", {("fisher_in", "q"): torch.tensor([1.0, 1e300], dtype=torch.float64)})

    assert list(tmp_path.iterdir()) == []


def file_of(path, tensors, **metadata):
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata={**MARK, **metadata})


HEADERS = {
    "a kind nobody knows": ({"gram.q": torch.eye(2)}, "gram.q is not called KIND.MODULE"),
    "no module": ({"grams.": torch.eye(2)}, "is not called KIND.MODULE"),
    "a Gram matrix that is not square": ({"grams.q": torch.ones(2, 3)}, "grams.q is not a square matrix"),
    "a flat Gram matrix": ({"grams.q": torch.ones(4)}, "grams.q is not a square matrix"),
    "a Fisher matrix": ({"fisher_in.q": torch.eye(2)}, "fisher_in.q is not a vector"),
    "whole numbers": ({"grams.q": torch.ones(2, 2, dtype=torch.int64)}, "is stored as I64"),
    "sides that disagree": ({"grams.q": torch.eye(2), "fisher_in.q": torch.ones(3)}, "2 inputs in one tensor and 3"),
}


@pytest.mark.parametrize(("tensors", "message"), HEADERS.values(), ids=HEADERS.keys())
def test_a_header_that_lies_is_refused(tmp_path, tensors, message):
    file_of(tmp_path / "x.safetensors", tensors)

    with pytest.raises(BadTensor, match=message) as caught:
        read_statistics(tmp_path / "x.safetensors")

    assert caught.value.where == str(tmp_path / "x.safetensors")


NUMBERS = {
    "NaN": ("grams.q", torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), "2 elements that are NaN"),
    "infinity": ("fisher_out.q", torch.tensor([torch.inf]), "1 elements that are NaN or infinite"),
    "no symmetry": ("grams.q", torch.tensor([[1.0, 2.0], [0.0, 1.0]]), "grams.q is not symmetric"),
    "a negative square": ("fisher_in.q", torch.tensor([-1.0, 1.0]), "negative means of squares"),
    "a negative diagonal": ("grams.q", -torch.eye(2), "negative means of squares"),
}


@pytest.mark.parametrize(("key", "tensor", "message"), NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_that_cannot_be_are_refused_when_they_are_loaded(tmp_path, key, tensor, message):
    file_of(tmp_path / "x.safetensors", {key: tensor})
    found = read_statistics(tmp_path / "x.safetensors")

    with pytest.raises(BadTensor, match=message):
        found.load(*key.split(".", 1))


def test_an_adapter_is_no_statistics(make_adapter):
    weights = make_adapter("a") / "adapter_model.safetensors"

    with pytest.raises(BadConfig, match="holds no statistics") as caught:
        read_statistics(weights)

    assert "loramerge stats" in caught.value.hint


def test_a_number_of_tokens_that_is_none_is_refused(tmp_path):
    file_of(tmp_path / "x.safetensors", {"grams.q": torch.eye(2)}, tokens="many")

    with pytest.raises(BadConfig, match="number of tokens is 'many'"):
        read_statistics(tmp_path / "x.safetensors")


def test_what_is_not_there_or_cut_off_is_a_format_error(tmp_path):
    path = written(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes()[:-4])

    for broken in (path, tmp_path / "y.safetensors"):
        with pytest.raises(FormatError):
            read_statistics(broken)


def test_zeros_are_symmetric(tmp_path):
    file_of(tmp_path / "x.safetensors", {"grams.q": torch.zeros(2, 2)})

    assert read_statistics(tmp_path / "x.safetensors").load("grams", "q").equal(torch.zeros(2, 2, dtype=torch.float64))
