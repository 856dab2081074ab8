"""Points between adapters and averages of checkpoints, in folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from loramerge import api
from loramerge.errors import BadOption, OutputExists, UsageError
from loramerge.formats._format import open_adapter
from loramerge.linalg.measure import norm
from loramerge.workspace.results import read_record

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def deltas(folder):
    adapter = open_adapter(folder)
    return {name: adapter.load(name).to(dtype=torch.float64).dense() for name in adapter.modules}


def refs(*folders):
    return [str(folder) for folder in folders]


def assert_same_tensors(one, other):
    ours, theirs = load_file(one / WEIGHTS), load_file(other / WEIGHTS)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def assert_rebuilt(session, made):
    assert all(row["same"] for row in api.rebuild(session, made.name))


@pytest.fixture
def ends(make_adapter):
    """Two adapters of one base, of other ranks and scales."""
    return make_adapter("one", rank=2, alpha=3), make_adapter("two", rank=4, alpha=1, use_rslora=True)


@pytest.fixture
def run(make_adapter):
    """Three checkpoints of one rank and scale."""
    return [make_adapter(f"checkpoint-{step}", rank=4, alpha=6) for step in (100, 200, 300)]


# The ends


@pytest.mark.parametrize("way", [{}, {"path": "slerp"}, {"space": "factors"}], ids=str)
@pytest.mark.parametrize("t", [0.0, 1.0])
def test_an_end_is_that_adapter_bit_for_bit(session, ends, t, way):
    made = api.interpolate(session, refs(*ends), t, out=Path("end"), **way)

    assert_same_tensors(made.path, ends[int(t)])
    read, kept = open_adapter(made.path), open_adapter(ends[int(t)])
    assert {name: spec.scale for name, spec in read.modules.items()} == {
        name: spec.scale for name, spec in kept.modules.items()
    }
    assert_rebuilt(session, made)


def test_an_end_has_its_own_modules_and_extras_only(session, make_adapter):
    head = {"classifier.weight": torch.ones(3, 6)}
    x = make_adapter("x", extras=head, modules_to_save=["classifier"])
    y = make_adapter("y", modules={"layers.5.q": (8, 8)}, extras={"classifier.weight": torch.zeros(3, 6)})

    made = api.interpolate(session, refs(x, y), 0.0)

    assert_same_tensors(made.path, x)
    assert not (made.path / "heads").exists()
    assert "the extras of y left out: it counts for nothing" in made.report["notes"]
    assert set(made.report["modules"]) == set(open_adapter(x).modules)


@pytest.mark.parametrize("method", ["ema", "np"])
def test_a_number_no_result_can_reach_keeps_all_where_an_adapter_lacks_a_module(session, make_adapter, method):
    x, y = make_adapter("x", modules={"layers.0.q": (8, 8)}, rank=2), make_adapter("y", rank=3)

    made = api.merge(session, refs(x, y), method=method, rank=1000)

    only = deltas(y)["layers.1.v"]
    share = {"ema": 0.5, "np": 1.0}[method]
    torch.testing.assert_close(deltas(made.path)["layers.1.v"], share * only, rtol=0, atol=1e-6)
    assert made.report["modules"]["layers.1.v"]["rank"] == 3
    assert_rebuilt(session, made)


def test_an_end_at_a_lower_rank_is_cut(session, ends):
    made = api.interpolate(session, refs(*ends), 1.0, rank=1)

    want = api.merge(session, refs(ends[1]), rank=1)
    assert open_adapter(made.path).rank == 1
    for name, delta in deltas(want.path).items():
        torch.testing.assert_close(deltas(made.path)[name], delta, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("what", [{"scale": 0.5}, {"weights": [2.0, 2.0], "scale": 0.25}], ids=str)
def test_an_end_that_is_scaled_is_not_a_copy(session, ends, what):
    made = api.interpolate(session, refs(*ends), 0.0, **what)

    for name, delta in deltas(ends[0]).items():
        torch.testing.assert_close(deltas(made.path)[name], 0.5 * delta, rtol=1e-5, atol=1e-5)


# The way


def test_the_middle_is_the_mean_of_the_updates(session, ends):
    made = api.interpolate(session, refs(*ends), 0.5, rank="sum")

    x, y = deltas(ends[0]), deltas(ends[1])
    assert made.name == "interpolate-0.5"
    for name, delta in deltas(made.path).items():
        torch.testing.assert_close(delta, (x[name] + y[name]) / 2, rtol=1e-5, atol=1e-6)
    assert_rebuilt(session, made)


def test_the_middle_in_factors_misses_that_by_the_product_of_differences(session, run):
    made = api.interpolate(session, refs(*run[:2]), 0.5, space="factors")

    x, y = open_adapter(run[0]), open_adapter(run[1])
    for name, delta in deltas(made.path).items():
        a, b = x.load(name), y.load(name)
        mean = (a.dense() + b.dense()) / 2
        bend = 1.5 * (a.b - b.b) @ (a.a - b.a) / 4
        torch.testing.assert_close(delta.float(), mean - bend, rtol=1e-5, atol=1e-5)
    assert_rebuilt(session, made)


def test_along_the_arc_norms_go_evenly(session, ends):
    made = api.interpolate(session, refs(*ends), 0.25, path="slerp", rank="sum")

    adapters = [open_adapter(folder) for folder in (*ends, made.path)]
    for name in adapters[2].modules:
        x, y, found = (norm(adapter.load(name)) for adapter in adapters)
        assert found == pytest.approx(0.75 * x + 0.25 * y, rel=1e-5)


def test_what_lies_beside_updates_goes_the_same_way(session, make_adapter):
    x = make_adapter("x", extras={"layers.0.q.bias": torch.zeros(8)}, bias="all")
    y = make_adapter("y", extras={"layers.0.q.bias": torch.ones(8)}, bias="all")

    made = api.interpolate(session, refs(x, y), 0.25)

    (bias,) = [value for key, value in load_file(made.path / WEIGHTS).items() if "bias" in key]
    torch.testing.assert_close(bias, torch.full((8,), 0.25))


def test_a_module_that_one_end_lacks_is_zero_there(session, make_adapter):
    x, y = make_adapter("x", modules={"layers.0.q": (8, 8), "layers.1.q": (8, 8)}), make_adapter("y")

    made = api.interpolate(session, refs(x, y), 0.25, rank="sum")

    torch.testing.assert_close(deltas(made.path)["layers.0.v"], 0.25 * deltas(y)["layers.0.v"], rtol=1e-5, atol=1e-6)


def test_points_are_numbered_recorded_and_in_order(session, ends):
    made = api.sweep(session, refs(*ends), 3, out=Path("way"))

    assert [(t, one.name) for t, one in made] == [(0.0, "way-000"), (0.5, "way-001"), (1.0, "way-002")]
    assert_same_tensors(made[0][1].path, ends[0])
    assert_same_tensors(made[2][1].path, ends[1])
    assert [read_record(one.path).lineage.options["t"] for _, one in made] == [0.0, 0.5, 1.0]
    assert {entry.name for entry in session.workspace.entries() if entry.role == "result"} == {
        "way-000",
        "way-001",
        "way-002",
    }


def test_points_do_not_begin_where_one_would_be_in_the_way(session, ends):
    api.merge(session, refs(*ends), out=Path("way-001"))

    with pytest.raises(OutputExists):
        api.sweep(session, refs(*ends), 3, out=Path("way"))

    assert not (session.folder / "way-000").exists()


@pytest.mark.parametrize(
    ("points", "what", "complaint"),
    [
        (1, {}, "no two ends"),
        (3, {"space": "factors", "path": "slerp"}, "arc is one of updates"),
        (3, {"space": "factors", "weights": [1, 2]}, "weighed by t alone"),
    ],
    ids=str,
)
def test_ways_that_are_none_are_refused(session, ends, points, what, complaint):
    with pytest.raises(BadOption, match=complaint):
        api.sweep(session, refs(*ends), points, **what)

    assert list(session.folder.iterdir()) == []


@pytest.mark.parametrize("t", [-0.5, 1.5, float("nan")])
def test_beyond_the_ends_is_refused(session, ends, t):
    with pytest.raises(BadOption, match="outside"):
        api.interpolate(session, refs(*ends), t, space="factors")


def test_a_way_has_two_ends(session, run):
    with pytest.raises(UsageError, match="not among 3"):
        api.interpolate(session, refs(*run), 0.5)


# The average of checkpoints


def test_two_checkpoints_are_weighed_by_the_decay(session, run):
    made = api.ema(session, refs(*run[:2]), options={"beta": 0.75, "warmup": "none"}, rank="sum")

    x, y = deltas(run[0]), deltas(run[1])
    assert made.name == "ema-0.75"
    for name, delta in deltas(made.path).items():
        torch.testing.assert_close(delta, 0.75 * x[name] + 0.25 * y[name], rtol=1e-5, atol=1e-5)
    assert_rebuilt(session, made)


def test_the_order_of_checkpoints_is_that_of_the_call(session, run):
    options = {"beta": 0.75, "warmup": "none"}
    one = api.ema(session, refs(*run), options=options, out=Path("forth"))
    two = api.ema(session, refs(*reversed(run)), options=options, out=Path("back"))

    assert not torch.allclose(deltas(one.path)["layers.0.q"], deltas(two.path)["layers.0.q"])


def test_a_constant_sequence_is_constant(session, run):
    made = api.ema(session, refs(run[0], run[0], run[0]), rank="max")

    for name, delta in deltas(made.path).items():
        torch.testing.assert_close(delta, deltas(run[0])[name], rtol=1e-5, atol=1e-5)


def test_at_beta_zero_it_is_the_last_bit_for_bit(session, run):
    made = api.ema(session, refs(*run), options={"beta": 0.0})

    assert_same_tensors(made.path, run[-1])


@pytest.mark.parametrize(("count", "complaint"), [(0, "no checkpoints"), (1, "2 or more")])
def test_one_checkpoint_is_no_sequence(session, run, count, complaint):
    with pytest.raises(UsageError, match=complaint):
        api.ema(session, refs(*run[:count]))
