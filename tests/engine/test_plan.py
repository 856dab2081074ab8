"""What is decided from headers alone. The adapters here cannot be read: planning that tries fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from loramerge import options as texts
from loramerge.engine.plan import Request, Setting, plan, resolve_device
from loramerge.errors import BadOption, NeedsBase, NeedsData, ShapeMismatch, UsageError
from loramerge.linalg import ranks

Q = (8, 4, 2)


def planned(
    adapters,
    method="linear",
    *,
    options=None,
    weights=None,
    rank="max",
    rules=(),
    statistics=(),
    metric=None,
    run=None,
    **request,
):
    """A plan with one weight of 1/n for each adapter, unless said; `rules` are patterns with options, or settings."""
    share = weights or ([1 / len(adapters)] * len(adapters) if adapters else [])
    setting = Setting(method, options or {}, share, ranks.parse(rank))
    overrides = {
        pattern: rule if isinstance(rule, Setting) else replace(setting, options={**setting.options, **rule})
        for pattern, rule in dict(rules).items()
    }
    return plan(adapters, Request(setting, overrides, **request), statistics=statistics, metric=metric, **(run or {}))


def bounds(made):
    return {job.module: job.spec.rank for job in made.jobs}


def test_the_result_has_the_modules_of_all_inputs_in_natural_order(header):
    x, y = header("x", {"layers.10.q": Q, "layers.2.q": Q}), header("y", {"layers.2.v": Q, "layers.10.q": Q})

    made = planned([x, y])

    assert [job.module for job in made.jobs] == ["layers.2.q", "layers.2.v", "layers.10.q"]
    assert [job.members for job in made.jobs] == [(0,), (1,), (0, 1)]


def test_a_missing_module_is_an_update_of_zero_not_a_smaller_mean(header):
    adapters = [header("x", q=Q, v=Q), header("y", q=Q), header("z", q=Q)]

    made = planned(adapters)

    weights = {job.module: job.weights for job in made.jobs}
    assert weights == {"q": (1 / 3, 1 / 3, 1 / 3), "v": (1 / 3,)}


def test_adapters_that_disagree_about_a_shape_are_refused_by_name(header):
    with pytest.raises(ShapeMismatch, match=r"shape of q: linear 8×4 and linear 8×5") as caught:
        planned([header("x", q=(8, 4, 2)), header("y", q=(8, 4, 3)), header("z", q=(8, 5, 2))])

    assert caught.value.where == "x, y, z"


def test_the_same_sides_of_another_kind_of_layer_are_another_shape(header):
    with pytest.raises(ShapeMismatch, match="conv1d 8×4 and linear 8×4"):
        planned([header("x", q=Q), header("y", q=Q, kind="conv1d")])


@pytest.mark.parametrize("adapters", [0, 1], ids=["no adapter", "an adapter without modules"])
def test_nothing_to_merge_is_an_error(header, adapters):
    with pytest.raises(UsageError):
        planned([header("x")][:adapters])


@pytest.mark.parametrize(
    ("rank", "expected"),
    [("1", 1), ("3", 3), ("max", 3), ("sum", 5), ("100", 5), ("energy:0.9", 4), ("elbow", 4)],
)
def test_the_rank_is_bounded_before_a_number_is_read(header, rank, expected):
    made = planned([header("x", q=(8, 4, 2)), header("y", q=(8, 4, 3))], rank=rank)

    assert bounds(made) == {"q": expected}
    assert made.rank == expected


@pytest.mark.parametrize(("method", "options", "expected"), [("cat", {}, 5), ("lego", {"k": 4}, 4)])
def test_a_method_that_decides_its_rank_bounds_it_itself(header, method, options, expected):
    adapters = [header("x", q=(8, 4, 2), v=(8, 4, 1)), header("y", q=(8, 4, 3))]

    made = planned(adapters, method, options=options, rank="1")

    assert bounds(made) == {"q": expected, "v": 1}


def test_k_above_the_units_of_every_module_is_an_error(header):
    with pytest.raises(BadOption, match="k is 6, but no module has more than 5 units"):
        planned([header("x", q=(8, 4, 2)), header("y", q=(8, 4, 3))], "lego", options={"k": 6})


def test_k_above_the_units_of_some_modules_is_not(header):
    adapters = [header("x", q=(8, 4, 2), v=(8, 4, 2)), header("y", q=(8, 4, 3))]

    made = planned(adapters, "lego", options={"k": 4})

    assert bounds(made) == {"q": 4, "v": 2}


def test_the_first_pattern_that_matches_gives_a_module_its_options(header):
    names = ["layers.0.q", "layers.0.v", "layers.1.q", "layers.12.v"]
    rules = {"layers.[0-1].q": {"k": "2"}, "*.q": {"k": 3}, "layers.12.*": {"k": 5, "gauge": "balanced"}}

    made = planned(
        [header("x", dict.fromkeys(names, (8, 8, 8)))], "lego", options={"k": 4, "gauge": "raw"}, rules=rules
    )

    chosen = {job.module: (job.options.k, job.options.gauge) for job in made.jobs}
    assert chosen == {
        "layers.0.q": (2, "raw"),
        "layers.0.v": (4, "raw"),
        "layers.1.q": (2, "raw"),
        "layers.12.v": (5, "balanced"),
    }


def test_a_pattern_that_matches_nothing_is_an_error(header):
    rules = {"q": {"k": 1}, "*.nothing": {"k": 1}}

    with pytest.raises(BadOption, match=r"No module matches '\*.nothing'"):
        planned([header("x", q=Q)], "lego", options={"k": 2}, rules=rules)


def test_an_option_that_a_method_does_not_have_is_refused_also_for_some_modules(header):
    with pytest.raises(BadOption, match="no option 'reweigth'") as caught:
        planned([header("x", q=Q)], "lego", options={"k": 2}, rules={"q": {"reweigth": "none"}})

    assert "reweight" in caught.value.hint


def test_a_module_can_have_a_method_weights_and_a_rank_of_its_own(header):
    adapters = [header("x", q=(8, 8, 2), v=(8, 8, 2)), header("y", q=(8, 8, 3), v=(8, 8, 3))]

    made = planned(adapters, rank="1", rules={"v": Setting("cat", {}, [1.0, -2.0], ranks.parse("max"))})

    chosen = {job.module: (job.method, job.weights, job.spec.rank) for job in made.jobs}
    assert chosen == {"q": ("linear", (0.5, 0.5), 1), "v": ("cat", (1.0, -2.0), 5)}
    assert made.grains == ("coefficients", "factors")


def test_a_pattern_that_matches_nothing_is_told_what_is_near(header):
    with pytest.raises(BadOption) as caught:
        planned([header("x", {"layers.0.query": Q})], rules={"layers.0.qurey": {}})

    assert "layers.0.query" in caught.value.hint


def test_adapters_without_a_module_count_as_zeros_where_that_matters(header):
    adapters = [header("x", q=Q, v=Q), header("y", q=Q)]

    made = {job.module: job for job in planned(adapters, "slerp").jobs}

    assert made["v"].members == (0, 1)
    assert (made["v"].ranks, made["v"].held) == ((2,), (2, 1))


def test_a_method_takes_so_many_adapters_and_no_other_number(header):
    with pytest.raises(UsageError, match="slerp takes 2 adapters, not 3"):
        planned([header(name, q=Q) for name in "xyz"], "slerp")


def test_statistics_that_a_method_needs_and_nobody_gave_are_named(header):
    with pytest.raises(NeedsData, match="regmean needs grams of x for q") as caught:
        planned([header("x", q=Q)], "regmean")

    assert "loramerge stats x" in caught.value.hint


def test_no_statistics_are_asked_for_that_cannot_be_made(header):
    with pytest.raises(NeedsData) as caught:
        planned([header("x", {"embed": Q}, kind="embedding")], "regmean")

    assert "--for 'embed:method=linear'" in caught.value.hint


@pytest.mark.parametrize(
    ("method", "shapes"),
    [
        ("regmean", {("grams", "q"): (5, 5)}),
        ("fisher", {("fisher_in", "q"): (5,), ("fisher_out", "q"): (8,)}),
        ("fisher", {("fisher_in", "q"): (4,), ("fisher_out", "q"): (9,)}),
    ],
)
def test_statistics_of_another_shape_than_the_module_are_refused(header, measured, method, shapes):
    with pytest.raises(ShapeMismatch, match="of q has") as caught:
        planned([header("x", q=Q)], method, statistics=[measured(shapes)])

    assert caught.value.where == "measured"


def test_a_metric_of_another_shape_than_the_module_is_refused(header, measured):
    with pytest.raises(ShapeMismatch, match="grams of q has 5 rows, and 4 are wanted"):
        planned([header("x", q=Q)], metric=measured({("grams", "q"): (5, 5)}))


def test_a_metric_that_knows_no_module_is_an_error(header, measured):
    with pytest.raises(NeedsData, match="no Gram matrix of q"):
        planned([header("x", q=Q)], metric=measured({("grams", "elsewhere"): (4, 4)}))


def test_modules_that_the_metric_does_not_know_are_said(header, measured):
    adapter, metric = header("x", q=Q, v=Q, k=Q), measured({("grams", "q"): (4, 4), ("grams", "k"): (4, 4)})

    assert planned([adapter], metric=metric).notes == (
        "the metric does not know 1 of 3 modules (v …): those are cut without it",
    )


def test_a_metric_is_none_of_the_business_of_methods_that_decide_their_rank(header, measured):
    assert planned([header("x", q=Q)], "cat", metric=measured({("grams", "elsewhere"): (4, 4)})).notes == ()


@pytest.mark.parametrize("method", ["analogy", "ema", "np"])
def test_a_number_above_what_there_is_asks_for_no_more_than_that(header, method):
    adapters = [header("x", q=Q), header("y", v=Q), header("z", q=Q, v=Q)]

    made = {job.module: job for job in planned(adapters, method, rank="1000").jobs}

    assert made["q"].members == (0, 1, 2)
    assert (made["q"].spec.rank, made["q"].rank.value) == (4, 4)


def test_a_dense_result_can_have_a_higher_rank_than_its_inputs_together(header):
    made = planned([header("x", q=(32, 64, 2)), header("y", q=(32, 64, 3))], "ties", rank="20")

    assert made.rank == 20


def test_a_dense_result_is_not_kept_where_memory_is_short(header):
    adapters = [header(name, {"q": (4096, 4096, 16)}) for name in "xy"]
    whole = planned(adapters, "ties")

    tight = planned(adapters, "ties", run={"max_memory": whole.memory - 1})

    assert (whole.jobs[0].hold, tight.jobs[0].hold) == (True, False)
    assert tight.memory < whole.memory


def test_dora_is_refused_because_its_update_depends_on_the_base(header):
    with pytest.raises(NeedsBase) as caught:
        planned([header("x", q=Q), header("y", q=Q, dora=True)])

    assert caught.value.where == "y"
    assert "--dora factors" in caught.value.hint


def test_dora_factors_are_merged_on_request_and_the_plan_says_what_is_lost(header):
    made = planned([header("x", q=Q), header("y", q=Q, dora=True)], dora="factors")

    assert not made.jobs[0].spec.dora
    assert made.notes == ("the DoRA magnitudes of y are left out, so this merge is approximate",)


@pytest.mark.parametrize(
    ("dtypes", "asked", "expected"),
    [
        (["F32", "F32"], None, "F32"),
        (["F16", "F16"], None, "F16"),
        (["BF16", "BF16"], None, "BF16"),
        (["F16", "F32"], None, "F32"),
        (["F16", "F64", "BF16"], None, "F64"),
        (["F16", "BF16"], None, "F32"),
        (["F32", "F32"], "BF16", "BF16"),
    ],
)
def test_the_result_has_the_widest_type_unless_another_is_asked_for(header, dtypes, asked, expected):
    adapters = [header(str(i), q=Q, dtype=dtype) for i, dtype in enumerate(dtypes)]

    made = planned(adapters, dtype=asked)

    assert made.jobs[0].spec.dtype == expected


def test_the_type_is_that_of_the_whole_result(header):
    made = planned([header("x", q=Q, dtype="F32"), header("y", v=Q, dtype="F16")])

    assert [job.spec.dtype for job in made.jobs] == ["F32", "F32"]


def test_a_results_spec_declares_no_scale_of_an_input(header):
    made = planned([header("x", q=Q), header("y", q=Q, bias=True)])

    spec = made.jobs[0].spec
    assert (spec.scale, spec.alpha, spec.rslora, spec.bias) == (1.0, 0.0, False, True)


def test_the_plan_counts_bytes(header):
    made = planned([header("x", q=(8, 4, 2)), header("y", q=(8, 4, 3), v=(6, 4, 1))], rank="1")

    assert made.bytes_in == 4 * ((8 + 4) * 5 + (6 + 4))
    assert made.bytes_out == 4 * ((8 + 4) + (6 + 4))


def test_there_are_no_more_workers_than_modules(header):
    made = planned([header("x", q=Q, v=Q)], run={"workers": 8, "executor": "processes"})

    assert (made.executor, made.workers) == ("processes", 2)


def test_one_worker_needs_no_executor(header):
    made = planned([header("x", q=Q)], run={"workers": 8, "executor": "threads"})

    assert (made.executor, made.workers) == ("serial", 1)


def test_less_memory_means_fewer_workers(header):
    adapters = [header("x", {f"layers.{i}.q": (256, 256, 16) for i in range(8)})]
    whole = planned(adapters, run={"workers": 4})

    half = planned(adapters, run={"workers": 4, "max_memory": whole.memory // 2})
    least = planned(adapters, run={"workers": 4, "max_memory": whole.jobs[0].memory})

    assert (whole.executor, whole.workers) == ("threads", 4)
    assert (half.executor, half.workers) == ("threads", 2)
    assert (least.executor, least.workers) == ("serial", 1)
    assert half.memory <= whole.memory // 2


def test_memory_for_no_module_at_all_is_refused_with_the_size_that_would_do(header):
    adapters = [header("x", {"small": (64, 64, 4), "large": (4096, 4096, 16)})]

    with pytest.raises(BadOption, match="above --max-memory") as caught:
        planned(adapters, run={"max_memory": 1000})

    offered = texts.size(caught.value.hint.removeprefix("--max-memory "))
    assert caught.value.where == "large"
    assert planned(adapters, run={"max_memory": offered}).memory <= offered


def test_the_cpu_is_the_device_unless_asked():
    assert resolve_device("cpu") == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_auto_is_the_cpu_and_cuda_an_error():
    assert resolve_device("auto") == "cpu"
    with pytest.raises(BadOption, match="no CUDA device"):
        resolve_device("cuda")
