"""What an evaluation says is what its candidates give when they are written, and run by PEFT, one at a time."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bases import write_base
from peft_models import load_adapter, quiet, save_adapter

from loramerge import api
from loramerge.errors import (
    BadOption,
    BadTensor,
    FormatError,
    IncompatibleError,
    NeedsBase,
    NotFound,
    OutputExists,
    UsageError,
)

WORDS = ["cat", "dog", "mat", "sat", "ran", "sad", "tree", "away", "far"]
LINES = [" ".join(WORDS[at % 9 : at % 9 + 1 + at % 4]) or "cat" for at in range(24)]
TEXT = "".join(f"the {line} and the {line[::-1].split()[0][::-1]} under a tree\n" for line in LINES)


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A folder with bases, adapters that PEFT saved, and tasks."""
    import transformers

    root = tmp_path_factory.mktemp("stock")
    for kind, name in (("LlamaForCausalLM", "llama"), ("BertModel", "bert")):
        write_base(root / name, kind, initializer_range=0.4)
    llama = {
        "make": lambda: transformers.AutoModelForCausalLM.from_pretrained(root / "llama"),
        "task_type": "CAUSAL_LM",
    }
    with quiet():
        for seed, (name, more) in enumerate(
            {
                "oz": {"r": 4, "target_modules": ["q_proj", "v_proj"]},
                "play": {"r": 2, "target_modules": ["q_proj", "down_proj"], "lora_alpha": 6},
                "third": {"r": 3, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
                "dora": {"r": 2, "target_modules": ["q_proj"], "use_dora": True},
            }.items()
        ):
            save_adapter(folder=root / name, seed=seed, **llama, **more)
        for seed, (name, labels) in enumerate({"cats-lora": 2, "dogs-lora": 3, "dogs-better": 3}.items(), 10):

            def make(labels=labels):
                kind = transformers.AutoModelForSequenceClassification
                return kind.from_pretrained(root / "bert", num_labels=labels)

            save_adapter(make, root / name, seed=seed, r=4, target_modules=["query", "value"], task_type="SEQ_CLS")
    for task, labels in (("cats", 2), ("dogs", 3)):
        (root / task).mkdir()
        rows = [{"text": line, "label": at % labels} for at, line in enumerate(LINES)]
        (root / task / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        info = {
            "name": task,
            "kind": "classification",
            "labels": WORDS[:labels],
            "splits": {"test": {"file": "test.jsonl"}},
        }
        (root / task / "INFO.json").write_text(json.dumps(info))
    (root / "text.txt").write_text(TEXT)
    return root


@pytest.fixture
def here(session, stock):
    """The session's folder, with all that is in stock."""
    for path in stock.iterdir():
        (session.folder / path.name).symlink_to(path)
    return session


LM = {"base": "llama", "tasks": ["perplexity:text.txt"], "options": {"block": "16"}}
CLS = {"base": "bert", "tasks": ["dogs"]}


def lm(session, refs, sweep=None, out=None, merging=None, **asked):
    asked = api.Asked(**{**LM, **asked})
    made = api.evaluate(session, [f"./{ref}" for ref in refs], asked, sweep or api.Sweep(), out=out, **(merging or {}))
    return {row["candidate"]: row["value"] for row in made.data["scores"]}


def classified(session, refs, sweep=None, **asked):
    asked = api.Asked(**{**CLS, **asked})
    return api.evaluate(session, [f"./{ref}" for ref in refs], asked, sweep or api.Sweep()).data


def scores(data):
    return {(row["candidate"], row["task"]): row for row in data["scores"]}


# Heads


def share_right(stock, adapter, task, head=None):
    """Accuracy of one adapter on a task, as PEFT runs it, with its own head or another's."""
    import transformers
    from safetensors.torch import load_file

    rows = [json.loads(line) for line in (stock / task / "test.jsonl").read_text().splitlines()]
    source = load_file(stock / (head or adapter) / "adapter_model.safetensors")
    weights = {key.rpartition("classifier.")[2]: value for key, value in source.items() if "classifier." in key}
    with quiet():
        kind = transformers.AutoModelForSequenceClassification
        own = load_file(stock / adapter / "adapter_model.safetensors")
        labels = next(value.shape[0] for key, value in own.items() if key.endswith("classifier.weight"))
        model = load_adapter(kind.from_pretrained(stock / "bert", num_labels=labels), stock / adapter)
        tokenizer = transformers.AutoTokenizer.from_pretrained(stock / "bert")
    found = []
    for row in rows:
        inputs = tokenizer(row["text"], return_tensors="pt")
        with torch.inference_mode():
            pooled = model.base_model.model.bert(input_ids=inputs["input_ids"]).pooler_output
            found.append(int((pooled @ weights["weight"].T + weights["bias"]).argmax()) == row["label"])
    return np.mean(found)


def test_each_candidate_uses_its_own_head(here, stock):
    data = classified(here, ["dogs-lora", "dogs-better"])

    found = {row["candidate"]: row["value"] for row in data["scores"]}
    assert found == {name: share_right(stock, name, "dogs") for name in ("dogs-lora", "dogs-better")}


def test_with_own_heads_every_candidate_has_the_head_of_the_tasks_source(here, stock):
    data = classified(here, ["cats-lora", "dogs-lora"], tasks=["cats", "dogs"], heads="own")

    found = {key: row["value"] for key, row in scores(data).items()}
    assert found == {
        (name, task): share_right(stock, name, task, head=f"{task}-lora")
        for name in ("cats-lora", "dogs-lora")
        for task in ("cats", "dogs")
    }
    assert {task["name"]: task["owner"] for task in data["tasks"]} == {"cats": "cats-lora", "dogs": "dogs-lora"}


def test_own_names_the_source_of_a_task(here, stock):
    refs = ["dogs-lora", "dogs-better"]

    data = classified(here, refs, heads="own", own={"dogs": "dogs-better"})

    found = {row["candidate"]: row["value"] for row in data["scores"]}
    assert found == {name: share_right(stock, name, "dogs", head="dogs-better") for name in refs}


def test_scores_are_told_as_shares_of_the_sources_own(here):
    data = classified(here, ["cats-lora", "dogs-lora"], tasks=["cats", "dogs"], heads="own")

    found = scores(data)
    for task, owner in (("cats", "cats-lora"), ("dogs", "dogs-lora")):
        own = found[owner, task]["value"]
        for name in ("cats-lora", "dogs-lora"):
            assert found[name, task]["own"] == own
            assert found[name, task]["normalised"] == pytest.approx(found[name, task]["value"] / own)
        assert found[owner, task]["normalised"] == 1
    for row in data["means"]:
        shares = [found[row["candidate"], task]["normalised"] for task in ("cats", "dogs")]
        assert row["value"] == pytest.approx(np.mean(shares))


def test_language_models_without_heads_have_owners_too(here):
    asked = api.Asked(**{**LM, "own": {"text": "oz"}})

    data = api.evaluate(here, ["./oz", "./play"], asked, api.Sweep(base=True)).data

    found = {row["candidate"]: row for row in data["scores"]}
    assert found["oz"]["normalised"] == 1
    assert found["play"]["normalised"] == pytest.approx(found["oz"]["value"] / found["play"]["value"])
    assert found["play"]["normalised_low"] < found["play"]["normalised"] < found["play"]["normalised_high"]
    assert {row["candidate"] for row in data["means"]} == {"base", "oz", "play"}


def test_a_source_is_all_of_itself_without_a_doubt(here):
    asked = api.Asked(**{**LM, "own": {"text": "oz"}})

    data = api.evaluate(here, ["./oz", "./play"], asked, api.Sweep(points=3)).data

    scores = {row["candidate"]: row for row in data["scores"]}
    means = {row["candidate"]: row for row in data["means"]}
    for name in ("oz", "t=0"):
        assert [means[name][side] for side in ("value", "low", "high")] == [1, 1, 1]
        assert [scores[name][side] for side in ("normalised", "normalised_low", "normalised_high")] == [1, 1, 1]
    assert means["t=0.5"]["low"] < means["t=0.5"]["high"]


def test_a_source_called_base_is_not_the_base(here, stock):
    (here.folder / "base").symlink_to(stock / "oz")
    asked = api.Asked(**{**LM, "own": {"text": "base"}})

    data = api.evaluate(here, ["./base"], asked, api.Sweep(base=True)).data

    shares = [(row["candidate"], row["normalised"]) for row in data["scores"]]
    assert shares[1] == ("base-2", 1)
    assert shares[0][1] != 1


def test_without_the_source_itself_it_is_told_that_there_are_no_shares(here):
    asked = api.Asked(**{**LM, "own": {"text": "oz"}})

    data = api.evaluate(here, ["./oz", "./play"], asked, api.Sweep(methods=["linear"], sources=False)).data

    assert data["means"] == []
    assert data["notes"] == ["text: no shares are told, since oz itself is no candidate"]


@pytest.mark.parametrize(
    ("sweep", "merging", "said"),
    [
        ({"points": 3, "scales": [2.0]}, {}, "scale says how to merge"),
        ({"points": 3, "ranks": ["2"]}, {}, "rank says how to merge"),
        ({}, {"weighting": "sum"}, "weights says how to merge"),
        ({}, {"data": {"oz": "oz.safetensors"}}, "data says how to merge"),
        ({"methods": ["ties"]}, {"data": {"oz": "oz.safetensors"}}, "None of the methods takes statistics"),
    ],
)
def test_what_would_say_nothing_is_refused(here, sweep, merging, said):
    with pytest.raises(BadOption, match=said):
        lm(here, ["oz", "play"], api.Sweep(**sweep), merging=merging)


def test_methods_that_need_statistics_are_given_them(here):
    for name in ("oz", "third"):
        api.stats(here, f"./{name}", base="llama", text=Path("text.txt"), out=Path(f"{name}.safetensors"))
    data = {name: f"{name}.safetensors" for name in ("oz", "third")}

    found = lm(here, ["oz", "third"], api.Sweep(methods=["linear", "regmean"]), merging={"data": data})

    assert set(found) == {"oz", "third", "linear", "regmean"}
    assert found["regmean"] != found["linear"]


def test_weights_that_cancel_leave_the_base(here):
    (here.folder / "rows.json").write_text("[[1, -1]]")

    found = lm(here, ["oz", "oz"], api.Sweep(coefficients=Path("rows.json"), base=True, sources=False))

    assert found["row 1"] == found["base"]


def test_each_candidate_is_compared_to_the_best_of_what_was_merged_on_the_same_items(here):
    asked = api.Asked(**{**LM, "own": {"text": "oz"}})
    sweep = api.Sweep(methods=["linear"], scales=[0.5, 1.0], base=True)

    data = api.evaluate(here, ["./oz", "./play"], asked, sweep).data

    for rows, sign in ((data["scores"], 1), (data["means"], -1)):
        found = {row["candidate"]: row for row in rows}
        best = min(("linear ×0.5", "linear ×1"), key=lambda name: sign * found[name]["value"])
        assert [name for name, row in found.items() if row["behind"] is None] == [best]
        for name, row in found.items():
            if name != best:
                gap = row["behind"]
                assert gap["value"] == pytest.approx(sign * (row["value"] - found[best]["value"]))
                assert gap["low"] <= gap["value"] <= gap["high"]


def test_heads_of_other_numbers_of_classes_are_an_error(here):
    with pytest.raises(IncompatibleError, match=r"heads of 3 and 2 outputs|3 classes, and the head 2"):
        classified(here, ["dogs-lora", "cats-lora"])


@pytest.mark.parametrize(("ref", "task"), [("cats-lora", "dogs"), ("dogs-lora", "cats")])
def test_a_head_of_another_task_is_not_scored_on_this(here, ref, task):
    with pytest.raises(IncompatibleError, match="classes, and the head"):
        classified(here, [ref], tasks=[task])


def test_a_candidate_without_a_head_is_an_error(here):
    with pytest.raises(IncompatibleError, match=r"base has no task head, .* classifier\.bias"):
        classified(here, ["dogs-lora"], api.Sweep(base=True))


@pytest.mark.parametrize("own", [{"dogs": "dog-lora"}, {"dog": "dogs-lora"}])
def test_owners_and_tasks_that_are_not_there_are_named(here, own):
    with pytest.raises(BadOption, match="dog"):
        classified(here, ["dogs-lora"], heads="own", own=own)


def test_a_task_that_nobody_was_trained_for_has_no_own_head(here):
    with pytest.raises(BadOption, match="Whose head is that of other"):
        classified(here, ["dogs-lora"], tasks=["other=dogs"], heads="own")


# Merges that are nowhere written


SWEEPS = {
    "linear": {"method": "linear"},
    "linear ×0.5": {"method": "linear", "scale": 0.5},
    "linear of rank sum": {"method": "linear", "rank": "sum"},
    "linear of rank sum ×2": {"method": "linear", "rank": "sum", "scale": 2.0},
    "ties": {"method": "ties", "options": {"density": "0.4"}},
    "tsv": {"method": "tsv", "rank": "3"},
    "lego": {"method": "lego", "options": {"k": "4"}},
    "slerp": {"method": "slerp"},
}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_merge_in_memory_scores_as_the_one_that_is_written(here, name):
    how = SWEEPS[name]
    sweep = api.Sweep(
        methods=[how["method"]],
        options={key: [value] for key, value in how.get("options", {}).items()},
        ranks=[how["rank"]] if "rank" in how else (),
        scales=[how["scale"]] if "scale" in how else (),
        sources=False,
    )

    found = lm(here, ["oz", "play"], sweep)
    api.merge(here, ["./oz", "./play"], out=Path("merged"), **how)

    wanted = lm(here, ["merged"])
    assert list(found.values()) == pytest.approx(list(wanted.values()), rel=1e-5)


def test_classifiers_merges_score_as_written_ones_with_heads_of_their_own(here):
    refs = ["cats-lora", "dogs-lora"]
    how = {"tasks": ["cats", "dogs"], "heads": "own"}

    found = scores(classified(here, refs, api.Sweep(methods=["linear", "ties"]), **how))
    for method in ("linear", "ties"):
        api.merge(here, [f"./{ref}" for ref in refs], method=method, out=Path(f"{method}-written"))
    wanted = scores(classified(here, [*refs, "linear-written", "ties-written"], **how))

    for task in ("cats", "dogs"):
        for method in ("linear", "ties"):
            assert found[method, task]["value"] == wanted[f"{method}-written", task]["value"]
            assert found[method, task]["normalised"] == wanted[f"{method}-written", task]["normalised"]


def maker_of(session, refs):
    from loramerge.api.evaluating import sources

    return sources(session, refs, api.Asked(base="llama", tasks=["x"]), False)[1]


@pytest.mark.parametrize("method", ["linear", "sum"])
def test_a_linear_merge_of_full_rank_is_rows_of_coefficients_of_its_sources(here, method):
    refs = ["./oz", "./play", "./third"]
    maker = maker_of(here, refs)

    entry = maker.merge(api.recipe_of(here, refs, method=method, rank="sum", weights=[0.25, 1, -2]), "m")

    units = {unit.key for source in maker.sources for terms in source.terms.values() for unit, _ in terms}
    api.merge(here, refs, method=method, rank="sum", weights=[0.25, 1, -2], out=Path("written"))
    written = api.open_ref(here, "./written").adapter
    assert set(written.modules) == set(entry.candidate.terms)
    for module, terms in entry.candidate.terms.items():
        assert {unit.key for unit, _ in terms} <= units
        found = sum(unit.update.exact().dense() * weight for unit, weight in terms)
        torch.testing.assert_close(found, written.load(module).exact().dense(), rtol=0, atol=1e-6)


def test_every_scale_of_a_merge_shares_its_numbers(here):
    maker = maker_of(here, ["./oz", "./play"])

    made = [
        maker.merge(api.recipe_of(here, ["./oz", "./play"], method="ties", scale=s), f"×{s}") for s in (0.5, 1.0, 2.0)
    ]

    terms = [next(iter(entry.candidate.terms.values())) for entry in made]
    assert [weight for ((_, weight),) in terms] == [0.5, 1.0, 2.0]
    assert len({id(unit) for ((unit, _),) in terms}) == 1


def test_a_sweep_has_every_combination_under_a_name_of_its_own(here):
    sweep = api.Sweep(
        methods=["ties", "linear"],
        options={"density": ["0.2", "0.5"]},
        ranks=["2", "max"],
        scales=[1.0, 2.0],
        sources=False,
    )

    found = lm(here, ["oz", "play"], sweep, limit=2)

    assert list(found) == [
        f"{what} rank={rank} ×{scale}"
        for what in ("ties density=0.2", "ties density=0.5", "linear")
        for rank in ("2", "max")
        for scale in (1, 2)
    ]
    assert len(set(found.values())) > 8


@pytest.mark.parametrize(
    "sweep",
    [
        {"methods": ["linear"], "options": {"k": ["3"]}},
        {"options": {"k": ["3"]}},
        {"methods": ["lego"], "options": {"k": ["many"]}},
        {"methods": ["linear"], "ranks": ["none"]},
    ],
)
def test_a_sweep_that_cannot_be_is_an_error_before_anything_runs(here, sweep):
    with pytest.raises(BadOption):
        lm(here, ["oz", "play"], api.Sweep(**sweep))


@pytest.mark.parametrize("rank", ["sum", "3"])
def test_dora_is_merged_with_the_base_that_is_there_anyway(here, rank):
    found = lm(here, ["oz", "dora"], api.Sweep(methods=["linear"], ranks=[rank], sources=False))
    api.merge(here, ["./oz", "./dora"], bases=["llama"], rank=rank, out=Path("merged"))

    assert found["linear"] == pytest.approx(lm(here, ["merged"])["merged"], rel=1e-5)


# Ways and coefficients


def test_points_are_the_same_as_interpolated_adapters(here):
    found = lm(here, ["oz", "third"], api.Sweep(points=3))
    api.interpolate(here, ["./oz", "./third"], 0.5, out=Path("half"), rank="sum")

    assert list(found) == ["oz", "third", "t=0", "t=0.5", "t=1"]
    assert found["t=0"] == pytest.approx(found["oz"], rel=1e-6)
    assert found["t=1"] == pytest.approx(found["third"], rel=1e-6)
    assert found["t=0.5"] == pytest.approx(lm(here, ["half"])["half"], rel=1e-5)


def test_rows_of_coefficients_are_candidates(here):
    rows = [[0.5, 0.5], {"name": "only play", "weights": [0, 1]}, [0, 0]]
    (here.folder / "rows.json").write_text(json.dumps(rows))

    found = lm(here, ["oz", "play"], api.Sweep(coefficients=Path("rows.json"), base=True))

    assert list(found) == ["base", "oz", "play", "row 1", "only play", "row 3"]
    assert found["only play"] == pytest.approx(found["play"], rel=1e-6)
    assert found["row 3"] == pytest.approx(found["base"], rel=1e-6)
    written = api.merge(here, ["./oz", "./play"], weights=[0.5, 0.5], rank="sum", out=Path("mean"))
    assert found["row 1"] == pytest.approx(lm(here, [written.name])["mean"], rel=1e-5)


@pytest.mark.parametrize(
    "rows", ["[[1]]", "[[1, null]]", "[[1, NaN]]", "[[1, 1e999]]", "[[1, 2, 3]]", '[{"name": "x"}]', "[3]"]
)
def test_rows_that_are_no_weights_are_an_error(here, rows):
    (here.folder / "rows.json").write_text(rows)

    with pytest.raises(BadOption, match="Row 1 has no weight for each of 2"):
        lm(here, ["oz", "play"], api.Sweep(coefficients=Path("rows.json")))


@pytest.mark.parametrize("rows", ["", "{}", "[]", "[[1,", "3"])
def test_a_file_without_rows_is_an_error(here, rows):
    (here.folder / "rows.json").write_text(rows)

    with pytest.raises(FormatError):
        lm(here, ["oz", "play"], api.Sweep(coefficients=Path("rows.json")))


def test_dora_has_no_points_and_no_rows(here):
    with pytest.raises(NeedsBase, match="DoRA"):
        lm(here, ["oz", "dora"], api.Sweep(points=3))


def test_a_way_has_two_ends(here):
    with pytest.raises(UsageError, match="not among 3"):
        lm(here, ["oz", "play", "third"], api.Sweep(points=3))


# Items


def test_even_and_odd_items_are_all_of_them_once(here):
    found = {part: classified(here, ["dogs-lora"], part=part)["scores"][0] for part in ("all", "even", "odd")}

    rows = {part: row["rows"] for part, row in found.items()}
    right = {part: row["value"] * row["rows"] for part, row in found.items()}
    assert rows == {"all": 24, "even": 12, "odd": 12}
    assert right["even"] + right["odd"] == pytest.approx(right["all"])


def test_a_limit_that_leaves_no_item_is_an_error(here):
    with pytest.raises(BadOption, match="None of 24 items"):
        classified(here, ["dogs-lora"], part="odd", limit=1)


def test_equal_candidates_run_once(here):
    seen = []
    watching = replace(here, progress=lambda *what: seen.append(what))

    found = lm(watching, ["oz", "oz"], api.Sweep(base=True), limit=3)

    assert list(found) == ["base", "oz", "oz-2"]
    assert found["oz"] == found["oz-2"]
    assert seen[-1] == ("text", 6, 6, "items")


# Output and resumption


def test_the_output_is_what_is_returned(here):
    made = api.evaluate(here, ["./oz"], api.Asked(**LM), out=Path("scores.json"))

    assert json.loads(made.path.read_text()) == made.data
    assert sorted(p.name for p in here.folder.iterdir() if "scores" in p.name) == ["scores.json"]
    assert made.path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_an_output_that_is_there_is_kept_and_costs_nothing(here):
    (here.folder / "scores.json").write_text("mine")

    with pytest.raises(OutputExists):
        lm(here, ["nowhere"], out=Path("scores.json"))

    assert (here.folder / "scores.json").read_text() == "mine"


def test_an_output_in_no_folder_is_an_error(here):
    with pytest.raises(NotFound, match="no such folder"):
        lm(here, ["oz"], out=Path("no/scores.json"))


SCRIPT = """
import os, signal, sys
from pathlib import Path
from loramerge import api

def progress(task, done, total, unit):
    if done >= int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)

session = api.Session(Path("."), workers=1, progress=progress)
asked = api.Asked(base=sys.argv[2], tasks=sys.argv[3].split(","), rows=64, **eval(sys.argv[4]))
api.evaluate(session, sys.argv[5].split(","), asked, api.Sweep(base=bool(eval(sys.argv[6]))), out=Path("scores.json"))
"""
RUNS = {
    "perplexity": ("llama", "perplexity:text.txt", {"options": {"block": "16"}}, "./oz,./play,./third", True),
    "classification": ("bert", "cats,dogs", {"heads": "own"}, "./cats-lora,./dogs-lora", False),
}


@pytest.mark.parametrize("kind", ["perplexity", pytest.param("classification", marks=pytest.mark.slow)])
def test_a_run_that_was_killed_goes_on_where_it_was(here, kind):
    base, tasks, more, refs, with_base = RUNS[kind]
    seen = {}
    watching = replace(here, progress=lambda task, done, total, _: seen.update({task: total}))
    asked = api.Asked(base=base, tasks=tasks.split(","), rows=64, **more)
    whole = api.evaluate(watching, refs.split(","), asked, api.Sweep(base=with_base)).data
    first, total = next(iter(seen.values())), sum(seen.values())

    command = [sys.executable, "-c", SCRIPT, str(first // 2), base, tasks, repr(more), refs, repr(with_base)]
    environment = {**os.environ, "PYTHONPATH": str(Path(api.__file__).parents[2])}
    killed = subprocess.run(command, cwd=here.folder, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (here.folder / "scores.json").exists()
    seen.clear()
    again = api.evaluate(watching, refs.split(","), asked, api.Sweep(base=with_base), out=Path("scores.json")).data

    assert 0 < sum(seen.values()) <= total - first // 2
    assert again["scores"] == whole["scores"]
    assert sorted(p.name for p in here.folder.iterdir() if "scores" in p.name) == ["scores.json"]


def test_a_run_that_was_killed_when_all_was_done_still_writes(here, monkeypatch):
    from loramerge.api import evaluating

    def fail(target, data):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(evaluating, "_write", fail)
        with pytest.raises(KeyboardInterrupt):
            lm(here, ["oz", "play"], out=Path("scores.json"))
    seen = []
    watching = replace(here, progress=lambda *what: seen.append(what))

    found = lm(watching, ["oz", "play"], out=Path("scores.json"))

    assert seen == []
    assert found == lm(here, ["oz", "play"])


def test_another_question_does_not_take_the_answers_of_an_interrupted_one(here, monkeypatch):
    from loramerge.api import evaluating

    with monkeypatch.context() as patched:
        patched.setattr(evaluating, "_write", lambda target, data: None)
        lm(here, ["oz"], out=Path("scores.json"))

    found = lm(here, ["oz"], out=Path("scores.json"), options={"block": "8"})

    assert found == lm(here, ["oz"], options={"block": "8"})


# What is wrong with candidates


def test_numbers_that_are_none_are_refused_with_the_tensor(here, stock):
    from changes import change_tensors

    _copy(stock / "oz", here.folder / "broken")
    change_tensors(
        here.folder / "broken",
        lambda found: {k: t * (float("nan") if "q_proj.lora_B" in k else 1) for k, t in found.items()},
    )

    with pytest.raises(BadTensor, match="q_proj"):
        lm(here, ["broken"])


def test_outputs_that_are_no_numbers_are_told_with_candidate_and_item_and_hurt_nobody_else(here, stock):
    """Factors so large that their product overflows."""
    from changes import change_tensors

    _copy(stock / "oz", here.folder / "huge")
    change_tensors(here.folder / "huge", lambda found: {k: t * (1e30 if "lora_" in k else 1) for k, t in found.items()})

    data = api.evaluate(here, ["./oz", "./huge", "./play"], api.Asked(**LM)).data

    found = {row["candidate"]: row["value"] for row in data["scores"]}
    alone = lm(here, ["oz", "play"])
    assert found["huge"] is None
    assert {name: found[name] for name in alone} == pytest.approx(alone, rel=1e-6)
    assert any(note.startswith("text: huge: the model's output is not finite at item 1 and") for note in data["notes"])


def test_an_update_that_changes_no_output_is_an_error(here):
    """The pooler is not asked for by embeddings."""
    from adapters import write_adapter

    write_adapter(here.folder / "idle", modules={"pooler.dense": (16, 16)}, task_type="FEATURE_EXTRACTION")
    rows = [{"text": a, "other": b, "score": 1.0} for a, b in itertools.pairwise(LINES)]
    (here.folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = api.Asked(base="bert", tasks=["similarity:pairs.jsonl"])

    for _ in range(2):  # what is kept of the first call must not stand for the check
        with pytest.raises(IncompatibleError, match="The output is the base's own") as caught:
            api.evaluate(here, ["./idle"], asked, out=Path("scores.json"))
    passed = api.evaluate(here, ["./idle"], replace(asked, check=False)).data

    assert caught.value.where == "idle"
    assert passed["scores"][0]["candidate"] == "idle"


def test_an_update_of_zero_is_no_error(here, stock):
    from changes import change_tensors

    _copy(stock / "oz", here.folder / "zero")
    change_tensors(here.folder / "zero", lambda found: {k: t * (0 if "lora_B" in k else 1) for k, t in found.items()})

    found = lm(here, ["zero"], api.Sweep(base=True))

    assert found["zero"] == found["base"]


def _copy(source, target):
    import shutil

    shutil.copytree(source, target)


def test_nothing_to_evaluate_is_an_error(here):
    with pytest.raises(UsageError, match="nothing to evaluate"):
        lm(here, ["oz"], api.Sweep(sources=False))


@pytest.mark.parametrize("factor", [1e-3, 1e-6, 1e-9])
def test_an_update_that_is_less_than_rounding_is_not_taken_for_an_idle_one(here, factor):
    found = lm(here, ["oz", "play"], api.Sweep(methods=["linear"], ranks=["sum"], scales=[factor], base=True))

    name = f"linear ×{factor:g}"
    assert found[name] == pytest.approx(found["base"], rel=10 * factor + 1e-5)


@pytest.mark.parametrize("scale", [1e300, float("nan")])
def test_a_scale_that_no_merge_takes_is_an_error(here, scale):
    with pytest.raises(BadOption, match="scale of"):
        lm(here, ["oz", "play"], api.Sweep(methods=["linear"], scales=[scale]))


def test_in_bfloat16_the_winner_is_the_same(here):
    found = {dtype: lm(here, ["oz", "play"], dtype=dtype) for dtype in ("F32", "BF16")}

    assert found["BF16"] == pytest.approx(found["F32"], rel=0.05)
    assert found["BF16"] != found["F32"]


def test_what_fails_before_anything_ran_leaves_nothing(here):
    with pytest.raises(IncompatibleError):
        api.evaluate(here, ["./dogs-lora"], api.Asked(**CLS), api.Sweep(base=True), out=Path("scores.json"))

    assert not [path for path in here.folder.iterdir() if "scores" in path.name]
