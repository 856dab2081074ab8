"""One job against the definition: dense, in float64, by numpy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from loramerge.core.adapter import ModuleSpec
from loramerge.core.lowrank import LowRank
from loramerge.engine.plan import Request, Setting, plan
from loramerge.engine.run import Inputs, run
from loramerge.errors import BadTensor
from loramerge.formats._format import FORMATS, Outline, open_adapter
from loramerge.linalg import ranks

# name: (out, in, kind, kernel); a convolution's `in` counts channels · kernel.
SHAPES = {
    "layers.0.q": (10, 7, "linear", ()),
    "layers.0.wide": (5, 24, "linear", ()),
    "layers.1.conv1": (6, 12, "conv1d", (3,)),
    "layers.1.conv2": (8, 18, "conv2d", (3, 3)),
    "layers.1.conv3": (4, 16, "conv3d", (2, 2, 2)),
    "embed": (6, 11, "embedding", ()),
}


class Made:
    """A random adapter on disk, and its updates by the definition."""

    def __init__(self, folder, seed, *, bias=False):
        self.folder = folder
        draw = np.random.default_rng(seed)
        names = [name for name in SHAPES if seed == 0 or draw.random() < 0.7] or ["layers.0.q"]
        self.specs, self.updates = [], {}
        for name in names:
            out, in_, kind, kernel = SHAPES[name]
            rank, scale = int(draw.integers(1, 5)), float(draw.choice([0.5, 2.0, 0.25]))
            biased = bias and kind == "linear"
            self.specs.append(ModuleSpec(name, out, in_, rank, scale, "F64", kind, kernel, scale * rank, bias=biased))
            b, a, offset = (torch.from_numpy(draw.standard_normal(s)) for s in ((out, rank), (rank, in_), out))
            self.updates[name] = LowRank(b, a, scale, bias=offset if biased else None)
        folder.mkdir(parents=True)
        outline = Outline(self.specs, config={"r": 1, "lora_alpha": 1, "lora_bias": bias}, verbatim=True)
        FORMATS["peft"].write(folder, outline, self.updates.items())

    def dense(self, name):
        """scale · B A, zero where the module is not there."""
        if name not in self.updates:
            return np.zeros(SHAPES[name][:2])
        update = self.updates[name]
        return update.scale * update.b.numpy() @ update.a.numpy()

    def offset(self, name):
        """scale · bias."""
        update = self.updates.get(name)
        return 0.0 if update is None or update.bias is None else update.scale * update.bias.numpy()


@pytest.fixture
def made(tmp_path):
    """Three adapters of other modules and ranks."""
    return [Made(tmp_path / f"adapter-{seed}", seed) for seed in range(3)]


def merged(made, method="linear", *, weights=None, rank="sum", options=None, **more):
    """Module → Done, through files."""
    adapters = [open_adapter(one.folder) for one in made]
    asked = Request(Setting(method, options or {}, weights or [1.0] * len(made), ranks.parse(rank)), **more)
    return {done.module: done for done in run(plan(adapters, asked, workers=1), Inputs(adapters))}


def total(made, weights, name):
    return sum(weight * one.dense(name) for weight, one in zip(weights, made, strict=True))


def assert_close(got, want):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * max(1.0, np.abs(want).max()))


WEIGHTS = [0.5, -1.25, 2.0]


@pytest.mark.parametrize("method", ["linear", "cat"])
def test_the_whole_sum_is_the_weighted_sum_of_the_dense_updates(made, method):
    found = merged(made, method, weights=WEIGHTS)

    assert sorted(found) == sorted(SHAPES)
    for name, done in found.items():
        assert_close(np.asarray(done.delta.dense()), total(made, WEIGHTS, name))


@pytest.mark.parametrize("method", ["linear", "cat"])
@pytest.mark.parametrize("torchs", [[0], [1], [0, 1, 2]], ids=str)
def test_what_only_torch_can_read_gives_the_same(made, method, torchs, monkeypatch):
    monkeypatch.setitem(SHAPES, "layers.0.q", (90, 70, "linear", ()))
    monkeypatch.setitem(SHAPES, "layers.2.q", (40, 50, "linear", ()))
    made = [Made(one.folder.with_name(f"{one.folder.name}-wide"), seed) for seed, one in enumerate(made)]
    want = merged(made, method, weights=WEIGHTS, rank="3")
    adapters = [open_adapter(one.folder) for one in made]
    for at in torchs:
        adapters[at] = replace(adapters[at], arrays=None, extra_arrays=None)

    asked = plan(adapters, Request(Setting(method, {}, WEIGHTS, ranks.parse("3"))), workers=1)
    touched = [job for job in asked.jobs if set(job.members) & set(torchs)]
    found = {done.module: done for done in run(asked, Inputs(adapters))}

    assert touched
    assert not any(job.arrays for job in touched)
    for name, done in found.items():
        assert_close(np.asarray(done.delta.dense()), np.asarray(want[name].delta.dense()))
        assert done.report["norm"] == pytest.approx(want[name].report["norm"])
        assert done.report["norm_inputs_mean"] == pytest.approx(want[name].report["norm_inputs_mean"])


@pytest.mark.parametrize("rank", ["1", "3", "max"])
def test_a_truncated_sum_is_the_best_of_its_rank_and_reports_its_error(made, rank):
    found = merged(made, weights=WEIGHTS, rank=rank)

    for name, done in found.items():
        want = total(made, WEIGHTS, name)
        u, s, v = np.linalg.svd(want)
        k = done.delta.rank
        assert_close(np.asarray(done.delta.dense()), (u[:, :k] * s[:k]) @ v[:k])
        lost = math.sqrt((s[k:] ** 2).sum() / (s**2).sum())
        assert done.report["relative_error"] == pytest.approx(lost, abs=1e-7)


def test_the_largest_rank_counts_module_by_module(made):
    found = merged(made, rank="max")

    for name, done in found.items():
        widest = max(one.updates[name].rank for one in made if name in one.updates)
        assert done.delta.rank <= min(widest, *SHAPES[name][:2])


@pytest.mark.parametrize("method", ["linear", "cat", "knots", "ties"])
def test_numbers_that_overflow_are_an_error_that_names_the_module(made, method):
    loud = made[0]
    loud.folder = loud.folder.with_name("loud")
    loud.folder.mkdir()
    updates = {name: replace(update, b=update.b * 1e200, a=update.a * 1e200) for name, update in loud.updates.items()}
    outline = Outline(loud.specs, config={"r": 1, "lora_alpha": 1}, verbatim=True)
    FORMATS["peft"].write(loud.folder, outline, updates.items())

    with pytest.raises(BadTensor, match="larger than float64 can hold") as caught:
        merged(made, method, rank="2")

    assert caught.value.where == "embed"


@pytest.mark.parametrize("method", ["linear", "ema", "ties", "knots"])
def test_the_mean_norm_is_that_of_the_updates_there_are(made, method):
    """Also for methods that are handed an update of zero where an adapter lacks a module."""
    for name, done in merged(made, method, rank="sum").items():
        sizes = [np.linalg.norm(one.dense(name)) for one in made if name in one.updates]
        assert done.report["norm_inputs_mean"] == pytest.approx(np.mean(sizes)), name


def test_the_scale_of_a_result_is_folded_into_its_factors(made):
    found = merged(made, weights=WEIGHTS, scale=-0.5)

    for name, done in found.items():
        assert done.delta.scale == 1.0
        assert_close(np.asarray(done.delta.dense()), -0.5 * total(made, WEIGHTS, name))


def test_truncation_shares_the_singular_values_between_both_halves(made):
    found = merged(made, rank="2")

    for done in found.values():
        assert_close(np.linalg.norm(done.delta.b, axis=0), np.linalg.norm(done.delta.a, axis=1))


@pytest.mark.parametrize("rank", ["sum", "1"])
@pytest.mark.parametrize("method", ["linear", "cat", "lego"])
def test_loras_own_biases_are_summed_with_weights_and_scales(tmp_path, method, rank):
    made = [Made(tmp_path / f"biased-{seed}", seed, bias=seed != 1) for seed in range(3)]

    found = merged(made, method, weights=WEIGHTS, rank=rank, options={"k": 1} if method == "lego" else {})

    for name in ("layers.0.q", "layers.0.wide"):
        want = sum(weight * one.offset(name) for weight, one in zip(WEIGHTS, made, strict=True))
        assert_close(np.asarray(found[name].delta.bias), want)


def test_a_module_of_zeros_stays_a_module_of_zeros(made):
    found = merged(made[:1] * 2, weights=[1.0, -1.0], rank="1")

    for name, done in found.items():
        assert done.delta.rank == 1
        assert abs(done.delta.dense()).max() < 1e-12, name


def test_lego_with_all_units_and_no_reweighting_is_the_sum(made):
    found = merged(made, "lego", weights=WEIGHTS, options={"k": 9, "reweight": "none"})

    for name, done in found.items():
        if done.report["all_kept"]:
            assert_close(np.asarray(done.delta.dense()), total(made, WEIGHTS, name))
    assert any(done.report["all_kept"] for done in found.values())


def test_a_report_says_what_went_in_and_what_came_out(made):
    found = merged(made, weights=WEIGHTS, rank="2")

    for name, done in found.items():
        owners = [one for one in made if name in one.updates]
        assert done.report["adapters"] == len(owners)
        assert done.report["rank_in"] == sum(one.updates[name].rank for one in owners)
        assert done.report["rank"] == done.delta.rank
        assert done.report["norm"] == pytest.approx(np.linalg.norm(np.asarray(done.delta.dense())))
        mean = np.mean([np.linalg.norm(one.dense(name)) for one in owners])
        assert done.report["norm_inputs_mean"] == pytest.approx(mean)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(("method", "options"), [("linear", {}), ("lego", {"k": 2})])
def test_a_gpu_gives_the_same_numbers_and_hands_them_back_to_the_cpu(made, method, options):
    adapters = [open_adapter(one.folder) for one in made]
    asked = Request(Setting(method, options, WEIGHTS, ranks.parse("2")))
    found = list(run(plan(adapters, asked, workers=1, device="cuda"), Inputs(adapters)))

    want = merged(made, method, weights=WEIGHTS, rank="2", options=options)
    for done in found:
        assert done.delta.b.device.type == "cpu"
        torch.testing.assert_close(done.delta.dense(), want[done.module].delta.dense(), rtol=0, atol=1e-9)
