import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramerge.errors import BadOption
from loramerge.search.domain import Choice, Integer, Uniform, parse
from loramerge.search.space import read

OPTIONS = {"ties": {"density"}, "dare": {"density", "seed"}, "lego": {"k", "gauge"}, "linear": set()}


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("ties,tsv,linear", Choice(("ties", "tsv", "linear"))),
        ("4|8|16", Choice((4, 8, 16))),
        ("0.5", Choice((0.5,))),
        ("0.3..2", Uniform(0.3, 2.0)),
        ("-1.5..1.5", Uniform(-1.5, 1.5)),
        ("log:1e-3..1", Uniform(0.001, 1.0, log=True)),
        ("int:2..16", Integer(2, 16)),
        ("log:int:1..1024", Integer(1, 1024, log=True)),
    ],
)
def test_domains_are_read_and_told_in_the_same_words(text, domain):
    assert parse(text) == domain
    assert parse(str(domain)) == domain


@pytest.mark.parametrize(
    "text", ["", "a,,b", "a,a", "2..1", "0..0", "0..inf", "a..b", "log:0..1", "int:0.5..2", "lin:0..1", "1..2..3"]
)
def test_what_is_no_domain_is_refused(text):
    with pytest.raises(BadOption):
        parse(text)


@given(
    st.sampled_from([Choice(("a", "b", "c")), Integer(-2, 5), Integer(1, 100, log=True), Uniform(0.1, 7, log=True)]),
    st.floats(0, 1),
)
def test_a_value_lies_where_it_is_taken_from(domain, place):
    value = domain.at(place)

    again = domain.at(domain.place(value))

    assert again == pytest.approx(value) if isinstance(domain, Uniform) else again == value


@pytest.mark.parametrize("domain", [Choice((1, 2, 3, 4)), Integer(1, 4)])
def test_equal_lengths_hold_equally_many_values(domain):
    places = (np.arange(4000) + 0.5) / 4000

    counts = np.unique([domain.at(place) for place in places], return_counts=True)[1]

    assert counts.tolist() == [1000] * 4


def test_a_setting_belongs_to_the_methods_that_have_it():
    space = read(["density=0.1..0.9", "method=ties,lego,linear", "lego.k=4|8", "scale=0.3..2"], OPTIONS)

    names = {point["method"]: set(point) for point in space.grid()}

    assert names == {
        "ties": {"method", "density", "scale"},
        "lego": {"method", "k", "scale"},
        "linear": {"method", "scale"},
    }


def test_the_grid_is_every_combination_once():
    space = read(["method=ties,linear", "density=0.2..0.8", "scale=1,2"], OPTIONS)

    points = space.grid(3)

    assert len(points) == (3 + 1) * 2 == len({tuple(sorted(p.items())) for p in points})
    assert {p["density"] for p in points if p["method"] == "ties"} == {0.2, 0.5, 0.8}


def test_a_grid_too_large_to_list_is_refused_before_it_is_listed():
    space = read([f"weight.{number}=0..1" for number in range(2000)], OPTIONS)

    with pytest.raises(BadOption, match="more than 100,000 points") as caught:
        space.grid()

    assert "--sampler random" in caught.value.hint


def test_the_setting_of_a_lone_method_needs_no_method_in_the_point():
    space = read({"k": "4|8"}, OPTIONS, "lego")

    assert space.grid() == [{"k": 4}, {"k": 8}]


def test_a_point_lies_in_the_cube_where_it_is_found_again():
    space = read(["method=ties,lego", "density=0.1..0.9", "k=4|8", "weight.math=0..1.5"], OPTIONS)
    point = {"method": "ties", "density": 0.3, "weight.math": 1.2}

    found = space.point(space.cube(point))

    assert found == pytest.approx(point)


@pytest.mark.parametrize(
    ("texts", "hint"),
    [
        (["method=tie"], "ties"),
        (["method=ties", "densty=0.1..0.9"], "density"),
        (["method=ties", "k=4|8"], "--space method=lego"),
        (["density=0.1..0.9", "scale=0.3..2"], "--space method=ties,dare"),
        (["lego.k=4|8"], "--space method=lego"),
        (["scale=foo,1"], "scale=0.5,1 or scale=0.3..2"),
        (["scale=1,nan"], "scale=0.5,1 or scale=0.3..2"),
        (["weight.math=inf"], "weight.math=0.5,1 or weight.math=0.3..2"),
        (["scale=1,1" + "0" * 400], "scale=0.5,1 or scale=0.3..2"),
        (["method=ties,lego", "ties.k=4|8"], "k"),
        (["method=lego", "k=4", "lego.k=8"], ""),
        (["method=0..1"], "method=ties,tsv,linear"),
        ([], "--space method=ties,tsv --space scale=0.3..2"),
    ],
    ids=str,
)
def test_a_space_that_no_method_has_is_refused_with_what_there_is(texts, hint):
    with pytest.raises(BadOption) as caught:
        read(texts, OPTIONS)

    assert caught.value.hint == hint


def test_other_spaces_have_other_hashes():
    one, other = (read([f"scale={text}"], {}) for text in ("0.3..2", "0.3..2.5"))

    assert one.sha256 != other.sha256
