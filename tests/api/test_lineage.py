"""What a result was made of, and making it again from that."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from loramerge import api
from loramerge.api.lineage import Tree
from loramerge.core.provenance import sha256_file
from loramerge.errors import BadConfig, IntegrityError, NotFound, UnsafePickle

WEIGHTS, CONFIG, RECORD = "adapter_model.safetensors", "adapter_config.json", "loramerge.json"


@pytest.fixture
def sources(session, make_adapter):
    """Two local adapters in the lock: math-lora of rank 2 and code-lora of rank 4."""
    folders = [make_adapter("math-lora", rank=2), make_adapter("code-lora")]
    api.pull(session, [str(folder) for folder in folders])
    return folders


def edit_record(made, change):
    path = made.path / RECORD
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


# log


def test_the_log_tells_merges_of_one_method_apart(session, sources):
    made = api.merge(session, method="tsv", scale=1.5, rules=["*.q:rank=1"])

    first, *_ = api.log(session, made.name).lines()

    assert first.endswith("= tsv(scale=1.5, rules for modules)")


def test_the_tree_names_method_weights_and_hashes(session, sources):
    made = api.merge(session, weights=["math-lora=0.25"], rank=3)

    lines = list(api.log(session, made.name).lines())

    assert lines[0] == "linear-3 = linear()"
    assert lines[1].startswith("├─ 0.5 × code-lora (../code-lora, sha256 ")
    assert lines[2].startswith("└─ 0.25 × math-lora (../math-lora, sha256 ")


def test_a_parent_that_is_a_result_is_followed(session, sources):
    first = api.lego(session, k=2)
    second = api.merge(session, [first.name, "code-lora"], rank=1)

    lines = list(api.log(session, second.name).lines())

    assert len(lines) == 5
    assert lines[1].startswith("├─ 0.5 × lego-2 (lego-2, sha256 ")
    assert " = lego(balance=0.9, features=raw, gauge=raw, k=2, n_init=10, norm=inf, ref_rank=mean, " in lines[1]
    assert lines[1].endswith("reweight=both, units=clustered)")
    assert lines[2].startswith("│  ├─ 1 × code-lora")
    assert lines[3].startswith("│  └─ 1 × math-lora")
    assert lines[4].startswith("└─ 0.5 × code-lora")


def test_the_tree_as_values_has_every_hash(session, sources):
    made = api.lego(session, k=2)

    tree = api.log(session, made.name).plain()

    assert (tree["method"], tree["options"]["k"], tree["seed"], tree["base"]) == ("lego", 2, 0, "acme/base")
    assert [parent["name"] for parent in tree["parents"]] == ["code-lora", "math-lora"]
    assert tree["parents"][1]["files"] == {name: sha256_file(sources[0] / name) for name in (WEIGHTS, CONFIG)}


def test_a_parent_that_is_gone_is_still_named(session, sources):
    made = api.merge(session, rank=1)
    (sources[0] / CONFIG).unlink()

    assert len(list(api.log(session, made.name).lines())) == 3


def test_an_adapter_that_was_not_made_here_has_no_lineage(session, sources):
    with pytest.raises(BadConfig, match="no record of how this was made"):
        api.log(session, "math-lora")


def test_a_result_that_says_it_is_its_own_parent_has_an_end(session, sources):
    made = api.merge(session, rank=1)
    edit_record(made, lambda found: [parent.update(path="linear-1") for parent in found["lineage"]["parents"]])

    assert len(list(api.log(session, str(made.path)).lines())) == 3


@pytest.mark.parametrize(
    "names",
    [
        {"path": None},
        {"path": None, "repo": "../../etc", "commit": "x"},
        {"path": None, "repo": "a/b", "commit": "../.."},
    ],
    ids=["nothing", "no repo", "no commit"],
)
def test_a_record_that_names_no_parent_that_could_be_is_still_shown(session, sources, names):
    made = api.merge(session, rank=1)

    def rename(found):
        parent = found["lineage"]["parents"][0]
        del parent["path"]
        parent.update(names)

    edit_record(made, rename)

    assert len(list(api.log(session, str(made.path)).lines())) == 3


def test_a_tree_of_any_depth_is_drawn():
    deep = Tree("a", {}, [Tree("b", {}, [Tree("c", {}), Tree("d", {})]), Tree("e", {})])

    assert list(deep.lines()) == ["a", "├─ b", "│  ├─ c", "│  └─ d", "└─ e"]


# rebuild


@pytest.mark.parametrize(
    "what",
    [
        {"method": "linear", "rank": 3, "weights": ["math-lora=0.25"], "normalize": True},
        {"method": "linear", "rank": "energy:0.8", "weighting": "sqrt", "scale": 0.3, "dtype": "F16"},
        {"method": "cat", "weights": [-0.3, 0.1]},
        {"method": "lego", "options": {"k": 3}, "k_for": ["*.v=2"], "preset": "paper", "seed": 7},
        {"method": "lego", "options": {"k": 2}, "profile": "vllm"},
    ],
    ids=str,
)
def test_the_same_bytes_come_out_again(session, sources, what):
    made = api.merge(session, **what)
    lock = session.workspace.lock.read_bytes()

    rows = api.rebuild(session, made.name)

    assert [(row["file"], row["same"], row["sha256"]) for row in rows] == [
        (name, True, sha256_file(made.path / name)) for name in (CONFIG, WEIGHTS)
    ]
    assert session.workspace.lock.read_bytes() == lock


def test_what_a_result_is_made_of_need_not_be_in_the_lock(session, sources):
    made = api.lego(session, k=2)
    api.remove(session, ["math-lora", "code-lora"])

    assert all(row["same"] for row in api.rebuild(session, made.name))


def test_extras_are_rebuilt_too(session, make_adapter):
    heads = [
        make_adapter(name, extras={"classifier.weight": torch.full((3, 6), fill)}, modules_to_save=["classifier"])
        for name, fill in (("x", 1.0), ("y", 2.0))
    ]
    made = api.merge(session, [str(folder) for folder in heads], extras="first:y")

    assert all(row["same"] for row in api.rebuild(session, made.name))


def test_a_parent_that_was_changed_is_named_before_any_work(session, sources):
    made = api.merge(session, rank=1)
    api.remove(session, ["math-lora"])
    weights = bytearray((sources[0] / WEIGHTS).read_bytes())
    weights[-1] ^= 1
    (sources[0] / WEIGHTS).write_bytes(weights)

    with pytest.raises(IntegrityError, match=f"'math-lora' is not what was pinned: {WEIGHTS}") as caught:
        api.rebuild(session, made.name)

    assert caught.value.exit_code == 7


def test_a_parent_that_is_gone_is_not_found(session, sources):
    made = api.merge(session, rank=1)
    (sources[0] / WEIGHTS).rename(sources[0] / "elsewhere")
    (sources[0] / CONFIG).unlink()
    sources[0].rename(sources[0].with_name("moved"))

    with pytest.raises(NotFound):
        api.rebuild(session, made.name)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_result_that_was_changed_is_not_what_comes_out(session, sources, name):
    made = api.merge(session, rank=1)
    content = (made.path / name).read_bytes()
    changed = content.replace(b'"r": 1', b'"r":  1') if name == CONFIG else content[:-1] + bytes([content[-1] ^ 1])
    (made.path / name).write_bytes(changed)

    with pytest.raises(IntegrityError, match=f"rebuilt {name} differ") as caught:
        api.rebuild(session, str(made.path))

    assert (caught.value.exit_code, caught.value.hint) == (7, "the result was changed after it was made")


def test_another_version_of_what_computes_is_named(session, sources):
    made = api.merge(session, rank=1)
    edit_record(made, lambda found: found["lineage"]["versions"].update(torch="1.0"))
    (made.path / WEIGHTS).write_bytes((made.path / WEIGHTS).read_bytes()[:-4] + bytes(4))

    with pytest.raises(IntegrityError) as caught:
        api.rebuild(session, str(made.path))

    assert caught.value.hint == f"torch 1.0 then, {torch.__version__} now"


def test_a_pickle_is_read_again_only_by_who_allows_it(session, make_adapter):
    folder = make_adapter("old")
    from safetensors.torch import load_file

    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    made = api.merge(session, [str(folder)], allow_pickle=True)

    with pytest.raises(UnsafePickle):
        api.rebuild(session, made.name)
    assert all(row["same"] for row in api.rebuild(session, made.name, allow_pickle=True))


def test_a_record_whose_recipe_and_lineage_disagree_is_damaged(session, sources):
    made = api.merge(session, rank=1)
    edit_record(made, lambda found: found["recipe"]["adapters"].pop())

    with pytest.raises(BadConfig, match="list different adapters"):
        api.rebuild(session, str(made.path))


def test_from_a_hub_alone_the_same_bytes_come_out_on_another_machine(session, sources, hub, tmp_path):
    mine = replace(session, endpoint=hub.endpoint, token=hub.token)
    for name in ("math-lora", "code-lora"):
        api.push(mine, name, f"me/{name}")
    api.remove(mine, ["math-lora", "code-lora"])
    api.pull(mine, ["me/math-lora", "me/code-lora"])
    made = api.lego(mine, k=2)
    api.push(mine, None, "me/merged")
    (tmp_path / "other").mkdir()
    other = replace(mine, folder=tmp_path / "other", cache=tmp_path / "other-cache")

    api.pull(other, ["me/merged"])
    rows = api.rebuild(other, "merged")
    lines = list(api.log(other, "merged").lines())

    assert {row["file"]: row["sha256"] for row in rows} == {
        name: sha256_file(made.path / name) for name in (CONFIG, WEIGHTS)
    }
    assert lines[1].startswith("├─ 1 × code-lora (me/code-lora@")
