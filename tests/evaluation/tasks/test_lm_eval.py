"""The harness's own tasks on all candidates at once, against its own class with one adapter at a time."""

import importlib.util
import json
import random
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from loramerge import api
from loramerge.api.suite import Asked
from loramerge.errors import BadOption, FormatError, IncompatibleError, MissingExtra, NotFound, UnknownName
from loramerge.evaluation import metrics
from loramerge.evaluation.applied import Applied
from loramerge.evaluation.passes import Passes
from loramerge.evaluation.tasks._harness import _seeded
from loramerge.evaluation.tasks._harness_metrics import columns

INSTALLED = importlib.util.find_spec("lm_eval") is not None
with_harness = pytest.mark.skipif(not INSTALLED, reason="lm-eval is not installed: `make test-lm-eval` has it")
ADAPTERS = ["stories260k-oz-r8", "stories260k-oz-r16-embed", "stories260k-shakespeare-r8"]
TASKS = ["choice", "mutual", "made", "said", "rolling", "last"]

HEAD = """
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/{file}.jsonl, train: {folder}/{file}-train.jsonl}}}}
test_split: test
training_split: train
"""
CHOICE = """
output_type: multiple_choice
doc_to_text: prompt
doc_to_choice: choices
doc_to_target: label
"""
MADE = """
output_type: generate_until
doc_to_text: prompt
doc_to_target: answer
generation_kwargs: {until: ["\\n", ".", "he"], max_gen_toks: 24, do_sample: false}
"""
WRITTEN = {
    "choice": (
        "choice",
        CHOICE + "metric_list: [{metric: acc}, {metric: acc_norm}, {metric: exact_match, aggregation: mean}, "
        "{metric: brier_score}, {metric: mcc}]",
    ),
    "mutual": ("choice", CHOICE + "metric_list: [{metric: acc_mutual_info}]"),
    "made": (
        "made",
        MADE + "metric_list: [{metric: exact_match, ignore_case: true}, {metric: bleu}]\n"
        "filter_list:\n"
        '  - {name: word, filter: [{function: regex, regex_pattern: "([A-Za-z])"}, {function: take_first}]}\n'
        "  - {name: none, filter: [{function: take_first}]}",
    ),
    # A number for every text, so that equal means are equal texts.
    "said": ("made", MADE + "process_results: !function said.number\nmetric_list: [{metric: said, aggregation: mean}]"),
    "rolling": (
        "rolling",
        'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: text\n'
        "metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]",
    ),
    "last": (
        "made",
        'output_type: loglikelihood\ndoc_to_text: prompt\ndoc_to_target: " {{answer}}"\n'
        "metric_list: [{metric: perplexity}, {metric: acc}]",
    ),
    "drawn": ("made", MADE.replace("false}", "true, temperature: 0.7}") + "metric_list: [{metric: exact_match}]"),
    "endless": ("made", MADE.replace("24", "600") + "metric_list: [{metric: exact_match}]"),
    "corpus": ("made", MADE + "metric_list: [{metric: bleu}, {metric: chrf}]"),
    "elsewhere": ("made", "dataset_path: nobody/nothing\n" + MADE),
    "broken": ("made", "output_type: guess"),
}
SAID = "import zlib\n\n\ndef number(doc, results):\n    return {'said': zlib.crc32(results[0].encode())}\n"


def sentences(shared):
    text = (shared / "data" / "tasks" / "lm-oz" / "test.txt").read_text(encoding="utf-8")
    found = [re.sub(r"\s+", " ", one).strip() for one in re.split(r"(?<=[.!?])\s+", text)]
    return [one for one in found if 40 < len(one) < 160][:70]


def documents(lines):
    """Rows of each file: ragged ones, an empty context, one longer than the model, one that ends with spaces."""
    rng = random.Random(0)

    def choice(line):
        words = line.split()
        half = len(words) // 2
        wrong = [" ".join(one.split()[half:]) or one for one in rng.sample(lines[14:], 3)]
        choices = [" ".join(words[half:]), *wrong]
        rng.shuffle(choices)
        return {"prompt": " ".join(words[:half]), "choices": choices, "label": choices.index(" ".join(words[half:]))}

    def made(at, line):
        words = line.split()
        return {"prompt": " ".join(words[: 1 + at % 5]), "answer": rng.choice(["a", "t", "w"])}

    choices = [choice(line) for line in lines[:12]]
    choices[3]["prompt"] = ""
    choices[5]["prompt"] = " ".join(lines) + "  "
    texts = [made(at, line) for at, line in enumerate(lines[:10])]
    texts.append({"prompt": " ".join(lines), "answer": "was"})
    rolling = [{"text": " ".join(lines[at : at + 1 + at % 3])} for at in range(5)]
    return {
        "choice": choices,
        "choice-train": [choice(line) for line in lines[14:24]],
        "made": texts,
        "made-train": texts[:2],
        "rolling": [*rolling, {"text": " ".join(lines[:30])}],
        "rolling-train": rolling,
    }


@pytest.fixture(scope="session")
def folder(shared, tmp_path_factory):
    """A folder of tasks and their data."""
    made = tmp_path_factory.mktemp("harness")
    for name, rows in documents(sentences(shared)).items():
        (made / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for name, (file, body) in WRITTEN.items():
        head = "" if body.startswith("dataset_path") else HEAD.format(folder=made, file=file)
        splits = "test_split: test\n" if not head else ""
        (made / f"{name}.yaml").write_text(f"task: {name}\n{head}{splits}{body}\n", encoding="utf-8")
    (made / "said.py").write_text(SAID, encoding="utf-8")
    return made


@pytest.fixture(scope="session")
def reference(shared, folder):
    """reference(tasks, limit=…) -> {adapter: {task: {"metric,filter": value}}} of the harness itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        base = str(shared / "data" / "models" / "stories260k")
        models = {
            name: HFLM(base, peft=str(shared / "data" / "trained" / name), device="cpu", batch_size=1)
            for name in ADAPTERS
        }

    def run(tasks, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            manager = TaskManager(include_path=str(folder), include_defaults=False)
            return {
                name: simple_evaluate(model, tasks=tasks, task_manager=manager, bootstrap_iters=0, **options)["results"]
                for name, model in models.items()
            }

    return run


@pytest.fixture
def ours(shared, folder, tmp_path):
    """ours(tasks, options, …) -> what `evaluate` writes."""

    def run(tasks, options=None, adapters=ADAPTERS, **asked):
        session = api.Session(tmp_path / "work", workers=1, cache=tmp_path / "cache")
        refs = [str(shared / "data" / "trained" / name) for name in adapters]
        base = str(shared / "data" / "models" / "stories260k")
        given = {"include_path": str(folder), **(options or {})}
        what = Asked(base, [f"lm-eval:{name}" for name in tasks], options=given, **asked)
        return api.evaluate(session, refs, what).data

    return run


def values(data):
    """{(adapter, task): {metric: value}} as the harness names them."""
    found = {}
    for row in data["scores"]:
        every = {row["metric"]: row["value"], **{name: one["value"] for name, one in row["more"].items()}}
        every = {name if "," in name else f"{name},none": value for name, value in every.items()}
        found[row["candidate"], row["task"]] = every
    return found


def theirs(results, task, without=()):
    """The harness's numbers of a task, but those of metrics that we leave out."""
    numbers = {key: value for key, value in results[task].items() if "," in key and "stderr" not in key}
    return {key: value for key, value in numbers.items() if key.partition(",")[0] not in without}


@with_harness
def test_every_metric_is_what_the_harness_gives_one_adapter_at_a_time(ours, reference):
    expected = reference(TASKS)

    found = values(ours(TASKS))

    assert {name for name, _ in found} == set(ADAPTERS)
    for (adapter, task), numbers in found.items():
        assert numbers == pytest.approx(theirs(expected[adapter], task, without=["bleu"]), rel=5e-6), (adapter, task)
    apart = {task for task in TASKS if len({json.dumps(found[adapter, task]) for adapter in ADAPTERS}) == len(ADAPTERS)}
    assert apart >= {"choice", "said", "rolling", "last"}
    assert any(found[adapter, "made"]["exact_match,word"] > 0 for adapter in ADAPTERS)


@with_harness
def test_choices_after_an_encoder_are_scored_as_the_harness_does(seq2seq):
    rows = [
        {"prompt": "the cat sat on", "choices": [" the mat", " a dog under a tree and then away", " tree"], "label": 0},
        {"prompt": "it was very  ", "choices": ["sad", "far away"], "label": 1},
        {"prompt": "", "choices": ["the dog", "cat"], "label": 0},
        {"prompt": "the cat " * 40, "choices": [" sat", " ran away"], "label": 0},
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lm_eval.api.instance import Instance
        from lm_eval.models.huggingface import HFLM

        def scored(model):
            one = HFLM(model.eval(), tokenizer=seq2seq.model.tokenizer, backend="seq2seq", max_length=64, batch_size=1)
            pairs = [(row["prompt"], choice) for row in rows for choice in row["choices"]]
            asked = [Instance("loglikelihood", {}, pair, at) for at, pair in enumerate(pairs)]
            return [score for score, _ in one.loglikelihood(asked, disable_tqdm=True)]

        expected = [scored(model) for model in seq2seq.one_at_a_time()]

    ready = seq2seq.prepared("choice", rows)
    passes = Passes(Applied(seq2seq.model.module, seq2seq.candidates), ready.run, 10_000)
    found = {
        (at, item): one.raw[i, j].tolist()
        for lot in ready.lots
        for one in passes.over(lot, range(len(seq2seq.candidates)))
        for i, at in enumerate(one.candidates)
        for j, item in enumerate(one.items)
    }
    for at, wanted in enumerate(expected):
        said = [score for item in range(len(rows)) for score in found[at, item]]
        assert said == pytest.approx(wanted, rel=1e-5)


@with_harness
def test_examples_before_a_question_are_those_that_the_harness_draws(ours, reference):
    expected = reference(["choice"], num_fewshot=2)

    found = values(ours(["choice"], {"num_fewshot": "2"}))

    for adapter in ADAPTERS:
        assert found[adapter, "choice"] == pytest.approx(theirs(expected[adapter], "choice"), rel=5e-6)
    assert found != values(ours(["choice"]))


@with_harness
@pytest.mark.parametrize("asked", [{"limit": 4}, {"options": {"limit": "4"}}])
def test_a_limit_takes_the_first_documents_as_the_harness_does(ours, reference, asked):
    expected = reference(["choice"], limit=4, num_fewshot=1)
    options = {"num_fewshot": "1", **asked.pop("options", {})}

    data = ours(["choice"], options, **asked)

    assert data["scores"][0]["rows"] == 4
    for adapter in ADAPTERS:
        assert values(data)[adapter, "choice"] == pytest.approx(theirs(expected[adapter], "choice"), rel=5e-6)


@with_harness
def test_even_and_odd_documents_together_are_all_of_them(ours):
    every, even, odd = (ours(["rolling"], part=part) for part in ("all", "even", "odd"))

    rows = [one["scores"][0]["rows"] for one in (every, even, odd)]
    bits = [one["scores"][0]["more"]["bits_per_byte"]["value"] for one in (every, even, odd)]
    assert rows == [6, 3, 3]
    assert min(bits[1:]) < bits[0] < max(bits[1:])


@with_harness
def test_a_task_that_the_harness_brings_runs_on_data_of_our_own(ours, reference, folder):
    import lm_eval.tasks

    arc = Path(lm_eval.tasks.__file__).parent / "arc" / "arc_easy.yaml"
    rows = [json.loads(line) for line in (folder / "choice.jsonl").read_text(encoding="utf-8").splitlines()]
    shaped = [
        {
            "question": row["prompt"],
            "choices": {"text": row["choices"], "label": list("ABCD")},
            "answerKey": "ABCD"[row["label"]],
        }
        for row in rows
    ]
    (folder / "arc.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shaped), encoding="utf-8")
    parts = ", ".join(f"{part}: {folder}/arc.jsonl" for part in ("train", "validation", "test"))
    (folder / "arc_here.yaml").write_text(
        f"include: {arc}\ntask: arc_here\ntag: null\ndataset_path: json\ndataset_name: null\n"
        f"dataset_kwargs: {{data_files: {{{parts}}}}}\n",
        encoding="utf-8",
    )
    expected = reference(["arc_here"])

    found = values(ours(["arc_here"]))

    for adapter in ADAPTERS:
        assert found[adapter, "arc_here"] == pytest.approx(theirs(expected[adapter], "arc_here"), rel=5e-6)


@with_harness
def test_the_metric_that_counts_can_be_named_and_what_is_no_sum_is_noted(ours):
    data = ours(["choice", "made"], {"metric": "exact_match"})

    assert {task["metric"] for task in data["tasks"]} == {"exact_match"}
    assert any("bleu,word, bleu cannot be made of sums" in note for note in data["notes"])
    assert any("requests lost their beginning" in note for note in data["notes"])


def test_seeds_are_the_harness_own_for_a_while_and_put_back():
    import torch

    def drawn():
        return random.random(), float(np.random.random()), float(torch.rand(1))

    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = drawn()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    with _seeded():
        one = drawn()
    with _seeded():
        two = drawn()

    assert one == two != expected
    assert drawn() == expected


@with_harness
@pytest.mark.parametrize(
    ("task", "options", "error", "said"),
    [
        ("elsewhere", {}, NotFound, "The data of elsewhere is not on this machine"),
        ("broken", {}, FormatError, "The harness cannot load broken"),
        ("drawn", {}, IncompatibleError, "only greedy decoding"),
        ("endless", {}, FormatError, "600"),
        ("corpus", {}, IncompatibleError, "bleu, chrf"),
        ("choice", {"metric": "f2"}, BadOption, "no metric 'f2'"),
        ("choice", {"num_fewshot": "-1"}, BadOption, "num_fewshot is -1"),
        ("choice", {"include_path": "nowhere"}, NotFound, "no such folder of tasks"),
        ("chioce", {}, UnknownName, "no task 'chioce'"),
        ("ai2_arc", {}, BadOption, "is a group of tasks"),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line(ours, task, options, error, said):
    with pytest.raises(error, match=re.escape(said)) as caught:
        ours([task], options)

    assert "\n" not in caught.value.message


@pytest.mark.skipif(INSTALLED, reason="the harness is installed")
def test_without_the_harness_its_extra_is_named(tmp_path):
    session = api.Session(tmp_path, workers=1)

    with pytest.raises(MissingExtra) as caught:
        api.evaluate(session, [], Asked(str(tmp_path), ["lm-eval:arc_easy"]), api.Sweep(base=True))

    assert "loramerge[lm-eval]" in caught.value.hint
    assert "lm_eval" not in sys.modules


def test_metrics_of_the_harness_are_sums_by_their_formulas():
    documents = [
        {
            ("acc", "none"): 1.0,
            ("nan", "x"): float("nan"),
            ("bits", "none"): (-8.0, 4),
            ("brier", "none"): (1, [0.25, 0.75]),
        },
        {("acc", "none"): 0.0, ("nan", "x"): 3.0, ("bits", "none"): (-4.0, 12), ("brier", "none"): (0, [0.5, 0.5])},
    ]
    functions = {"acc": "mean", "nan": "nanmean", "bits": "bits_per_byte", "brier": "brier_score"}

    found = columns(documents, functions, {"bits": False, "brier": False}, classes=2)
    observed = np.array([[found.row(values, "here") for values in documents]])
    scores = {metric.name: float(metrics.score(observed, metric)[0]) for metric in found.metrics}

    assert scores == pytest.approx(
        {"acc": 0.5, "nan,x": 3.0, "bits": 12 / 16 / np.log(2), "brier": (0.125 + 0.5) / 2}, rel=1e-12
    )
    assert [metric.higher for metric in found.metrics] == [True, True, False, False]
    assert found.left_out == []


def test_f1_and_mcc_of_the_harness_are_those_of_scikit_learn():
    from sklearn.metrics import f1_score, matthews_corrcoef

    pairs = [(0, 1), (1, 1), (1, 1), (0, 0), (1, 0)]
    documents = [{("f1", "none"): pair, ("mcc", "none"): pair} for pair in pairs]

    found = columns(documents, {"f1": "f1", "mcc": "matthews_corrcoef"}, {}, classes=2)
    observed = np.array([[found.row(values, "here") for values in documents]])
    scores = [float(metrics.score(observed, metric)[0]) for metric in found.metrics]

    true, predicted = zip(*pairs, strict=True)
    assert scores == pytest.approx([f1_score(true, predicted), matthews_corrcoef(true, predicted)])


def test_a_document_that_a_metric_has_no_value_for_has_no_weight_in_it():
    documents = [{("acc", "none"): 1.0}, {("acc", "none"): 1.0, ("em", "none"): 1.0}, {("em", "none"): 0.0}]

    found = columns(documents, {}, {}, classes=0)
    observed = np.array([[found.row(values, "here") for values in documents]])

    assert [float(metrics.score(observed, metric)[0]) for metric in found.metrics] == [1.0, 0.5]
