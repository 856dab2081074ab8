"""A small language model and a small classifier on disk, with adapters that PEFT saved, as tasks meet them."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import pytest
import torch
from bases import write_base
from peft_models import load_adapter, quiet, save_adapter
from tokenizers.processors import TemplateProcessing

from loramerge.evaluation import _files
from loramerge.evaluation.candidate import Candidate, of_adapter
from loramerge.evaluation.harness import Bench
from loramerge.evaluation.tasks._task import TASKS
from loramerge.formats._format import open_adapter
from loramerge.models.model import open_model

CLASSES = {
    "LlamaForCausalLM": "CAUSAL_LM",
    "BertForSequenceClassification": "SEQ_CLS",
    "BertModel": "FEATURE_EXTRACTION",
    "T5ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "BartForConditionalGeneration": "SEQ_2_SEQ_LM",
}
TARGETS = {
    "LlamaForCausalLM": (["q_proj", "v_proj"], ["down_proj"]),
    # Of the encoder alone, of the decoder alone (its attention to the encoder too), of both.
    "T5ForConditionalGeneration": (r"encoder\..*\.(q|wo)", r"decoder\..*\.(k|v|wi)", ["q", "v"]),
    "BartForConditionalGeneration": (r".*encoder\..*(q_proj|fc1)", r".*decoder\..*(k_proj|fc2)", ["q_proj", "v_proj"]),
}
CONFIG = {
    "T5ForConditionalGeneration": {"d_kv": 8, "d_ff": 32, "num_decoder_layers": 2, "spread": 0.3},
    "BartForConditionalGeneration": {
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 64,
        "spread": 0.3,
        "forced_eos_token_id": None,
    },
}
RANKS = (4, 2, 3)


@dataclass
class Desk:
    """A base on disk and adapters for it; the last candidate is the base itself."""

    kind: str
    folder: object
    adapters: list
    model: object
    candidates: list
    work: object

    def one_at_a_time(self):
        """The base with each adapter, as PEFT runs it, and the base alone."""
        import transformers

        def fresh():
            with quiet():
                return getattr(transformers, self.kind).from_pretrained(self.folder).eval()

        return [*(load_adapter(fresh(), adapter) for adapter in self.adapters), fresh()]

    def prepared(self, kind, rows, **options):
        """Those rows as a task of that kind."""
        data = self.data(kind, rows)
        chosen = TASKS[kind].options(**options)
        count = TASKS[kind].count(data, self.model, chosen)
        return TASKS[kind].prepare(data, range(count), self.model, chosen)

    def broken_from(self, call):
        """From that call on, what the model says is no number; a context manager."""
        calls = itertools.count(1)

        def hook(module, given, output):
            if next(calls) >= call:
                output.logits.fill_(torch.nan)

        return self.model.module.register_forward_hook(hook)

    def without_special_tokens(self):
        """Its tokenizer makes nothing of an empty text from now on."""
        self.model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
        return self

    def data(self, kind, rows):
        path = self.work / ("task.txt" if isinstance(rows, str) else "task.jsonl")
        path.write_text(rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows))
        return _files.read(f"{kind}:{path}", self.work)

    def observed(self, kind, rows, *, activations=None, **options):
        """(candidates, items, R) observations."""
        ready = self.prepared(kind, rows, **options)
        return Bench(self.model.module, rows=activations).observe(self.candidates, ready, check=False).observed


@pytest.fixture(scope="session")
def desks(tmp_path_factory):
    made = {}

    def desk(kind, work):
        if kind not in made:
            import transformers

            folder = tmp_path_factory.mktemp(kind)
            # Weights as large as these make answers that differ.
            write_base(folder / "base", kind, initializer_range=0.5, **CONFIG.get(kind, {}))

            def fresh():
                with quiet():
                    return getattr(transformers, kind).from_pretrained(folder / "base").eval()

            adapters = [
                save_adapter(
                    fresh,
                    folder / f"adapter-{seed}",
                    seed=seed,
                    r=rank,
                    target_modules=targets,
                    task_type=CLASSES[kind],
                )
                for seed, (rank, targets) in enumerate(
                    zip(RANKS, TARGETS.get(kind, (["query", "value"], ["dense"])), strict=False)
                )
            ]
            made[kind] = folder / "base", adapters
        base, adapters = made[kind]
        opened = [open_adapter(adapter) for adapter in adapters]
        candidates = [*(of_adapter(one) for one in opened), Candidate("base")]
        return Desk(kind, base, adapters, open_model(base, opened[0], tasks=[CLASSES[kind]]), candidates, work)

    return desk


@pytest.fixture
def causal(desks, tmp_path):
    """A language model with two adapters."""
    return desks("LlamaForCausalLM", tmp_path)


@pytest.fixture(params=["LlamaForCausalLM", "T5ForConditionalGeneration", "BartForConditionalGeneration"])
def speaker(request, desks, tmp_path):
    """A model that makes texts, with adapters: two, or of an encoder-decoder three."""
    return desks(request.param, tmp_path)


@pytest.fixture(params=["T5ForConditionalGeneration", "BartForConditionalGeneration"])
def seq2seq(request, desks, tmp_path):
    """An encoder-decoder with an adapter of its encoder, one of its decoder and one of both."""
    return desks(request.param, tmp_path)


@pytest.fixture
def classifier(desks, tmp_path):
    """A classifier of three classes with two adapters."""
    return desks("BertForSequenceClassification", tmp_path)


@pytest.fixture
def encoder(desks, tmp_path):
    """An encoder without a head, with two adapters."""
    return desks("BertModel", tmp_path)
