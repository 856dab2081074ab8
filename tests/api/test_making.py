"""From adapters to a result: its folder, its entry in the lock, its lineage, and what PEFT makes of it."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from loramerge import api
from loramerge.core.provenance import sha256_file
from loramerge.errors import (
    BadConfig,
    BadOption,
    BadTensor,
    IntegrityError,
    NeedsBase,
    OutputExists,
    UnknownName,
    UsageError,
)
from loramerge.formats._format import open_adapter
from loramerge.methods.merge.lego import Options
from loramerge.options import dump
from loramerge.recipe import Ingredient, Recipe, Rule, from_mapping
from loramerge.workspace.results import read_record

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def deltas(folder):
    adapter = open_adapter(folder)
    return {name: adapter.load(name).to(dtype=torch.float64).dense() for name in adapter.modules}


def refs(*folders):
    return [str(folder) for folder in folders]


@pytest.fixture
def two(make_adapter):
    """Two adapters of one base and of other ranks."""
    return make_adapter("math-lora", rank=2), make_adapter("code-lora", rank=4)


# What is read


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what a process reads")
def test_inputs_are_read_twice_to_be_hashed_and_to_be_merged(session, make_adapter):
    folders = [make_adapter(name, modules={"layers.0.q": (80_000, 80_000)}) for name in ("a", "b")]
    size = sum((folder / WEIGHTS).stat().st_size for folder in folders)
    out = api.merge(session, refs(*folders), out=Path("both")).path  # what has to be imported is

    before = _bytes_read()
    api.merge(session, refs(*folders), out=Path("both"), force=True)
    found = _bytes_read() - before - (out / WEIGHTS).stat().st_size  # which is hashed too

    assert 2 * size <= found < 2.5 * size


def _bytes_read():
    return int(re.search(r"rchar: (\d+)", Path("/proc/self/io").read_text())[1])


# What a result is called


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ({"method": "linear"}, "linear-4"),
        ({"method": "linear", "rank": 3}, "linear-3"),
        ({"method": "linear", "rank": "sum"}, "linear-6"),
        ({"method": "cat"}, "cat-6"),
        ({"method": "lego", "options": {"k": 3}}, "lego-3"),
        ({"method": "lego", "options": {"k": "3"}, "k_for": ["layers.0.*=1"]}, "lego-3"),
    ],
)
def test_a_result_is_called_by_its_method_and_its_size(session, two, what, name):
    made = api.merge(session, refs(*two), **what)

    assert (made.name, made.path) == (name, session.workspace.root / name)
    assert made.path.is_dir()


def test_another_folder_gives_another_name(session, two):
    made = api.lego(session, refs(*two), k=2, out=session.folder / "deep" / "both")

    assert made.name == "both"
    assert session.workspace.get("both").path == "deep/both"


def test_a_folder_that_is_there_is_refused_before_any_work_and_replaced_by_force(session, two):
    first = api.lego(session, refs(*two), k=2)
    before = files(first.path)

    with pytest.raises(OutputExists):
        api.merge(session, refs(*two), out=first.path)
    assert files(first.path) == before
    again = api.merge(session, refs(*two), out=first.path, force=True)

    assert read_record(again.path).lineage.method == "linear"
    assert [entry.number for entry in session.workspace.results()] == [2]


@pytest.mark.parametrize("name", ["a b", "-x", "con", "ü" * 200])
def test_a_folder_that_cannot_be_a_name_is_refused_before_any_work(session, two, name):
    with pytest.raises(BadOption, match="cannot be the name of a result"):
        api.merge(session, refs(*two), out=session.folder / name)

    assert list(session.folder.iterdir()) == []


def test_a_result_never_takes_the_name_of_a_source(session, two):
    api.pull(session, refs(*two))

    with pytest.raises(BadOption, match="'math-lora' is the name of a source"):
        api.merge(session, out=session.folder / "math-lora")

    assert session.workspace.get("math-lora").role == "source"


# What is written


def test_a_result_folder_holds_an_adapter_its_card_and_its_record(session, two):
    made = api.lego(session, refs(*two), k=2)

    assert sorted(files(made.path)) == ["README.md", CONFIG, WEIGHTS, "loramerge.json"]


def test_a_result_is_recorded_in_the_lock_with_all_its_files(session, two):
    made = api.lego(session, refs(*two), k=2)

    entry = session.workspace.newest_result()
    assert (entry.name, entry.role, entry.path, entry.base) == ("lego-2", "result", "lego-2", "acme/base")
    assert (entry.rank, entry.modules) == (2, 4)
    assert {pin.path: pin.sha256 for pin in entry.files} == {
        name: sha256_file(made.path / name) for name in files(made.path)
    }


def test_the_lineage_names_parents_by_hash_and_every_option_by_value(session, two):
    api.pull(session, refs(two[0]))

    made = api.lego(session, ["math-lora", str(two[1])], k="2", weights=["code-lora=0.5"])

    lineage = read_record(made.path).lineage
    assert (lineage.method, lineage.base, lineage.seed, lineage.rank) == ("lego", "acme/base", 0, "max")
    assert dict(lineage.options) == dump(Options(k=2))
    assert [(parent.name, parent.weight) for parent in lineage.parents] == [("math-lora", 1.0), ("code-lora", 0.5)]
    for parent, folder in zip(lineage.parents, two, strict=True):
        assert {pin.path: pin.sha256 for pin in parent.files} == {
            name: sha256_file(folder / name) for name in (WEIGHTS, CONFIG)
        }
        assert (session.workspace.root / parent.path).resolve() == folder
    assert {"loramerge", "torch"} <= lineage.versions.keys()


def test_the_record_holds_the_recipe_that_makes_it_again(session, two):
    made = api.merge(session, refs(*two), rank=3, weights=[2, -1], scale=0.5, dtype="F64", out=session.folder / "first")

    recipe = from_mapping(json.loads((made.path / "loramerge.json").read_text())["recipe"])
    again = api.make(session, recipe, out=session.folder / "again")

    assert recipe.rank == "3"
    assert files(again.path)[WEIGHTS] == files(made.path)[WEIGHTS]


def test_the_same_call_writes_the_same_bytes_everywhere(session, two):
    elsewhere = replace(session, folder=session.folder / "elsewhere")
    elsewhere.folder.mkdir()
    first = api.lego(session, refs(*two), k=2, out=Path("x"))
    second = api.lego(elsewhere, refs(*two), k=2, out=Path("x"))

    paths_differ = {"loramerge.json"}
    assert {k: v for k, v in files(first.path).items() if k not in paths_differ} == {
        k: v for k, v in files(second.path).items() if k not in paths_differ
    }


def test_the_card_says_what_the_hub_reads(session, two):
    made = api.lego(session, refs(*two), k=2)

    front = yaml.safe_load((made.path / "README.md").read_text().split("---")[1])
    assert front["base_model"] == "acme/base"
    assert front["base_model_relation"] == "adapter"
    assert {"lora", "lego"} <= set(front["tags"])
    assert front["library_name"] == "peft"


def test_the_report_is_returned_and_recorded(session, two):
    made = api.merge(session, refs(*two), rank=1)

    assert made.report["overall"]["modules"] == 4
    assert 0 < made.report["overall"]["relative_error"] < 1
    assert sorted(made.report["modules"]) == ["layers.0.q", "layers.0.v", "layers.1.q", "layers.1.v"]
    assert read_record(made.path).report == json.loads(json.dumps(made.report))


def test_progress_is_told_module_by_module(two, tmp_path):
    told = []
    session = api.Session(tmp_path, workers=1, progress=lambda *news: told.append(news))

    api.merge(session, refs(*two))

    assert told == [("linear", number, 4, "modules") for number in (1, 2, 3, 4)]


# What PEFT makes of it


def merged_weights(model):
    """The weights of a PEFT model with the adapter merged in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: tensor.double() for name, tensor in model.merge_and_unload().state_dict().items()}


@pytest.mark.parametrize(
    "what",
    [
        {"method": "linear", "rank": "sum"},
        {"method": "linear", "rank": 1},
        {"method": "linear", "rank": "energy:0.7"},
        {"method": "cat", "weights": [0.5, -2]},
        {"method": "lego", "options": {"k": 3}, "k_for": ["*.v=2", "layers.1.q=5"]},
        {"method": "lego", "options": {"k": 3}, "k_for": ["*.v=2"], "profile": "vllm"},
        {"method": "linear", "rank": "energy:0.7", "profile": "vllm", "dtype": "F64"},
    ],
    ids=str,
)
def test_peft_loads_a_result_as_base_plus_its_update(session, two, toy, peft_loads, what):
    made = api.merge(session, refs(*two), **what)

    base = {name: tensor.double() for name, tensor in toy.state_dict().items()}
    found = merged_weights(peft_loads(toy, made.path))
    for module, delta in deltas(made.path).items():
        key = f"{module}.weight"
        torch.testing.assert_close(found[key] - base[key], delta, rtol=0, atol=1e-5 * float(delta.norm()))


def test_a_whole_sum_is_what_its_inputs_add_up_to(session, two):
    made = api.merge(session, refs(*two), rank="sum", weights=[0.5, -2])

    x, y, z = (deltas(folder) for folder in (*two, made.path))
    for module in x:
        torch.testing.assert_close(z[module], 0.5 * x[module] - 2 * y[module], rtol=0, atol=1e-5)


def test_a_results_alpha_is_its_rank(session, two):
    made = api.lego(session, refs(*two), k=3, k_for=["layers.0.q=2"])

    config = json.loads((made.path / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (3, 3, False)
    assert list(config["rank_pattern"].values()) == list(config["alpha_pattern"].values()) == [2]


def test_the_vllm_profile_has_one_rank_and_no_patterns(session, two):
    made = api.lego(session, refs(*two), k=3, k_for=["layers.0.q=2"], profile="vllm")

    config = json.loads((made.path / CONFIG).read_text())
    assert not config["rank_pattern"]
    assert not config["alpha_pattern"]
    assert {spec.rank for spec in open_adapter(made.path).modules.values()} == {config["r"]} == {3}


@pytest.fixture
def heads(make_adapter):
    """Two adapters of rank 2 with a classifier each, of other sizes."""

    def head(labels):
        draw = torch.Generator().manual_seed(labels)
        return {
            "classifier.weight": torch.randn(labels, 6, generator=draw),
            "classifier.bias": torch.randn(labels, generator=draw),
        }

    config = {"task_type": "SEQ_CLS", "modules_to_save": ["classifier", "score"]}
    return [make_adapter(f"task-{n}", rank=2, extras=head(n), **config) for n in (3, 5)]


def test_heads_are_kept_as_files_of_their_own(session, heads):
    made = api.merge(session, refs(*heads))

    config = json.loads((made.path / CONFIG).read_text())
    assert (config["task_type"], config["modules_to_save"]) == (None, None)
    for folder in heads:
        kept = load_file(made.path / "heads" / f"{folder.name}.safetensors")
        own = load_file(folder / WEIGHTS)
        assert sorted(kept) == ["classifier.bias", "classifier.weight"]
        assert all(torch.equal(kept[key], own[f"base_model.model.{key}"]) for key in kept)
    assert "the head of task-5 kept as heads/task-5.safetensors" in read_record(made.path).report["notes"]


def test_a_result_without_heads_loads_into_a_headless_model(session, heads, toy, peft_loads):
    made = api.merge(session, refs(*heads))

    loaded = peft_loads(toy, made.path)

    assert loaded.peft_config["default"].task_type is None


def test_the_head_of_the_first_is_in_the_result_and_peft_uses_it(session, heads, toy, peft_loads):
    made = api.merge(session, refs(*heads), extras="first:task-3", rank="sum")

    config = json.loads((made.path / CONFIG).read_text())
    assert (config["task_type"], config["modules_to_save"]) == ("SEQ_CLS", ["classifier"])
    x = torch.randn(4, 8)
    toy.load_state_dict(_with(toy, made.path, load_file(heads[0] / WEIGHTS)))
    want = toy(x)
    from_peft = {**config, "task_type": None}
    (made.path / CONFIG).write_text(json.dumps(from_peft))
    toy.load_state_dict(type(toy)().state_dict())
    torch.testing.assert_close(peft_loads(toy, made.path)(x), want, rtol=1e-5, atol=1e-5)


def _with(model, folder, head):
    """The model's own weights with an adapter's updates added and its head put in."""
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for module, delta in deltas(folder).items():
        state[f"{module}.weight"] += delta.float()
    return state | {key: head[f"base_model.model.{key}"] for key in ("classifier.weight", "classifier.bias")}


def test_dora_magnitudes_are_never_dropped_in_silence(session, make_adapter):
    sizes = {"layers.0.q": (8, 8)}
    magnitude = {"layers.0.q.lora_magnitude_vector": torch.ones(8)}
    dora = make_adapter("dora", modules=sizes, extras=magnitude, use_dora=True)

    with pytest.raises(NeedsBase):
        api.merge(session, refs(dora))
    made = api.merge(session, refs(dora), dora="factors")

    assert "the DoRA magnitudes of dora are left out, so this merge is approximate" in made.report["notes"]
    assert not json.loads((made.path / CONFIG).read_text()).get("use_dora")


def test_a_tokenizer_that_all_share_comes_along(session, two):
    for folder in two:
        (folder / "tokenizer.json").write_text("{}")
        (folder / "vocab.txt").write_text(folder.name)

    made = api.merge(session, refs(*two))

    assert (made.path / "tokenizer.json").read_text() == "{}"
    assert not (made.path / "vocab.txt").exists()
    assert "tokenizer files left out, the adapters' differ: vocab.txt" in made.report["notes"]


# Which adapters, and what they count for


def test_without_references_the_sources_are_merged_and_not_the_results(session, two):
    api.pull(session, refs(*two))
    api.merge(session)

    made = api.lego(session, k=2)

    assert [parent.name for parent in read_record(made.path).lineage.parents] == ["code-lora", "math-lora"]


def test_an_empty_workspace_has_nothing_to_merge(session):
    with pytest.raises(UsageError, match="no adapters") as caught:
        api.merge(session)

    assert "loramerge pull" in caught.value.hint


def test_adapters_of_one_name_are_told_apart(session, two, make_adapter):
    other = make_adapter("elsewhere/math-lora")
    both = [str(two[0]), str(other)]

    made = api.merge(session, both, weights=[f"{both[1]}=0.25", "math-lora=2"])

    parents = read_record(made.path).lineage.parents
    assert [(parent.name, parent.weight) for parent in parents] == [("math-lora", 2.0), ("math-lora-2", 0.25)]


def test_a_name_that_is_taken_by_a_number_is_not_given_again(session, make_adapter):
    folders = [make_adapter(name) for name in ("x/a", "y/a", "z/a-2")]

    made = api.merge(session, refs(*folders))

    assert [parent.name for parent in read_record(made.path).lineage.parents] == ["a", "a-2", "a-2-2"]


@pytest.mark.parametrize("name", ["../../evil", "a/b", "a b", "\x1b[31m"])
def test_a_recipe_cannot_name_an_adapter_into_another_folder(session, heads, name):
    recipe = Recipe(tuple(Ingredient(str(folder), None, name) for folder in heads))

    with pytest.raises(BadOption, match="cannot be the name of an adapter"):
        api.make(session, recipe)


def test_a_pinned_source_that_was_changed_since_is_not_merged(session, two):
    api.pull(session, refs(*two))
    (two[0] / CONFIG).write_text((two[0] / CONFIG).read_text() + " ")

    with pytest.raises(IntegrityError, match="'math-lora' is not what was pinned"):
        api.merge(session)

    assert not list(session.folder.glob("linear*"))


def test_a_changed_file_is_said_before_the_numbers_it_holds(session, two, make_adapter):
    api.pull(session, refs(*two))
    broken = torch.full((4, 8), float("nan"))
    make_adapter(two[0].name, extras={"layers.9.q.lora_A.weight": broken} | _b())

    with pytest.raises(IntegrityError, match="'math-lora' is not what was pinned"):
        api.merge(session)


def test_what_fails_half_way_leaves_nothing(session, two, make_adapter):
    bad = make_adapter("bad", extras={"layers.9.q.lora_A.weight": torch.full((4, 8), float("nan"))} | _b())
    api.pull(session, refs(two[0]))
    lock = session.workspace.lock.read_bytes()

    with pytest.raises(BadTensor, match="NaN"):
        api.merge(session, ["math-lora", str(bad)])

    assert sorted(path.name for path in session.folder.iterdir()) == [".loramerge.guard", "loramerge.lock"]
    assert session.workspace.lock.read_bytes() == lock


def _b():
    return {"layers.9.q.lora_B.weight": torch.ones(8, 4)}


def test_a_plan_reads_no_number(session, make_adapter):
    nan = {"layers.9.q.lora_A.weight": torch.full((4, 8), float("nan"))} | _b()
    bad = make_adapter("bad", extras=nan)

    found = api.planned(session, api.recipe_of(session, refs(bad), method="lego", options={"k": 2}))

    assert found.facts["modules"] == 5
    assert (found.facts["method"], found.facts["rank"]) == ("lego", 2)
    assert sum(row["modules"] for row in found.rows) == 5


# From flags to a recipe


def test_a_call_amounts_to_a_recipe(session, two):
    api.pull(session, refs(*two))

    recipe = api.recipe_of(
        session,
        method="lego",
        options={"k": 8},
        weights=["math-lora=0.5"],
        weighting="sqrt",
        k_for=["*.v=4"],
        preset="paper",
        seed=3,
    )

    assert recipe == Recipe(
        adapters=(Ingredient("code-lora"), Ingredient("math-lora", 0.5)),
        method="lego",
        options={
            "features": "raw",
            "gauge": "raw",
            "norm": "inf",
            "reweight": "both",
            "ref_rank": "mean",
            "n_init": 10,
            "units": "clustered",
            "balance": 0.9,
            "k": 8,
        },
        modules=(Rule("*.v", options={"k": 4}),),
        weights="sqrt",
        seed=3,
    )


@pytest.mark.parametrize(
    ("what", "error", "complaint"),
    [
        ({"method": "lgeo"}, UnknownName, "no merge method named 'lgeo'"),
        ({"method": "linear", "preset": "paper"}, BadOption, "linear has no preset"),
        ({"method": "lego", "preset": "papr"}, BadOption, "no preset 'papr'"),
        ({"method": "lego", "k_for": ["*.v"]}, BadOption, "is not KEY=VALUE"),
        ({"method": "lego", "k_for": ["*.v=1", "*.v=2"]}, BadOption, "twice"),
        ({"method": "lego", "rank": 4, "options": {"k": 2}}, BadOption, "--rank does not apply"),
        ({"method": "lego", "options": {"k": 0}}, BadOption, "k is 0, below 1"),
        ({"method": "lego", "options": {"k": 7}}, BadOption, "no module has more than 6 units"),
        ({"method": "linear", "options": {"k": 7}}, BadOption, "no option 'k'"),
        ({"method": "linear", "rank": "huge"}, BadOption, "'huge' is not a rank"),
        ({"method": "linear", "rank": 0}, BadOption, "is not a rank"),
        ({"method": "linear", "extras": "most"}, BadOption, "'most' is not a policy"),
        ({"method": "linear", "weights": [1, 2, 3]}, BadOption, "3 weights for 2 adapters"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_refused(session, two, what, error, complaint):
    with pytest.raises(error, match=complaint):
        api.merge(session, refs(*two), **what)

    assert list(session.folder.iterdir()) == []


def test_a_recipe_of_a_method_that_decides_its_rank_cannot_ask_for_one(session, two):
    recipe = from_mapping({"adapters": refs(*two), "method": "cat", "rank": 2})

    with pytest.raises(BadOption, match="--rank does not apply"):
        api.make(session, recipe)


def test_a_damaged_recipe_is_a_damaged_file(session):
    with pytest.raises(BadConfig):
        from_mapping({"adapters": 3})


def test_an_input_is_never_replaced_by_the_output(session, two):
    before = files(two[0])

    with pytest.raises(BadOption, match="take the place of the input"):
        api.merge(session, refs(*two), out=two[0], force=True)

    assert files(two[0]) == before


def test_a_second_result_of_one_name_is_refused_before_the_work(session, two):
    api.merge(session, refs(*two), out=Path("d1/x"))

    with pytest.raises(BadOption, match="name of a result already"):
        api.merge(session, refs(*two), out=Path("d2/x"))

    assert not (session.folder / "d2").exists()


def test_a_power_of_two_as_scale_rounds_nothing_in_half_precision(session, write_adapter, tmp_path):
    folder = write_adapter(tmp_path / "half", rank=4, alpha=8, dtype=torch.bfloat16)

    made = open_adapter(api.merge(session, refs(folder), rank="sum").path)

    source = open_adapter(folder)
    assert made.modules["layers.0.q"].dtype == "BF16"
    for name in source.modules:
        assert torch.equal(made.load(name).a, source.load(name).a)
        assert torch.equal(made.load(name).b, source.load(name).b * 2)


def test_a_rank_that_the_data_chooses_names_its_rule(session, two):
    assert api.merge(session, refs(*two), rank="energy:0.5").name == "linear-energy-0.5"


@pytest.mark.parametrize("policy", ["bogus", "first:nobody"])
def test_a_plan_refuses_what_the_merge_would(session, two, policy):
    with pytest.raises(BadOption):
        api.planned(session, api.recipe_of(session, refs(*two), extras=policy))


def test_a_folder_with_a_space_can_be_merged_and_rebuilt(session, write_adapter, tmp_path):
    made = api.merge(session, refs(write_adapter(tmp_path / "my adapter")), out=Path("out"))

    assert all(row["same"] for row in api.rebuild(session, made.name))
