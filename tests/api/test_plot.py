"""The pictures of a comparison, looked at by their pixels."""

from __future__ import annotations

import pytest

from loramerge import api
from loramerge.errors import BadOption

pytest.importorskip("matplotlib")
from PIL import Image

Q = "model.layers.0.self_attn.q_proj"


def colours_of(path):
    """Colour -> how many pixels have it."""
    with Image.open(path) as image:
        return {colour: count for count, colour in image.convert("RGB").getcolors(1 << 24)}


def height_of(path):
    """Of a picture that is a PNG."""
    with Image.open(path, formats=["PNG"]) as image:
        return image.height


@pytest.fixture
def many(make_adapter):
    """folders(n) -> that many adapters with names as long as names are."""
    return lambda n: [
        str(make_adapter(f"an-adapter-with-a-rather-long-name-{i:03d}", modules={Q: (8, 8)})) for i in range(n)
    ]


@pytest.mark.parametrize("count", [2, 13])
def test_pictures_are_the_same_each_time(session, many, tmp_path, count):
    folders, made = many(count), []

    for turn in ("first", "again"):
        paths = tmp_path / f"{turn}-map.png", tmp_path / f"{turn}-tree.png"
        api.compare(session, folders, plot=paths[0], dendrogram=paths[1])
        made.append([path.read_bytes() for path in paths])

    assert made[0] == made[1]


def test_every_name_has_a_line_of_its_own_among_many(session, many, tmp_path):
    api.compare(session, many(70), plot=tmp_path / "map.png", dendrogram=tmp_path / "tree.png")

    assert height_of(tmp_path / "map.png") > 2 * 70 * 12
    assert height_of(tmp_path / "tree.png") > 70 * 24


def test_a_picture_has_the_colours_of_its_numbers(session, make_adapter, tmp_path):
    folder = make_adapter("a", modules={Q: (8, 8)})

    api.compare(session, [str(folder), str(folder)], plot=tmp_path / "same.png")

    colours = colours_of(tmp_path / "same.png")
    dark_red, blue_end = (103, 0, 31), (5, 48, 97)
    assert colours[dark_red] > 100 * colours.get(blue_end, 1)


def test_a_tree_across_bases_has_a_colour_for_each(session, make_adapter, tmp_path):
    folders = [str(make_adapter(name, base=f"acme/{name[0]}")) for name in ("a1", "a2", "b1")]

    api.compare(session, folders, dendrogram=tmp_path / "tree.png", allow_base_mismatch=True)

    colours = colours_of(tmp_path / "tree.png").keys()
    assert {(31, 119, 180), (255, 127, 14)} <= colours


@pytest.mark.parametrize(("path", "said"), [("map.jpg", "written as PNG"), ("nowhere/map.png", "no such folder")])
def test_a_place_for_no_picture_is_refused_before_the_work(session, path, said):
    with pytest.raises(BadOption, match=said):
        api.compare(session, ["./not-even-there"], plot=session.folder / path)
