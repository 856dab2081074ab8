"""Safetensors files: every header that lies is refused by name, and what is streamed out loads."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from loramerge.errors import BadTensor, FormatError
from loramerge.formats import _tensors
from loramerge.formats._stream import write_stream
from loramerge.formats._tensors import MAX_HEADER, Entry, header_length, load, parse_header, read_header


def packed(header, data=b"", *, length=None):
    """A file of that header (an object, or the text itself) and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def one(name="x", dtype="F32", shape=(2,), places=(0, 8), **more):
    return {name: {"dtype": dtype, "shape": list(shape), "data_offsets": list(places), **more}}


EIGHT = b"\0" * 8
HOSTILE = {
    "nothing": (b"", "0 bytes"),
    "seven bytes": (b"1234567", "7 bytes"),
    "a header of 10⁹ bytes": (packed(b"{}", length=10**9), "claims 1,000,000,000"),
    "a header longer than the file": (packed(b"{}", length=3), "cut off"),
    "no JSON": (packed(b"nonsense"), "not valid JSON"),
    "no UTF-8": (packed(b'{"\xff": 1}'), "not valid JSON"),
    "no object": (packed(b"[]"), "not a JSON object"),
    "an abyss": (packed(b'{"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"), "not a JSON object"),
    "a key twice": (packed(b'{"x":{},"x":{}}'), "'x' stands there twice"),
    "metadata that is no table": (packed({"__metadata__": [], **one()}, EIGHT), "metadata is not a table"),
    "metadata with a number": (packed({"__metadata__": {"a": 1}, **one()}, EIGHT), "metadata is not a table"),
    "metadata of two million characters": (packed({"__metadata__": {"a": "b" * 2 * 10**6}}), "metadata is longer"),
    "a tensor that is a text": (packed({"x": "y"}, EIGHT), "x is not described"),
    "a field too many": (packed(one(more=1), EIGHT), "x is not described"),
    "a shape that is a text": (
        packed({"x": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}}, EIGHT),
        "x has a shape",
    ),
    "a negative side": (packed(one(shape=(-2,)), EIGHT), "x has a shape"),
    "a side of 2⁶³": (packed(one(shape=(2**63,)), EIGHT), "x has a shape"),
    "a side that is true": (packed(one(shape=(True,)), EIGHT), "x has a shape"),
    "a side with a fraction": (packed(one(shape=(2.0,)), EIGHT), "x has a shape"),
    "one offset": (packed(one(places=(0,)), EIGHT), "x has a shape or a place"),
    "six dimensions": (packed(one(shape=(2, 1, 1, 1, 1, 1)), EIGHT), "6 dimensions"),
    "no elements, 2⁴⁰ wide": (packed(one(shape=(0, 2**40), places=(0, 0))), "x is empty"),
    "more elements than bytes": (packed(one(shape=(2**40,)), EIGHT), "cannot take 8 bytes"),
    "sides whose product overflows": (packed(one(shape=(2**62, 2**62, 2)), EIGHT), "cannot take 8 bytes"),
    "offsets the wrong way round": (packed(one(places=(8, 0)), EIGHT), "cannot take -8 bytes"),
    "an unknown dtype": (packed(one(dtype="F33"), EIGHT), "unknown dtype, 'F33'"),
    "a dtype that is a list": (packed(one(dtype=[]), EIGHT), "unknown dtype"),
    "a gap": (packed({**one(), **one("y", places=(16, 24))}, EIGHT * 3), "y leaves a gap"),
    "an overlap": (packed({**one(), **one("y", places=(4, 12))}, EIGHT * 2), "y overlaps"),
    "data cut off": (packed(one(), b"1234"), "is cut off"),
    "data behind the last tensor": (packed(one(), EIGHT + b"more"), "goes on behind"),
    "a name that leads out": (packed(one("../../x"), EIGHT), r"called '\.\./\.\./x'"),
    "an absolute name": (packed(one("/etc/passwd"), EIGHT), "called '/etc/passwd'"),
    "a backslash": (packed(one("a\\b"), EIGHT), "No tensor may be called"),
    "a control character": (packed(one("a\x1b[31m"), EIGHT), r"called 'a\\x1b"),
    "half a character": (
        packed(b'{"\\ud800":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', EIGHT),
        "No tensor may",
    ),
    "no name": (packed(one(""), EIGHT), "called ''"),
    "a name of 600 characters": (packed(one("n" * 600), EIGHT), "called 'nnn"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_header_is_refused_by_name(content, message, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)

    with pytest.raises(FormatError, match=message) as error:
        read_header(path)

    assert error.value.where == str(path)


def test_too_many_tensors_are_refused(monkeypatch):
    monkeypatch.setattr(_tensors, "MAX_TENSORS", 1)
    content = packed({**one(), **one("y", places=(8, 16))}, EIGHT * 2)

    with pytest.raises(FormatError, match="2 tensors; 1 is the limit"):
        parse_header(content, len(content))


def test_a_file_that_cannot_be_read_is_an_error_of_ours(tmp_path):
    with pytest.raises(FormatError, match="No such file"):
        read_header(tmp_path / "absent.safetensors")


def test_a_real_header_is_read_as_the_library_reads_it(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensors = {
        "a": torch.ones(2, 3),
        "b": torch.ones(4, dtype=torch.bfloat16),
        "c": torch.tensor(1),
        "d": torch.ones(1, 1, 1, 1, 2),
    }
    save_file(tensors, path, metadata={"format": "pt"})

    header = read_header(path)

    assert {name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()} == {
        "a": ("F32", (2, 3)),
        "b": ("BF16", (4,)),
        "c": ("I64", ()),
        "d": ("F32", (1, 1, 1, 1, 2)),
    }
    assert header.metadata == {"format": "pt"}


def test_a_remote_header_needs_the_first_bytes_only():
    content = packed(one(), EIGHT)
    start = content[:-8]

    length = header_length(start[:8], len(content), "far")
    header = parse_header(start, len(content), "far")

    assert length == len(start) - 8
    assert header.tensors == {"x": Entry("F32", (2,), 0, 8)}


def test_a_header_that_did_not_arrive_whole_is_an_error():
    content = packed(one(), EIGHT)

    with pytest.raises(FormatError, match="10 are here"):
        parse_header(content[:18], len(content))


def test_the_largest_header_is_the_hubs():
    assert MAX_HEADER == 25_000_000


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_loading_counts_what_is_not_finite(dtype, tmp_path):
    path = tmp_path / "weights.safetensors"
    bad = torch.tensor([1.0, float("nan"), 2.0, float("nan")]).to(dtype)
    save_file({"bad": bad, "good": bad[::2].contiguous()}, path)

    with pytest.raises(BadTensor, match="bad holds 2 elements") as error:
        load(path, "bad")

    assert error.value.where == str(path)
    assert load(path, "good").equal(bad[::2])


def test_a_file_replaced_after_the_first_tensor_is_read_anew(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"x": torch.ones(2)}, path)
    first = load(path, "x")
    save_file({"x": torch.zeros(3)}, tmp_path / "other")
    (tmp_path / "other").replace(path)

    second = load(path, "x")

    assert (first.tolist(), second.tolist()) == ([1, 1], [0, 0, 0])


def test_a_tensor_that_is_gone_is_an_error_of_ours(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"x": torch.ones(2)}, path)

    with pytest.raises(FormatError, match="y cannot be read"):
        load(path, "y")


def test_a_stream_loads_as_what_was_streamed(tmp_path):
    path = tmp_path / "out.safetensors"
    tensors = {"b": torch.randn(3, 5), "a": torch.randn(2, 3), "s": torch.tensor(7)}

    write_stream(path, {"a": ("F32", (2, 3)), "b": ("F32", (9, 9)), "s": ("I64", ())}, tensors.items())

    loaded = load_file(path)
    assert loaded.keys() == tensors.keys()
    assert all(loaded[name].equal(tensor) for name, tensor in tensors.items())
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert read_header(path).tensors.keys() == tensors.keys()


def test_tensors_smaller_than_announced_leave_no_gap(tmp_path):
    path = tmp_path / "out.safetensors"

    write_stream(path, {"a": ("F32", (10**6, 10**6))}, [("a", torch.ones(1, 2))])

    assert load_file(path)["a"].tolist() == [[1, 1]]
    assert path.stat().st_size < 300


def test_larger_elements_come_first_so_that_all_are_aligned(tmp_path):
    path = tmp_path / "out.safetensors"
    dtypes = {"h": torch.float16, "w": torch.float64, "f": torch.float32, "b": torch.bool, "h2": torch.bfloat16}
    tensors = {name: torch.ones(3, dtype=dtype) for name, dtype in dtypes.items()}

    write_stream(path, {name: (_tensors.dtype_name(t.dtype), (3,)) for name, t in tensors.items()}, tensors.items())

    assert all(load_file(path)[name].equal(tensor) for name, tensor in tensors.items())
    header = read_header(path).tensors
    assert list(header) == ["w", "f", "h", "h2", "b"]
    start = path.stat().st_size - max(entry.end for entry in header.values())
    assert all((start + entry.begin) % tensors[name].itemsize == 0 for name, entry in header.items())


def test_the_same_stream_gives_the_same_bytes(tmp_path):
    tensors = {"x": torch.randn(2, 3), "y": torch.randn(4).half()}
    bounds = {"x": ("F32", (8, 3)), "y": ("F16", (4,))}

    for name in ("one", "two"):
        write_stream(tmp_path / name, bounds, tensors.items())

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_tensor_is_on_disk_before_the_next_is_asked_for(tmp_path):
    path = tmp_path / "out.safetensors"
    sizes = []

    def stream():
        for name in "abc":
            sizes.append(path.stat().st_size)
            yield name, torch.ones(100_000)

    write_stream(path, dict.fromkeys("abc", ("F32", (100_000,))), stream())

    assert sizes[1] - sizes[0] >= 400_000
    assert sizes[2] - sizes[1] >= 400_000


def test_views_are_written_as_they_look(tmp_path):
    path = tmp_path / "out.safetensors"
    whole = torch.arange(12.0).reshape(3, 4)

    write_stream(path, {"t": ("F32", (4, 3)), "s": ("F32", (3, 2))}, [("t", whole.T), ("s", whole[:, ::2])])

    assert load_file(path)["t"].equal(whole.T)
    assert load_file(path)["s"].equal(whole[:, ::2])
