import subprocess
import sys

import pytest

from loramerge.errors import BadOption, MissingExtra
from loramerge.search.samplers._sampler import SAMPLERS
from loramerge.search.space import read

SPACE = read(
    ["method=ties,dare,linear", "density=0.1..0.9", "scale=log:0.3..3", "dare.k=int:1..9"],
    {"ties": {"density"}, "dare": {"density", "k"}, "linear": set()},
)
BOWL = read(["scale=0..1", "weight.a=-1..1"], {})


def bowl(point):
    """Best, and 0, at scale 0.7 and weight 0.4."""
    return -((point["scale"] - 0.7) ** 2) - (point["weight.a"] - 0.4) ** 2


def searched(name, space, value, batches=12, seed=0):
    search = SAMPLERS[name].start(space, seed)
    found = []
    for _ in range(batches):
        points = search.ask(8)
        search.tell(points, [value(point) for point in points])
        found += points
    return found


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_points_have_what_applies_and_lie_in_their_ranges(name):
    points = searched(name, SPACE, lambda point: point["scale"])

    for point in points:
        dimensions = {d.name: d.domain for d in SPACE.dimensions if d.applies(point)}
        assert set(point) == set(dimensions)
        assert all(0 <= dimensions[key].place(value) <= 1 for key, value in point.items())
        assert 1 <= point.get("k", 1) <= 9


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_the_same_search_gone_through_again_asks_for_the_same_points(name):
    one, again, other = (searched(name, SPACE, lambda point: point["scale"], seed=seed) for seed in (3, 3, 4))

    assert one == again
    assert one != other


@pytest.mark.parametrize("name", ["cma", "tpe"])
def test_samplers_that_learn_come_nearer(name):
    best = max(bowl(point) for point in searched(name, BOWL, bowl))
    drawn = sorted(max(bowl(p) for p in searched("random", BOWL, bowl, seed=seed)) for seed in range(9))[4]

    assert best > drawn
    assert best > -0.001


@pytest.mark.parametrize("name", SAMPLERS.names())
def test_a_score_that_is_no_number_is_taken(name):
    points = searched(name, BOWL, lambda point: float("nan") if point["scale"] < 0.5 else bowl(point), batches=4)

    assert len(points) >= 25


def test_the_grid_ends_when_all_of_it_was_asked_for():
    search = SAMPLERS["grid"].start(BOWL, 0)

    asked = [search.ask(20), search.ask(20), search.ask(20)]

    assert [len(points) for points in asked] == [20, 5, 0]
    assert {tuple(p.items()) for points in asked for p in points} == {tuple(p.items()) for p in BOWL.grid()}


def test_cma_refuses_a_single_setting():
    with pytest.raises(BadOption):
        SAMPLERS["cma"].start(read(["scale=0..1"], {}), 0)


@pytest.mark.parametrize(("name", "library"), [("cma", "cmaes"), ("tpe", "optuna")])
def test_without_its_library_a_sampler_says_what_to_install(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(MissingExtra) as caught:
        SAMPLERS[name].start(BOWL, 0)

    assert caught.value.hint == 'pip install "loramerge[search]"'


def test_samplers_are_named_without_their_libraries():
    code = (
        "import sys\nfrom loramerge.search.samplers._sampler import SAMPLERS\n"
        "[SAMPLERS[name] for name in SAMPLERS.names()]\n"
        "print(SAMPLERS.names(), {'cmaes', 'optuna', 'torch', 'scipy'} & set(sys.modules))"
    )

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert out == "['cma', 'grid', 'random', 'tpe'] set()\n"
