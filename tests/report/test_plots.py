"""Drawings by their geometry."""

from __future__ import annotations

import math
import re

import pytest
import torch

from loramerge.report import svg
from loramerge.report.measure import principal_plane
from loramerge.report.plots import Axis, Dot, Point, Series, curves, dots, heatmap, parallel, scatter


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3, 7), (0.9995, 0.9996), (1e-7, 2e-7), (1e9, 3e9), (5, 5), (0, 0), (-1e299, 1e299)]
)
def test_ticks_are_few_round_and_inside(low, high):
    scale = svg.scale([low, high], 0, 100)

    ticks = scale.ticks(5)

    assert 1 <= len(ticks) <= 8
    assert all(-1e-6 <= scale(tick) <= 100 + 1e-6 for tick in ticks)
    assert len(set(svg._labels(ticks))) == len(ticks)


@pytest.mark.parametrize(("low", "high"), [(0.05, 8), (1, 1.5), (1e-12, 1), (3, 3)])
def test_logarithmic_ticks_are_few_and_inside(low, high):
    scale = svg.scale([low, high], 0, 100, log=True)

    ticks = scale.ticks()

    assert len(ticks) <= 10
    assert all(0 <= scale(tick) <= 100 for tick in ticks)


def test_a_value_lies_where_its_number_says():
    scale = svg.Scale(0, 10, 100, 300)

    assert [scale(0), scale(2.5), scale(10)] == [100, 150, 300]


def test_a_whisker_spans_the_interval():
    drawn = dots([Dot("a", 0.5, 0.25, 0.75), Dot("b", 1.0, 0.0, 1.0)], label="x", x="accuracy")

    spans = [
        tuple(map(float, found))
        for found in re.findall(r'<line x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"[^>]*whisker', drawn)
    ]
    (a_low, a_high), (b_low, b_high) = spans
    assert (a_high - a_low) == pytest.approx((b_high - b_low) / 2, abs=0.05)


def test_points_that_cannot_be_drawn_are_left_out():
    points = [Point(0, 1.0), Point(1, math.nan), Point(2, 0.0), Point(3, math.inf), Point(4, 2.0)]

    drawn = curves([Series("a", 1, points)], label="x", x="x", y="y", log=True, legend=False)

    assert drawn.count('class="mark c1"') == 2
    assert "nan" not in drawn


def test_nothing_at_all_can_be_drawn():
    drawn = [
        curves([], label="x", x="x", y="y"),
        dots([], label="x", x="x"),
        heatmap([], [], label="x"),
        scatter([], label="x", x="x", y="y"),
        parallel([], [], label="x"),
    ]

    assert all(one.startswith("<svg") and "nan" not in one for one in drawn)


def test_things_of_one_colour_differ_in_shape():
    looks = {re.sub(r"[\d. ]+", "", svg.mark(0, 0, kind)) for kind in range(1, 9)}

    assert len(looks) >= 7
    assert svg.colour(9) == svg.colour(1)


def test_a_heatmap_has_a_cell_a_pair_and_marks_what_is_none():
    drawn = heatmap(["a", "b"], [[1.0, -0.5], [math.nan, 1.0]], label="x")

    assert drawn.count("<rect") == 4
    assert drawn.count("cell-none") == 1
    assert "var(--less) 50%" in drawn


def test_lines_run_from_axis_to_axis():
    axes = [Axis("k", [(0.0, "4"), (1.0, "8")]), Axis("value", [(0.0, "0"), (1.0, "1")])]

    drawn = parallel(axes, [([0.0, 1.0], 1, False, "trial")], label="x")

    (start, end) = re.findall(r"([\d.]+) ([\d.]+)", re.search(r'd="M([^"]+)"', drawn)[1])
    assert float(start[0]) < float(end[0])
    assert float(start[1]) > float(end[1])


def test_the_plane_keeps_the_distances_of_points_in_a_plane():
    points = torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 4, 0], [3, 4, 0]], dtype=torch.float64) + 5

    plane, shares = principal_plane(points @ points.T)

    torch.testing.assert_close(torch.cdist(plane, plane), torch.cdist(points, points))
    assert shares == (pytest.approx(16 / 25), pytest.approx(9 / 25))


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_units_have_a_place(count):
    plane, shares = principal_plane(torch.eye(count, dtype=torch.float64))

    assert plane.shape == (count, 2)
    assert all(math.isfinite(share) for share in shares)
