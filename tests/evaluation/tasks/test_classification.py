"""A classification is what the model with one adapter after another says of one text after another."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import sklearn.metrics as theirs
import torch

from loramerge.errors import BadOption, FormatError, IncompatibleError
from loramerge.evaluation import _files
from loramerge.evaluation.harness import Bench
from loramerge.evaluation.metrics import score
from loramerge.evaluation.tasks import classification

WORDS = ["cat", "dog", "mat", "sat", "ran", "sad", "tree", "away", "far"]
TEXTS = [
    " ".join(words) for length in (1, 2, 3, 5) for words in itertools.islice(itertools.permutations(WORDS, length), 6)
]
ROWS = [{"text": text, "label": at % 3} for at, text in enumerate(TEXTS)]


def one_by_one(desk, rows):
    """(candidates, items) logits."""
    found = []
    for model in desk.one_at_a_time():
        with torch.inference_mode():
            texts = [(row["text"], row["other"]) if "other" in row else (row["text"],) for row in rows]
            takes = [desk.model.tokenizer(*text, return_tensors="pt") for text in texts]
            found.append(
                torch.cat([model(**{k: v for k, v in one.items() if k in desk.model.takes}).logits for one in takes])
            )
    return torch.stack(found)


@pytest.mark.parametrize("activations", [1, 20, None])
def test_predictions_are_those_of_one_adapter_and_one_text_at_a_time(classifier, activations):
    found = classifier.observed("classification", ROWS, activations=activations)

    wanted = one_by_one(classifier, ROWS)
    assert len(set(map(tuple, wanted.argmax(-1).tolist()))) == 3
    assert (found[..., 0] == wanted.argmax(-1).numpy()).all()
    assert (found[..., 1] == [row["label"] for row in ROWS]).all()
    labels = torch.tensor([row["label"] for row in ROWS]).expand(3, -1)
    nll = -wanted.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    np.testing.assert_allclose(found[..., 2], nll.numpy(), rtol=0, atol=1e-4)


def test_a_pair_of_texts_is_tokenised_as_one(classifier):
    rows = [{"text": a, "other": b, "label": 0} for a, b in zip(TEXTS[:9], TEXTS[9:18], strict=True)]

    found = classifier.observed("classification", rows)

    assert (found[..., 0] == one_by_one(classifier, rows).argmax(-1).numpy()).all()


def test_texts_are_cut_to_max_length_and_that_is_told(classifier):
    ready = classifier.prepared("classification", ROWS, max_length=3)

    assert max(lot.inputs["input_ids"].shape[1] for lot in ready.lots) == 3
    assert ready.notes == (
        f"task: {sum(len(t.split()) > 1 for t in TEXTS)} texts reach 3 tokens and may have been cut",
    )


def test_the_metric_that_is_asked_for_comes_first(classifier):
    names = [
        [m.name for m in classifier.prepared("classification", ROWS, metric=name).metrics]
        for name in ("mcc", "macro_f1")
    ]

    assert names == [["MCC", "accuracy", "macro F1"], ["macro F1", "accuracy", "MCC"]]


@pytest.mark.parametrize("metric", ["roc", "f1"])
def test_a_metric_that_there_is_not_for_these_classes_is_an_error(classifier, metric):
    with pytest.raises(BadOption):
        classifier.prepared("classification", ROWS, metric=metric)


def of_folder(desk, **info):
    """The metrics' names of a task in a folder with that INFO.json, beside the usual."""
    usual = {"kind": "classification", "splits": {"test": "test.jsonl"}}
    (desk.work / "INFO.json").write_text(json.dumps(usual | info))
    (desk.work / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    data = _files.read(str(desk.work), desk.work)
    return classification.prepare(data, range(len(ROWS)), desk.model, classification.Options()).metrics


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("macro-f1", "macro F1"),
        ("Macro F1", "macro F1"),
        ("f1_macro", "macro F1"),
        ("matthews_correlation", "MCC"),
        ("accuracy+f1", "accuracy"),
        ("", "accuracy"),
    ],
)
def test_a_tasks_own_metric_may_be_written_otherwise(classifier, said, name):
    assert of_folder(classifier, metric=said)[0].name == name


@pytest.mark.parametrize("metric", ["roc", "f1"])
def test_a_tasks_own_metric_that_there_is_not_is_an_error_that_names_its_file(classifier, metric):
    with pytest.raises(BadOption) as caught:
        of_folder(classifier, metric=metric)

    assert caught.value.where.endswith("INFO.json")


@pytest.mark.parametrize(("outputs", "last"), [(3, 1), (5, 4)], ids=["in no row", "in no row taken"])
def test_scores_of_classes_that_are_predicted_and_never_true_are_those_of_scikit_learn(classifier, outputs, last):
    """Of heads that know classes 1 and the last: one of the base's size, one as large as a row not taken says."""
    rows = [row | {"label": at % 2} for at, row in enumerate(ROWS[:-1])] + [ROWS[-1] | {"label": last}]
    data, items = classifier.data("classification", rows), range(len(rows) - 1)
    own = classifier.model.module.classifier
    weight, bias = torch.zeros(outputs, 16), torch.full((outputs,), -100.0)
    weight[[1, -1]], bias[[1, -1]] = own.weight[:2], own.bias[:2]
    head = {"classifier.weight": weight, "classifier.bias": bias}
    classifier.candidates = [one.with_weights(head) for one in classifier.candidates]
    ready = classification.prepare(data, items, classifier.model, classification.Options())

    observed = Bench(classifier.model.module).observe(classifier.candidates, ready, check=False).observed

    truth = [rows[at]["label"] for at in items]
    assert set(observed[..., 0].flat) == {1, outputs - 1}
    found = {metric.name: score(observed, metric) for metric in ready.metrics}
    for name, metric in (
        ("macro F1", lambda *sides: theirs.f1_score(*sides, average="macro")),
        ("MCC", theirs.matthews_corrcoef),
    ):
        np.testing.assert_allclose(found[name], [metric(truth, one) for one in observed[..., 0]], atol=1e-12)


@pytest.mark.parametrize("pairs", [True, False])
def test_rows_of_one_text_among_pairs_are_an_error_with_the_first_such_line(classifier, pairs):
    one, two = {"text": "cat", "label": 0}, {"text": "cat", "other": "dog", "label": 0}
    usual, other = (two, one) if pairs else (one, two)

    with pytest.raises(FormatError, match="second text") as caught:
        classifier.prepared("classification", [usual, usual, other, usual])

    assert caught.value.where.endswith("task.jsonl:3")


@pytest.mark.parametrize("label", [-1, "1", None, True, 1.0])
def test_a_label_that_is_none_is_an_error_with_its_line(classifier, label):
    with pytest.raises(FormatError) as caught:
        classifier.prepared("classification", [ROWS[0], {"text": "cat", "label": label}])

    assert caught.value.where.endswith("task.jsonl:2")


def test_a_head_with_fewer_classes_than_the_task_is_an_error(classifier):
    with pytest.raises(IncompatibleError, match="The task has 5 classes, and the head 3"):
        classifier.observed("classification", [*ROWS, {"text": "cat", "label": 4}])


def test_heads_of_different_numbers_of_classes_do_not_go_together(classifier):
    wide = {"classifier.weight": torch.randn(5, 16), "classifier.bias": torch.randn(5)}
    classifier.candidates[0] = classifier.candidates[0].with_weights(wide)

    with pytest.raises(IncompatibleError, match="heads of 5 and 3 outputs"):
        classifier.observed("classification", ROWS)
