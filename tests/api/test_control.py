"""What can be said of a merge beside its method: rules for some modules, norms, a metric, weights; and its recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from loramerge import api
from loramerge.errors import BadOption, IntegrityError
from loramerge.formats._format import open_adapter
from loramerge.formats._statistics import write_statistics
from loramerge.recipe import from_mapping, to_mapping
from loramerge.workspace.results import read_record


@pytest.fixture
def two(session, make_adapter):
    """Two sources, math (rank 2) and code (rank 4)."""
    for name, rank in (("math", 2), ("code", 4)):
        api.pull(session, [str(make_adapter(name, rank=rank))])
    return {name: dense(session.workspace.root.parent / name) for name in ("math", "code")}


def dense(folder):
    adapter = open_adapter(folder)
    return {name: adapter.load(name).to(dtype=torch.float64).dense() for name in adapter.modules}


def assert_close(got, want):
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5 * float(want.abs().max()))


def truncated(matrix, rank):
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ v[:rank]


@pytest.fixture
def statistics(session, two):
    """statistics(name) -> a file with a Gram matrix for each module, of inputs that are mostly in two directions."""

    def write(name):
        draw = torch.Generator().manual_seed(1)
        grams = {}
        for module, delta in two["math"].items():
            rows = torch.randn(64, delta.shape[1], generator=draw) * torch.tensor([10.0, 5.0] + [0.1] * 6)
            grams["grams", module] = rows.T @ rows / 64
        path = session.workspace.root / f"{name}.safetensors"
        write_statistics(path, {k: tuple(v.shape) for k, v in grams.items()}, ((*k, v) for k, v in grams.items()))
        return path, {module: gram.double() for (_, module), gram in grams.items()}

    return write


# Rules for some modules


def test_a_rule_gives_modules_another_method_rank_and_weights(session, two):
    rules = ["*.q:method=cat,weight.math=2", "layers.1.v:rank=1,weight.code=0"]

    made = api.merge(session, rules=rules, rank="sum")

    found = dense(made.path)
    assert_close(found["layers.0.q"], 2 * two["math"]["layers.0.q"] + two["code"]["layers.0.q"])
    assert_close(found["layers.0.v"], 0.5 * two["math"]["layers.0.v"] + 0.5 * two["code"]["layers.0.v"])
    assert_close(found["layers.1.v"], truncated(0.5 * two["math"]["layers.1.v"], 1))


def test_the_rule_that_matches_first_holds(session, two):
    made = api.merge(session, rules=["*.q:rank=1", "*:rank=2"], rank="sum")

    ranks = {name: spec.rank for name, spec in open_adapter(made.path).modules.items()}
    assert ranks == {"layers.0.q": 1, "layers.1.q": 1, "layers.0.v": 2, "layers.1.v": 2}


def test_options_of_a_rule_replace_single_ones_of_the_same_method_only(session, two):
    rules = ["*.q:density=1", "layers.0.v:method=lego,k=3"]

    made = api.merge(session, method="ties", options={"density": 0.5, "weigh": "before"}, rules=rules)

    written = to_mapping(read_record_recipe(made))["modules"]
    assert written == [
        {"match": "*.q", "options": {"density": 1.0}},
        {"match": "layers.0.v", "method": "lego", "options": {"k": 3}},
    ]
    assert open_adapter(made.path).modules["layers.0.v"].rank == 3


def read_record_recipe(made):
    return from_mapping(dict(read_record(made.path).recipe))


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("*.q:weight.cod=1", "No adapter here is named 'cod'"),
        ("*.q:weight.code=much", "not a number"),
        ("*.q:method=tiess", "no merge method named 'tiess'"),
        ("*.q:rank=big", "'big' is not a rank"),
        ("*.q:method=cat,rank=2", "decides its rank itself"),
        (":rank=2", "not PATTERN:KEY=VALUE"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(session, two, rule, complaint):
    with pytest.raises(Exception, match=complaint) as caught:
        api.merge(session, rules=[rule])

    assert caught.value.exit_code == 2


# Norms


@pytest.mark.parametrize("method", ["linear", "ties"])
def test_the_mean_norm_of_the_inputs_is_restored_before_the_scale(session, two, method):
    made = api.merge(session, method=method, rank=2, rescale="norm", scale=0.5)

    for name, delta in dense(made.path).items():
        mean = (two["math"][name].norm() + two["code"][name].norm()) / 2
        assert float(delta.norm()) == pytest.approx(0.5 * float(mean), rel=1e-6)


def test_there_is_no_norm_to_restore_where_inputs_cancel(session, two):
    made = api.merge(session, ["math", "math"], weights=[1, -1], rescale="norm")

    assert all(not delta.any() for delta in dense(made.path).values())


# A metric for truncation


def test_a_metric_makes_the_outputs_error_the_least_there_is(session, two, statistics):
    path, grams = statistics("inputs")

    made = api.merge(session, rank=1, metric=str(path), out=Path("measured"))
    plain = api.merge(session, rank=1, out=Path("plain"))

    def cost(off, gram):
        return float(torch.trace(off @ gram @ off.T))

    for name, gram in grams.items():
        whole = (two["math"][name] + two["code"][name]) / 2
        root = torch.linalg.cholesky(gram)
        least = float((torch.linalg.svdvals(whole @ root)[1:] ** 2).sum())
        assert cost(dense(made.path)[name] - whole, gram) == pytest.approx(least, rel=1e-4)
        assert cost(dense(plain.path)[name] - whole, gram) > least


def test_statistics_are_pinned_and_a_rebuild_wants_the_same(session, two, statistics):
    path, _ = statistics("inputs")
    made = api.merge(session, rank=1, metric="inputs.safetensors")

    assert all(row["same"] for row in api.rebuild(session, made.name))

    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"inputs\.safetensors"):
        api.rebuild(session, made.name)


def test_methods_that_need_data_get_each_adapters_own(session, two, statistics):
    data = {name: statistics(name)[0].name for name in ("math", "code")}

    made = api.merge(session, method="regmean", data=data, rank="sum", options={"alpha": 1.0})

    # Grams that are the same leave the plain mean.
    for name, delta in dense(made.path).items():
        assert_close(delta, (two["math"][name] + two["code"][name]) / 2)
    assert all(row["same"] for row in api.rebuild(session, made.name))


# Recipes


@pytest.mark.parametrize(
    "what",
    [
        {"method": "ties", "options": {"density": 0.4}, "weighting": "sqrt", "rescale": "norm"},
        {"method": "dare", "seed": 3, "rules": ["*.v:density=0.9"], "weights": ["code=0.2"]},
        {"method": "knots", "options": {"inner": "dare-ties"}, "scale": 0.3, "rank": "energy:0.9"},
        {"rules": ["*.q:method=lego,k=2", "layers.1.*:weight.math=-1"], "normalize": True, "dtype": "BF16"},
    ],
    ids=str,
)
def test_flags_amount_to_a_recipe_that_makes_the_same_bytes_and_so_does_a_rebuild(session, two, what):
    flags = api.merge(session, ["math", "code"], out=Path("flags"), **what)
    recipe = from_mapping(yaml.safe_load(yaml.safe_dump(to_mapping(api.recipe_of(session, ["math", "code"], **what)))))

    file = api.make(session, recipe, out=Path("file"))

    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (flags.path / name).read_bytes() == (file.path / name).read_bytes()
    assert all(row["same"] for row in api.rebuild(session, "flags"))


def test_the_same_pattern_of_two_rules_is_one_rule(session, two):
    recipe = api.recipe_of(
        session, rules=["*.q:method=lego", "*.q:k=3"], k_for=["*.v=2"], method="lego", options={"k": 8}
    )

    assert to_mapping(recipe)["modules"] == [
        {"match": "*.q", "method": "lego", "options": {"k": 3}},
        {"match": "*.v", "options": {"k": 2}},
    ]


def test_a_rule_in_a_recipe_is_read_like_any_other_option(session, two):
    with pytest.raises(BadOption, match=r"density is 2\.0"):
        api.merge(session, method="ties", rules=["*.q:density=2"])
