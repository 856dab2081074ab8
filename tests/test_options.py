from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramerge.errors import BadOption
from loramerge.options import dump, pairs, parse, size


@dataclass(frozen=True)
class Options:
    k: int = 8
    density: float = 0.5
    norm: Literal["inf", "2"] = "inf"
    n_init: int = 10
    signed: bool = False
    ref: int | Literal["mean", "max"] = "mean"
    limit: int | None = None
    title: str = ""


def test_pairs_are_read_in_order():
    assert pairs(["k=8", " density =0.3", "title=a=b", "x="]) == {"k": "8", "density": "0.3", "title": "a=b", "x": ""}


@pytest.mark.parametrize(
    ("items", "complaint"),
    [
        (["k"], "KEY=VALUE"),
        (["=8"], "KEY=VALUE"),
        ([" =8"], "KEY=VALUE"),
        (["k=1", "k=2"], "twice"),
        (["k=1", "k =2"], "twice"),
    ],
)
def test_what_is_no_pair_is_refused(items, complaint):
    with pytest.raises(BadOption, match=complaint):
        pairs(items)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Options()),
        ({"k": "4", "density": "1e-1"}, Options(k=4, density=0.1)),
        ({"n-init": "3"}, Options(n_init=3)),
        ({"k": 4.0, "density": 1}, Options(k=4, density=1.0)),
        ({"norm": 2}, Options(norm="2")),
        ({"norm": float("inf")}, Options(norm="inf")),
        ({"signed": "yes"}, Options(signed=True)),
        ({"signed": True}, Options(signed=True)),
        ({"signed": "OFF"}, Options(signed=False)),
        ({"ref": "max"}, Options(ref="max")),
        ({"ref": "12"}, Options(ref=12)),
        ({"limit": "none"}, Options(limit=None)),
        ({"limit": None}, Options(limit=None)),
        ({"limit": "7"}, Options(limit=7)),
        ({"title": 7}, Options(title="7")),
    ],
    ids=str,
)
def test_texts_and_plain_values_become_typed_ones(values, expected):
    parsed = parse(Options, values)

    assert parsed == expected
    assert [type(value) for value in dump(parsed).values()] == [type(value) for value in dump(expected).values()]


@pytest.mark.parametrize(
    "values",
    [
        {"k": "eight"},
        {"k": "8.5"},
        {"k": 8.5},
        {"k": float("nan")},
        {"k": float("inf")},
        {"k": True},
        {"k": None},
        {"k": [8]},
        {"k": "9" * 5000},
        {"density": "much"},
        {"density": True},
        {"density": 10**400},
        {"norm": "3"},
        {"norm": ["inf"]},
        {"signed": "perhaps"},
        {"signed": 2},
        {"ref": "median"},
        {"limit": "some"},
        {"title": ["a"]},
        {"title": {"a": 1}},
    ],
    ids=lambda values: str(values)[:40],
)
def test_a_value_of_another_type_is_refused_by_name(values):
    (name,) = values

    with pytest.raises(BadOption, match=rf"^{name} is "):
        parse(Options, values)


@pytest.mark.parametrize(("name", "hint"), [("densty", "density"), ("ninit", "n_init"), ("zzz", "k, density, norm")])
def test_an_unknown_option_is_answered_with_its_neighbours(name, hint):
    with pytest.raises(BadOption, match=f"no option '{name}'") as caught:
        parse(Options, {name: "1"})

    assert caught.value.hint.startswith(hint)


def test_one_option_in_two_spellings_is_refused():
    with pytest.raises(BadOption, match="twice"):
        parse(Options, {"n-init": "1", "n_init": "2"})


def test_a_method_without_options_says_so():
    @dataclass(frozen=True)
    class Nothing:
        pass

    with pytest.raises(BadOption) as caught:
        parse(Nothing, {"k": "1"})

    assert caught.value.hint == "no -O at all"


@given(
    st.builds(
        Options,
        k=st.integers(),
        density=st.floats(allow_nan=False),
        norm=st.sampled_from(["inf", "2"]),
        n_init=st.integers(),
        signed=st.booleans(),
        ref=st.integers() | st.sampled_from(["mean", "max"]),
        limit=st.none() | st.integers(),
        title=st.text(),
    )
)
@settings(deadline=None)
def test_dumped_options_are_read_back_from_values_and_from_texts(options):
    values = dump(options)

    assert parse(Options, values) == options
    assert parse(Options, {name: str(value) for name, value in values.items()}) == options


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("512MB", 512 * 10**6),
        ("512m", 512 * 2**20),
        ("4G", 4 * 2**30),
        ("1.5GiB", 3 * 2**29),
        (" 2 TB ", 2 * 10**12),
        ("10b", 10),
        ("1e3", 1000),
    ],
)
def test_sizes_are_bytes(text, expected):
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "0", "-1G", "0.1", "1X", "1BG", "nan", "inf", "1e30", "1 2", "0x10"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(BadOption, match="size") as caught:
        size(text)

    assert "GiB" in caught.value.hint
