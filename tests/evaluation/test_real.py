"""Trained adapters on the tasks they were trained for: PEFT's predictions, and the scores of their training."""

from __future__ import annotations

import json
from collections import defaultdict

import numpy as np
import pytest
import torch
from peft_models import load_adapter, quiet

from loramerge.evaluation import _files
from loramerge.evaluation.candidate import of_adapter
from loramerge.evaluation.harness import Bench
from loramerge.evaluation.metrics import score
from loramerge.evaluation.tasks._task import TASKS
from loramerge.formats._format import open_adapter
from loramerge.models.model import open_model

OPTIONS = {"classification": {"max_length": 64}, "perplexity": {"chars": 60_000}}
FEW = {"classification": 12, "perplexity": 3}


class Real:
    """The trained adapters of one task, with their base and the task's test file."""

    def __init__(self, shared, minilm, task, base):
        self.task, self.base = task, base
        self.folders = [f for f in trained(shared) if told(f)["task"] == task and told(f)["base"] == base]
        self.path = minilm if base == "minilm-l6-v2" else shared / "data/models" / base
        self.data = _files.read(str(shared / "data/tasks" / task), shared)
        self.adapters = [open_adapter(folder) for folder in self.folders]
        self.candidates = [of_adapter(adapter) for adapter in self.adapters]
        self.model = open_model(self.path, self.adapters[0])

    def prepared(self, items=None):
        kind = TASKS[self.data.kind]
        options = kind.options(**OPTIONS[self.data.kind])
        count = kind.count(self.data, self.model, options)
        return kind.prepare(self.data, range(min(count, items or count)), self.model, options)

    def observed(self, candidates, items=None):
        return Bench(self.model.module).observe(candidates, self.prepared(items)).observed

    def peft(self, folder):
        """The base with an adapter, as PEFT runs it."""
        import transformers

        adapter = open_adapter(folder)
        kind = "AutoModelForSequenceClassification" if self.data.kind == "classification" else "AutoModelForCausalLM"
        heads = [spec.shape[0] for spec in adapter.extras.values() if spec.kind == "saved"]
        more = {"num_labels": heads[0]} if heads else {}
        with quiet():
            model = getattr(transformers, kind).from_pretrained(self.path, **more)
        return load_adapter(model, folder)


def trained(shared):
    return sorted(path.parent for path in (shared / "data/trained").glob("*/metrics.json"))


def told(folder):
    return json.loads((folder / "metrics.json").read_text())


TASKS_OF = [
    ("sst2", "minilm-l6-v2"),
    ("subj", "minilm-l6-v2"),
    ("trec", "minilm-l6-v2"),
    ("sms-spam", "minilm-l6-v2"),
    ("tweet-irony", "minilm-l6-v2"),
    ("banking77", "minilm-l6-v2"),
    ("lm-oz", "stories260k"),
    ("lm-oz", "babyllama-tok105"),
    ("lm-shakespeare", "stories260k"),
    ("lm-shakespeare", "babyllama-tok105"),
]
each_task = pytest.mark.parametrize(("task", "base"), TASKS_OF)


@pytest.fixture
def real(shared, request):
    def make(task, base):
        minilm = request.getfixturevalue("minilm") if base == "minilm-l6-v2" else None
        return Real(shared, minilm, task, base)

    return make


def test_no_trained_adapter_is_left_out(shared):
    found = defaultdict(int)
    for folder in trained(shared):
        found[told(folder)["task"], told(folder)["base"]] += 1

    assert set(found) == set(TASKS_OF)
    assert sum(found.values()) == 16


def logits_of(model, lot):
    inputs = {name: value for name, value in lot.inputs.items() if name != "label"}
    with torch.inference_mode():
        return model(**inputs).logits


@each_task
def test_together_they_say_what_peft_says_of_one_after_another(real, task, base):
    it = real(task, base)
    ready = it.prepared(FEW[it.data.kind])

    found = it.observed(it.candidates, FEW[it.data.kind])

    for at, folder in enumerate(it.folders):
        model, wanted = it.peft(folder), np.empty(found.shape[1:2])
        for lot in ready.lots:
            for place, item in enumerate(lot.items):
                one = lot.part(place, place + 1)
                logits = logits_of(model, one)
                if it.data.kind == "classification":
                    wanted[item] = int(logits.argmax(-1))
                else:
                    loss = torch.nn.functional.cross_entropy(logits[0, :-1], one.inputs["input_ids"][0, 1:])
                    wanted[item] = float(loss) * (logits.shape[1] - 1)
        if it.data.kind == "classification":
            assert found[at, :, 0].tolist() == wanted.tolist(), folder.name
        else:
            np.testing.assert_allclose(found[at, :, 0], wanted, rtol=2e-6, err_msg=folder.name)


@pytest.mark.parametrize(("task", "base"), [("sst2", "minilm-l6-v2"), ("lm-oz", "stories260k")])
def test_a_plain_adapter_alone_gives_the_bits_of_peft(real, task, base):
    from loramerge.evaluation.applied import Applied

    it = real(task, base)
    (lot, *_) = it.prepared(4).lots
    plain = [at for at, one in enumerate(it.candidates) if not one.magnitudes and "r8" in one.name]
    assert plain

    for at in plain:
        with torch.inference_mode(), Applied(it.model.module, it.candidates).on([at]):
            inputs = {name: value for name, value in lot.inputs.items() if name != "label"}
            found = it.model.module(**inputs).logits

        assert found.equal(logits_of(it.peft(it.folders[at]), lot)), it.folders[at].name


@pytest.mark.slow
@each_task
def test_scores_are_those_of_the_training(real, task, base):
    it = real(task, base)
    rows = told(it.folders[0]).get("test_rows")

    found = it.observed(it.candidates, rows)

    # The metric of the training is not the task's own everywhere.
    metric = next(m for m in it.prepared(rows).metrics if told(it.folders[0])["metric"].startswith(m.name))
    values = score(found, metric)
    for folder, value in zip(it.folders, values, strict=True):
        assert found.shape[1] == told(folder).get("test_rows", told(folder).get("test_blocks"))
        assert value == pytest.approx(told(folder)["value"], rel=1e-5 if rows is None else 1e-12), folder.name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "base"), [("sst2", "minilm-l6-v2"), ("subj", "minilm-l6-v2"), ("lm-oz", "stories260k")]
)
def test_company_changes_no_prediction(real, task, base):
    it = real(task, base)

    together = it.observed(it.candidates, 60)
    alone = np.concatenate([it.observed([one], 60) for one in it.candidates])

    if it.data.kind == "classification":
        assert (together[..., 0] == alone[..., 0]).all()
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)
