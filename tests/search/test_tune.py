"""A search says what it chose by, what failed and why, and goes on with no other search's rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from adapters import write_adapter
from bases import LINES, write_base

from loramerge import api
from loramerge.api.session import Session
from loramerge.errors import BadOption, LoramergeError, OutputExists, UsageError
from loramerge.formats._statistics import write_statistics
from loramerge.search.journal import Journal

CAUSAL = {"model.layers.0.self_attn.q_proj": (16, 16), "model.layers.1.mlp.down_proj": (16, 32)}
CLASSES = {"bert.encoder.layer.0.attention.self.query": (16, 16)}
ROWS = [{"text": line, "label": at % 3} for at, line in enumerate(LINES * 4)]
TEXT = {"base": "llama", "tasks": ["perplexity:text.txt"], "options": {"block": "4"}}


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """Bases, two adapters for each, a text, and rows."""
    root = tmp_path_factory.mktemp("stock")
    for kind, name in (("LlamaForCausalLM", "llama"), ("BertModel", "bert")):
        write_base(root / name, kind, initializer_range=0.4)
    for name in ("oz", "play"):
        write_adapter(root / name, modules=CAUSAL, task_type="CAUSAL_LM", seed=name)
    for seed, name in enumerate(("dogs-a", "dogs-b")):
        draw = torch.Generator().manual_seed(seed)
        head = {"classifier.weight": torch.randn(3, 16, generator=draw), "classifier.bias": torch.zeros(3)}
        more = {"task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
        write_adapter(root / name, modules=CLASSES, extras=head, seed=name, **more)
    (root / "text.txt").write_text("\n".join(LINES * 40))
    return root


@pytest.fixture
def here(stock, tmp_path):
    """A workspace with all that is in stock."""
    for path in stock.iterdir():
        (tmp_path / path.name).symlink_to(path)
    return Session(tmp_path, workers=1, cache=tmp_path / "cache")


def task(session, folder, splits=("test",), name="dogs", rows=ROWS):
    """A folder of a classification, the same rows in every split."""
    path = session.workspace.root / folder
    path.mkdir()
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = {split: {"file": "rows.jsonl"} for split in splits}
    info = {"name": name, "kind": "classification", "labels": ["a", "b", "c"], "splits": found}
    (path / "INFO.json").write_text(json.dumps(info))


def tuned(session, refs=("./oz", "./play"), asked=TEXT, force=False, merging=None, **search):
    found = {"space": ["scale=0.5,1"], "sampler": "grid", "budget": 4, "objective": "score", **search}
    made = api.tune(
        session, refs, api.Asked(**asked), api.Search(**found), out=Path("best"), force=force, **(merging or {})
    )
    return made.data


def leave_the_journal(session):
    for name in ("best.json", "best.yaml"):
        (session.workspace.root / name).unlink()


# Which journal is whose


def test_the_rows_of_another_sources_head_are_not_taken_up(here):
    task(here, "dogs")
    asked = {"base": "bert", "tasks": ["dogs"], "heads": "own"}
    tuned(here, ["./dogs-a", "./dogs-b"], {**asked, "own": {"dogs": "dogs-a"}})
    leave_the_journal(here)

    with pytest.raises(BadOption, match="owners was dogs dogs-a, now dogs dogs-b"):
        tuned(here, ["./dogs-a", "./dogs-b"], {**asked, "own": {"dogs": "dogs-b"}})


def test_another_head_in_the_same_source_is_another_search(here):
    from safetensors.torch import load_file, save_file

    task(here, "dogs")
    asked = {"base": "bert", "tasks": ["dogs"], "heads": "own", "own": {"dogs": "kept"}}
    heads = here.workspace.root / "both" / "heads"
    write_adapter(heads.parent, modules=CLASSES, task_type="SEQ_CLS")
    heads.mkdir()
    weights = load_file(here.workspace.root / "dogs-a" / "adapter_model.safetensors")
    head = {key: tensor for key, tensor in weights.items() if "classifier" in key}
    head = {key.removeprefix("base_model.model."): tensor for key, tensor in head.items()}
    save_file(head, heads / "kept.safetensors")
    tuned(here, ["./both", "./dogs-b"], asked)
    leave_the_journal(here)

    save_file({key: tensor + 1 for key, tensor in head.items()}, heads / "kept.safetensors")

    with pytest.raises(BadOption, match="heads was own"):
        tuned(here, ["./both", "./dogs-b"], asked)


def test_other_statistics_in_the_same_file_are_another_search(here):
    path = here.workspace.root / "oz.safetensors"
    grams = {("grams", module): (width, width) for module, (_, width) in CAUSAL.items()}

    def write(factor):
        tensors = [(kind, module, factor * torch.eye(shape[0])) for (kind, module), shape in grams.items()]
        write_statistics(path, grams, tensors)

    write(1)
    tuned(here, merging={"metric": path.name})
    leave_the_journal(here)
    write(2)

    with pytest.raises(BadOption, match=r"statistics was oz\.safetensors"):
        tuned(here, merging={"metric": path.name})


def test_force_begins_another_searchs_journal_anew_but_none_that_is_in_use(here):
    tuned(here)
    path = here.workspace.root / "best.journal"

    with Journal(path, {"space": "another"}, anew=True) as other:
        other.add([{"scale": 1.0}], range(1), {"x": torch.zeros(1, 1, 2).numpy()})
        with pytest.raises(BadOption, match="locked"):
            tuned(here, force=True)
        kept = other.missing([{"scale": 1.0}], range(1))
    found = tuned(here, force=True)

    assert kept == []
    assert len(found["trials"]) == 2


# What is written


@pytest.mark.parametrize("objective", ["score", "lorahub"])
def test_a_lower_is_better_task_may_have_a_single_row_in_its_first_rung(here, objective):
    found = tuned(here, asked={**TEXT, "limit": 32}, objective=objective)

    assert [trial["rungs"][0]["rows"] for trial in found["trials"]] == [1, 1]
    assert all(trial["rungs"][0]["low"] is None for trial in found["trials"])
    assert json.loads((here.workspace.root / "best.json").read_text()) == found


@pytest.mark.parametrize("name", ["best.json", "best.yaml"])
def test_neither_output_is_replaced_without_force(here, name):
    (here.workspace.root / name).write_text("mine")

    with pytest.raises(OutputExists):
        tuned(here)

    assert (here.workspace.root / name).read_text() == "mine"
    assert not (here.workspace.root / "best.journal").exists()


def test_what_is_no_name_of_files_is_refused(here):
    with pytest.raises(BadOption, match="no name"):
        api.tune(here, ["./oz", "./play"], api.Asked(**TEXT), api.Search(), out=Path())


# Rows


def test_the_rows_reported_are_told_as_they_were_taken(here):
    task(here, "halved", name="halved")
    task(here, "split", ["test", "dev"], name="split")
    asked = {
        "base": "bert",
        "tasks": ["halved", "split"],
        "heads": "own",
        "own": {"halved": "dogs-a", "split": "dogs-a"},
    }

    held = tuned(here, ["./dogs-a", "./dogs-b"], asked)["held_out"]

    assert [(one["part"], one["rows"]) for one in held["tasks"]] == [("odd", len(ROWS) // 2), ("all", len(ROWS))]
    assert held["part"] == "all, odd"


def test_which_rows_choose_is_not_asked(here):
    with pytest.raises(UsageError, match="for the search to say"):
        tuned(here, asked={**TEXT, "part": "even"})


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_two_folders_of_one_name_have_splits_of_their_own(here, names):
    task(here, "x")
    task(here, "y", ["test", "dev"])
    own = {"a": "dogs-a", "b": "dogs-a"}
    asked = {
        "base": "bert",
        "tasks": sorted(["a=x", "b=y"], key=lambda t: names.index(t[0])),
        "heads": "own",
        "own": own,
    }

    notes = tuned(here, ["./dogs-a", "./dogs-b"], asked)["notes"]

    assert "a: the even rows of test chose, the odd ones are reported" in notes
    assert "b: the split dev chose, test is reported" in notes


# What fails


@pytest.mark.parametrize("batch", [1, 8])
def test_a_point_that_cannot_be_merged_is_told_with_its_reason_and_the_others_go_on(here, batch):
    search = {"space": ["rank=foo,4,max"], "batch": batch, "budget": 20}
    found = tuned(here, **search)
    again = tuned(here, force=True, **search)

    states = {trial["name"]: trial["state"] for trial in found["trials"]}
    reasons = {trial["name"]: trial["why"] for trial in found["trials"]}
    assert states["rank=foo"] == "failed"
    assert "foo" in reasons.pop("rank=foo")
    assert "winner" in states.values()
    assert set(reasons.values()) == {""}
    assert again["trials"] == found["trials"]


def test_points_whose_names_are_rounded_alike_have_reasons_of_their_own(here):
    found = tuned(here, space=["density=1,1.00001"], merging={"method": "ties"})

    assert {trial["name"] for trial in found["trials"]} == {"density=1"}
    assert {trial["point"]["density"]: bool(trial["why"]) for trial in found["trials"]} == {1: False, 1.00001: True}


def test_a_point_whose_output_is_not_finite_says_where(here):
    with pytest.raises(LoramergeError, match="No candidate could be scored") as caught:
        tuned(here, space=["weight.*=1e19", "scale=1e19,1e20"])

    assert "scored: text: " in caught.value.message
    assert "not finite at item" in caught.value.message


def test_passes_that_memory_ended_in_are_told(here, monkeypatch):
    whole = torch.nn.Embedding.forward

    def small(self, ids):
        if ids.numel() > 64:
            raise MemoryError
        return whole(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", small)

    notes = tuned(here)["notes"]

    assert any("memory ended" in note for note in notes)
    assert len(set(notes)) == len(notes)


# The space


def test_without_a_method_the_space_is_that_of_the_method_used(here):
    with pytest.raises(BadOption, match="None of the methods has 'density'") as caught:
        tuned(here, space=["density=0.1..0.9", "scale=0.5,1"])

    found = tuned(here, space=["density=0.2,0.5"], merging={"method": "ties"})

    assert "ties" in caught.value.hint.removeprefix("--space method=").split(",")
    assert [sorted(trial["point"]) for trial in found["trials"]] == [["density"], ["density"]]
    assert found["winner"]["recipe"]["method"] == "ties"


@pytest.mark.parametrize("name", ["run.v1", "run.v1.json", "run.v1.yaml"])
def test_a_name_with_a_dot_is_kept(here, name):
    search = api.Search(["scale=0.5,1"], sampler="grid", budget=4, objective="score")

    api.tune(here, ["./oz", "./play"], api.Asked(**TEXT), search, out=Path(name))

    found = {path.name for path in here.workspace.root.glob("run*")}
    assert found == {"run.v1.json", "run.v1.yaml", "run.v1.journal"}


def test_a_search_that_cannot_begin_leaves_no_journal_behind(here):
    with pytest.raises(BadOption, match="Whose task is text"):
        tuned(here, objective="share")

    assert not list(here.workspace.root.glob("best*"))


def test_methods_that_need_statistics_are_searched_with_them(here):
    for name in ("oz", "play"):
        api.stats(here, f"./{name}", base="llama", text=Path("text.txt"), out=Path(f"{name}.safetensors"))
    data = {name: f"{name}.safetensors" for name in ("oz", "play")}

    found = tuned(here, space=["method=linear,regmean"], merging={"data": data})

    assert {trial["name"] for trial in found["trials"]} == {"linear", "regmean"}
    assert all(trial["why"] == "" for trial in found["trials"])
