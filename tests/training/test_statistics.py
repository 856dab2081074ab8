"""What is measured is what a plain computation over all tokens gives, however the text is cut into batches."""

from __future__ import annotations

import random
import shutil
import sys
import warnings
from contextlib import ExitStack

import pytest
import torch
from bases import LINES

from loramerge import api
from loramerge.core.provenance import sha256_file
from loramerge.errors import BadOption, IncompatibleError, MissingExtra, ShapeMismatch, UnsupportedAdapter
from loramerge.formats._format import open_adapter
from loramerge.formats._statistics import read_statistics
from loramerge.models.model import open_model
from loramerge.models.text import tokenized
from loramerge.training.choose import choose
from loramerge.training.statistics import Measurement, log_likelihood

QV = ("*.q_proj", "*.v_proj")


def measured(session, **what):
    """The statistics of one call, read again."""
    made = api.stats(session, what.pop("ref", None), text=session.folder / "lines.txt", force=True, **what)
    return read_statistics(made.path)


def updated(model, adapter):
    """The model with the adapter's updates added to its weights, and its head put in."""
    weights = dict(model.named_modules())
    for name in adapter.modules:
        layer, delta = weights[name], adapter.load(name).to(dtype=torch.float64).dense()
        layer.weight.data += delta.T if type(layer).__name__ == "Conv1D" else delta
    for key, spec in adapter.extras.items():
        assert spec.kind == "saved"
        model.get_parameter(key).data.copy_(adapter.load_extra(key))


def plainly(kind, base, lines, names, adapter=None, **config):
    """Gram matrices by hooks on a float64 model, all lines padded into one batch and padding left out after."""
    import transformers

    model = getattr(transformers, kind).from_pretrained(base, dtype=torch.float64, **config).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base, padding_side="right")
    if adapter is not None:
        updated(model, adapter)
    encoded = [tokenizer(line)["input_ids"] for line in lines]
    width = max(map(len, encoded))
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids in encoded])
    padded = torch.tensor([ids + [0] * (width - len(ids)) for ids in encoded])
    found, modules = {}, dict(model.named_modules())
    for name in names:
        modules[name].register_forward_hook(lambda _, given, __, name=name: found.update({name: given[0][mask.bool()]}))
    with torch.no_grad():
        model(input_ids=padded, attention_mask=mask)
    return {name: x.T @ x / len(x) for name, x in found.items()}, int(mask.sum())


def assert_near(found, want, share=1e-5):
    assert want.norm() > 0
    assert (found - want).norm() <= share * want.norm()


def assert_grams(statistics, want):
    assert {module for _, module in statistics.shapes} == set(want)
    for name, gram in want.items():
        assert_near(statistics.load("grams", name), gram)


@pytest.mark.parametrize("kind", ["LlamaForCausalLM", "GPT2LMHeadModel", "BertForSequenceClassification"])
def test_a_gram_matrix_is_the_mean_over_all_tokens_without_padding(session, base_of, kind):
    patterns = ["*.q_proj", "*.down_proj", "*.c_attn", "*.c_fc", "*.query", "*.output.dense"]
    patterns = {"L": patterns[:2], "G": patterns[2:4], "B": patterns[4:]}[kind[0]]

    found = measured(session, base=str(base_of(kind)), modules=patterns)

    want, tokens = plainly(kind, base_of(kind), LINES, [module for _, module in found.shapes])
    assert (found.tokens, found.base, found.adapter) == (tokens, base_of(kind).name, None)
    assert len(found.shapes) >= 4
    assert_grams(found, want)


def test_a_real_language_model_with_its_adapter_is_measured_as_it_computes(session, shared):
    ref = shared / "data/trained/stories260k-oz-r8"
    base = shared / "data/models/stories260k"
    lines = [line for line in (shared / "data/tasks/lm-oz/test.txt").read_text().splitlines() if line.strip()][:12]
    (session.folder / "lines.txt").write_text("\n".join(lines))

    found = measured(session, ref=str(ref), base=str(base))

    adapter = open_adapter(ref)
    want, tokens = plainly("AutoModelForCausalLM", base, lines, adapter.modules, adapter)
    assert (found.tokens, found.base, found.adapter) == (tokens, "stories260k", "stories260k-oz-r8")
    assert_grams(found, want)


def test_a_real_classifier_with_its_adapter_and_head_is_measured_as_it_computes(session, shared, minilm):
    ref = shared / "data/trained/minilm-trec-patterns"

    found = measured(session, ref=str(ref), base=str(minilm), fisher=True)

    adapter = open_adapter(ref)
    labels = adapter.extras["classifier.bias"].shape[0]
    want, _ = plainly("AutoModelForSequenceClassification", minilm, LINES, adapter.modules, adapter, num_labels=labels)
    assert_grams(found, want)
    first = next(iter(adapter.modules))
    assert_near(found.load("fisher_in", first), want[first].diagonal())
    assert all(found.load("fisher_out", name).sum() > 0 for name in adapter.modules)


def test_an_adapter_of_dora_is_measured_with_its_magnitudes(session, shared, minilm):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    ref = shared / "data/trained/minilm-sst2-r8-dora"
    last = "bert.encoder.layer.5.attention.self.value"

    found = measured(session, ref=str(ref), base=str(minilm), modules=[last]).load("grams", last)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of PEFT and transformers about each other
        model = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(minilm), str(ref)).eval()
    rows = []
    model.get_submodule(f"base_model.model.{last}").register_forward_hook(lambda _, x, __: rows.append(x[0][0]))
    tokenizer = open_model(minilm).tokenizer
    with torch.no_grad():
        for line in LINES:
            model(**tokenizer(line, return_tensors="pt"))
    x = torch.cat(rows).double()
    assert_near(found, x.T @ x / len(x))


def test_neither_batch_size_nor_memory_matters(session, base_of):
    base = str(base_of("BertForSequenceClassification"))
    tight = api.Session(session.folder, max_memory=10_000)

    found = [
        measured(session, base=base, modules=["*.query", "*.dense"], batch_size=1),
        measured(session, base=base, modules=["*.query", "*.dense"], batch_size=64),
        measured(tight, base=base, modules=["*.query", "*.dense"]),
    ]

    for other in found[1:]:
        assert other.shapes == found[0].shapes
        for key in other.shapes:
            assert_near(other.load(*key), found[0].load(*key))


def test_the_same_call_gives_the_same_bytes(session, base_of):
    base = str(base_of("LlamaForCausalLM"))
    text = session.folder / "lines.txt"

    for name in ("one", "two"):
        api.stats(session, base=base, text=text, modules=["*"], fisher=True, out=session.folder / name)

    assert sha256_file(session.folder / "one") == sha256_file(session.folder / "two")


# The Fisher information


@pytest.fixture
def work(base_of):
    """work(class, patterns, ...) -> a measurement of a tiny model over the lines."""

    def make(kind, patterns, *, seed=0, batch_size=8):
        model = open_model(base_of(kind))
        batches = tokenized(model.tokenizer, LINES, batch_size=batch_size, max_length=64)
        return Measurement(model, batches, choose(model, None, patterns), fisher=True, seed=seed)

    return make


def squares(work, of):
    """Means over all tokens of squared gradients of `of(logits, tokens)` at each module's output, line by line."""
    total = dict.fromkeys(work.modules, 0)
    for ids in (line for batch in work.batches for line in batch["input_ids"].split(1)):
        outputs, logits = outputs_of(work, ids)
        for weight, value in of(logits, ids):
            gradients = torch.autograd.grad(value, list(outputs.values()), retain_graph=True)
            for name, gradient in zip(outputs, gradients, strict=True):
                total[name] = total[name] + weight * gradient[0].double().square().sum(0)
    return {name: value / work.batches.tokens for name, value in total.items()}


def outputs_of(work, ids):
    """The outputs of the modules, which gradients reach, and the logits."""
    model, outputs = work.model.module, {}
    with ExitStack() as stack:
        for name, module in work.modules.items():
            hook = module.register_forward_hook(lambda _, __, y, name=name: outputs.update({name: y}))
            stack.enter_context(hook)
        return outputs, model(inputs_embeds=model.get_input_embeddings()(ids).requires_grad_()).logits


def test_fisher_of_a_causal_model_squares_the_gradient_of_the_texts_likelihood(work):
    made = work("LlamaForCausalLM", QV)

    found = {(kind, name): tensor for kind, name, tensor in made.collect()}

    want = squares(made, lambda logits, ids: [(1, log_likelihood("CAUSAL_LM", logits, ids, random.Random(0)))])
    for name in made.modules:
        assert_near(found["fisher_out", name], want[name], 1e-4)
        assert found["fisher_in", name].equal(found["grams", name].diagonal())


def test_the_likelihood_of_a_causal_model_is_what_its_own_loss_says(base_of):
    model = open_model(base_of("LlamaForCausalLM"))
    ids = torch.tensor([model.tokenizer(LINES[0])["input_ids"]])

    with torch.no_grad():
        output = model.module(input_ids=ids, labels=ids)
        found = log_likelihood("CAUSAL_LM", output.logits, ids, random.Random(0))

    torch.testing.assert_close(found, -output.loss * (ids.shape[1] - 1))


def test_fisher_of_a_classifier_is_the_mean_over_its_own_predictions(work):
    made = work("BertForSequenceClassification", ("*.query", "*.value"))

    def each(logits, ids):
        predicted = logits.log_softmax(-1)[0]
        return [(value.exp().detach(), value) for value in predicted]

    want = squares(made, each)

    draws = 60
    found = dict.fromkeys(made.modules, 0)
    for seed in range(draws):
        again = Measurement(made.model, made.batches, made.modules, fisher=True, seed=seed)
        for kind, name, tensor in again.collect():
            if kind == "fisher_out":
                found[name] = found[name] + tensor / draws
    for name in made.modules:
        assert float(found[name].sum() / want[name].sum()) == pytest.approx(1, rel=0.2)


def test_labels_are_drawn_as_often_as_they_are_predicted():
    logits = torch.tensor([[0.7, 0.2, 0.1]]).log().repeat(5000, 1).requires_grad_()

    log_likelihood("SEQ_CLS", logits, torch.zeros(5000, 4, dtype=torch.int64), random.Random(1)).backward()

    drawn = (logits.grad > 0).double().mean(0)  # one-hot - p
    torch.testing.assert_close(drawn, torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64), rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [("BertForSequenceClassification", "*.1.*.dense"), ("GPT2ForSequenceClassification", "*.1.*.c_fc")],
)
def test_fisher_is_the_same_for_any_batch_size_and_another_for_another_seed(work, kind, pattern):
    found = [
        {kind + name: tensor for kind, name, tensor in work(kind, [pattern], **how).collect()}
        for how in ({}, {"batch_size": 1}, {"seed": 1})
    ]

    for key, tensor in found[0].items():
        assert_near(tensor, found[1][key], 1e-4)
    name = next(key for key in found[0] if key.startswith("fisher_out"))
    assert (found[0][name] - found[2][name]).norm() > 0.01 * found[0][name].norm()


def test_an_embeddings_inputs_are_the_frequencies_of_tokens(session, shared):
    ref = shared / "data/trained/stories260k-oz-r16-embed"
    base = shared / "data/models/stories260k"

    made = api.stats(session, str(ref), base=str(base), text=session.folder / "lines.txt", fisher=True)

    found = read_statistics(made.path)
    ids = [token for line in LINES for token in open_model(base).tokenizer(line)["input_ids"]]
    want = torch.tensor(ids).bincount(minlength=512) / len(ids)
    assert not found.has("grams", "model.embed_tokens")
    assert_near(found.load("fisher_in", "model.embed_tokens"), want.double())
    assert found.shapes["fisher_out", "model.embed_tokens"] == (64,)
    assert "No Gram matrix is made of model.embed_tokens." in made.notes


# What is measured, and over what


def test_like_measures_the_modules_of_an_adapter_without_its_update(session, shared):
    base = str(shared / "data/models/stories260k")
    ref = str(shared / "data/trained/stories260k-oz-r8")

    like, alone = measured(session, base=base, like=ref), measured(session, base=base, modules=["model.*_proj"])

    assert (like.adapter, like.base) == (None, "stories260k")
    assert like.shapes == alone.shapes
    assert all(like.load(*key).equal(alone.load(*key)) for key in like.shapes)


def test_max_tokens_ends_the_text_and_max_length_its_lines(session, base_of):
    base, text = str(base_of("LlamaForCausalLM")), session.folder / "lines.txt"
    how = {"base": base, "text": text, "modules": QV, "force": True}

    few, short, one = (
        api.stats(session, **how, **more) for more in ({"max_tokens": 12}, {"max_length": 3}, {"max_tokens": 1})
    )

    assert (few.lines, few.tokens, few.notes) == (2, 11, ())
    assert (short.lines, short.tokens) == (5, 14)
    assert short.notes == ("4 lines were cut to 3 tokens.",)
    assert (one.lines, one.tokens) == (1, 7)


def test_random_weights_are_told(session, base_of):
    made = api.stats(
        session,
        base=str(base_of("BertModel")),
        like=str(write_classifier(session)),
        text=session.folder / "lines.txt",
    )

    assert made.notes == ("Random, for they are in neither base nor adapter: classifier.bias, classifier.weight.",)


def write_classifier(session, modules=None, **config):
    from adapters import write_adapter

    names = modules or {"bert.encoder.layer.0.attention.self.query": (16, 16)}
    return write_adapter(session.folder / "mine", modules=names, **{"task_type": "SEQ_CLS", **config})


def test_modules_that_were_given_nothing_are_zero_and_told(work):
    made = work("LlamaForCausalLM", QV)
    spare = Measurement(made.model, made.batches, {"spare": torch.nn.Linear(3, 2)}, fisher=True)

    found = {kind: tensor for kind, _, tensor in spare.collect()}

    assert spare.unused == ["spare"]
    assert all(not tensor.any() for tensor in found.values())
    assert {kind: tensor.shape for kind, tensor in found.items()} == {
        "grams": (3, 3),
        "fisher_in": (3,),
        "fisher_out": (2,),
    }


def test_what_a_layer_is_given_once_a_line_counts_once_a_line(session, base_of):
    found = measured(session, base=str(base_of("BertModel")), modules=["pooler.dense"]).load("grams", "pooler.dense")

    model = open_model(base_of("BertModel"))
    with torch.no_grad():
        pooled = [model.module(**model.tokenizer(line, return_tensors="pt"))[0][0, 0] for line in LINES]
    x = torch.stack(pooled).double()
    assert_near(found, x.T @ x / len(LINES))


# What cannot be


def test_an_encoder_without_a_head_has_no_likelihood(session, base_of):
    with pytest.raises(BadOption, match="an encoder without a head has none"):
        measured(session, base=str(base_of("BertModel")), modules=["*.query"], fisher=True)


def test_a_head_that_nobody_trained_has_no_likelihood(session, base_of):
    with pytest.raises(BadOption, match=r"classifier.bias, classifier.weight are in neither base nor adapter"):
        measured(session, ref=str(write_classifier(session)), base=str(base_of("BertModel")), fisher=True)


def test_an_adapter_whose_head_was_left_out_is_measured_on_a_model_that_has_one(session, base_of):
    with_task, without = (
        measured(session, ref=str(write_classifier(session, task_type=task)), base=str(base_of("BertModel")))
        for task in ("SEQ_CLS", None)
    )

    assert with_task.shapes == {("grams", "bert.encoder.layer.0.attention.self.query"): (16, 16)}
    assert all(without.load(*key).equal(with_task.load(*key)) for key in with_task.shapes)


def test_a_base_that_lacks_the_modules_is_refused(session, base_of):
    ref = str(write_classifier(session, {"bert.encoder.layer.9.attention.self.query": (16, 16)}))

    with pytest.raises(IncompatibleError, match=r"lacks 1 of the 1 modules of mine: bert.encoder.layer.9") as caught:
        measured(session, ref=ref, base=str(base_of("BertModel")))

    assert "bert.encoder.layer.0.attention.self.query" in caught.value.hint


def test_a_base_whose_modules_are_others_is_refused(session, base_of):
    ref = str(write_classifier(session, {"bert.encoder.layer.0.attention.self.query": (16, 8)}))

    with pytest.raises(ShapeMismatch, match="is 16×16 and 16×8 in base and adapter"):
        measured(session, ref=ref, base=str(base_of("BertModel")))


def test_a_base_of_another_family_has_no_weights_for_the_modules(session, base_of):
    other = shutil.copytree(base_of("BertModel"), session.folder / "other")
    shutil.copy(base_of("LlamaForCausalLM") / "model.safetensors", other)

    with pytest.raises(IncompatibleError, match=r"The base has no weights for bert\.encoder\.layer\.0"):
        measured(session, ref=str(write_classifier(session)), base=str(other))


def test_a_task_that_text_alone_is_not_enough_for_is_refused(session, base_of):
    ref = str(write_classifier(session, task_type="SEQ_2_SEQ_LM"))

    with pytest.raises(UnsupportedAdapter, match="SEQ_2_SEQ_LM cannot be run over plain text"):
        measured(session, ref=ref, base=str(base_of("BertModel")))


@pytest.mark.parametrize("task", ["SEQ_2_SEQ_LM", None])
def test_an_encoder_decoder_is_refused(session, base_of, task):
    modules = {"encoder.block.0.layer.0.SelfAttention.q": (128, 16)}
    like = write_classifier(session, modules, task_type=task)

    with pytest.raises(UnsupportedAdapter, match="An encoder-decoder cannot be run over plain text"):
        measured(session, like=str(like), base=str(base_of("T5ForConditionalGeneration")))


def test_without_the_extra_the_error_says_what_to_install(session, base_of, monkeypatch):
    base = str(base_of("BertModel"))
    monkeypatch.setitem(sys.modules, "transformers", None)

    with pytest.raises(MissingExtra, match="needs transformers") as caught:
        measured(session, base=base, modules=["*"])

    assert caught.value.hint == "pip install 'loramerge[models]'"


def test_a_base_may_lie_on_the_hub(session, base_of, hub):
    from huggingface_hub import HfApi

    client = HfApi(hub.endpoint, hub.token)
    client.create_repo("me/base")
    client.upload_folder(repo_id="me/base", folder_path=base_of("LlamaForCausalLM"))
    online = api.Session(session.folder, endpoint=hub.endpoint, token=hub.token, cache=session.folder / "cache")

    found = measured(online, base="me/base", modules=QV)
    offline = api.Session(session.folder, endpoint=hub.endpoint, cache=session.folder / "cache", offline=True)
    again = measured(offline, base="me/base", modules=QV)

    assert found.base == "me/base"
    assert all(found.load(*key).equal(again.load(*key)) for key in found.shapes)
