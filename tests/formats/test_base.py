"""Weights of a base, and DoRA made exact with them: PEFT's own merge is what is compared with."""

from __future__ import annotations

import json
import pickle
import warnings
from dataclasses import replace

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from loramerge.core.adapter import ModuleSpec
from loramerge.core.lowrank import LowRank
from loramerge.errors import (
    BadTensor,
    BaseMismatch,
    FormatError,
    LoramergeError,
    NotFound,
    ShapeMismatch,
    UnsafePickle,
    UnsupportedAdapter,
)
from loramerge.formats import _base
from loramerge.formats import peft as ours
from loramerge.formats._base import open_base
from loramerge.formats._dora import exact, with_base


class Parts(nn.Module):
    """One module of each class that PEFT has a DoRA for."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.v, self.c_attn = nn.Linear(8, 8), nn.Linear(8, 6), Conv1D(12, 8)
        self.conv1, self.conv2, self.conv3 = nn.Conv1d(4, 6, 1), nn.Conv2d(4, 8, 3), nn.Conv3d(2, 4, 2)
        self.emb = nn.Embedding(10, 8)


def small_gpt2():
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=8, n_embd=8, n_layer=2, n_head=2))


def adapt(model, folder, targets, **config):
    """A DoRA adapter with random numbers in all of it, saved by PEFT and read by us."""
    generator = torch.Generator().manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = {"r": 2, "lora_alpha": 3, "use_dora": True, **config}
        wrapped = peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, **config))
        for parameter in (p for p in wrapped.parameters() if p.requires_grad):
            parameter.data = torch.randn(parameter.shape, generator=generator)
        wrapped.save_pretrained(str(folder))
    return ours.read(folder)


def save_base(folder, model):
    """The model's weights as transformers names them; returns the folder."""
    folder.mkdir()
    save_file({key: tensor.clone() for key, tensor in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def merged(model, folder):
    """Module → PEFT's merged weight less the base's, in float64."""
    model = model.double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        after = dict(peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload().named_parameters())
    return {name.removesuffix(".weight"): after[name].detach() - before[name] for name in before}


def assert_exact(adapter, want, flipped=()):
    for name, spec in adapter.modules.items():
        found = want[name].T if name in flipped else want[name].flatten(1)
        torch.testing.assert_close(adapter.load(name).dense(), found, rtol=1e-9, atol=1e-12)
        assert found.abs().max() > 0.1
        assert not spec.dora


@pytest.mark.parametrize("targets", [["q", "v"], ["c_attn"], ["conv1", "conv2", "conv3"], ["emb"]], ids=str)
@pytest.mark.parametrize("tile", [1, 20, _base._TILE])
def test_an_exact_update_is_what_peft_merges(tmp_path, targets, tile, monkeypatch):
    monkeypatch.setattr(_base, "_TILE", tile)
    adapter = adapt(Parts(), tmp_path / "adapter", targets)

    made = with_base(adapter, open_base(save_base(tmp_path / "base", Parts())))

    assert_exact(made, merged(Parts(), adapter.path), flipped=("emb", "c_attn"))


@pytest.fixture
def gpt2(tmp_path):
    """A DoRA adapter on every projection of a small GPT-2, its square ones too."""
    return adapt(small_gpt2(), tmp_path / "adapter", ["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)


@pytest.mark.parametrize("declared", [True, False])
def test_a_square_conv1d_is_told_by_its_neighbours_whatever_the_config_says(gpt2, tmp_path, declared):
    adapter = replace(gpt2, config={**gpt2.config, "fan_in_fan_out": declared})

    made = with_base(adapter, open_base(save_base(tmp_path / "base", small_gpt2().transformer)))

    assert any(spec.out == spec.in_ for spec in made.modules.values())
    assert_exact(made, merged(small_gpt2(), gpt2.path), flipped=made.modules)


def test_shards_are_read_as_one_file_is(gpt2, tmp_path):
    small_gpt2().save_pretrained(str(tmp_path / "base"), max_shard_size="2KB")

    found = open_base(tmp_path / "base")

    assert len(found.files) > 3
    assert found.files[0] == "model.safetensors.index.json"
    assert_exact(with_base(gpt2, found), merged(small_gpt2(), gpt2.path), flipped=gpt2.modules)


def test_one_file_of_a_folder_is_a_base_too(gpt2, tmp_path):
    save_base(tmp_path / "base", small_gpt2())
    (tmp_path / "base" / "model.safetensors").rename(tmp_path / "base" / "weights.safetensors")

    made = with_base(gpt2, open_base(tmp_path / "base" / "weights.safetensors"))

    assert_exact(made, merged(small_gpt2(), gpt2.path), flipped=made.modules)


@pytest.fixture
def dora(tmp_path):
    """An adapter on a square and another linear module, and the folder of its base."""
    return adapt(Parts(), tmp_path / "adapter", ["q", "v"]), save_base(tmp_path / "base", Parts())


def test_it_holds_the_units_of_a_dense_matrix_and_keeps_its_rank(dora):
    adapter, folder = dora

    made = with_base(adapter, open_base(folder))

    spec = made.modules["v"]
    assert (spec.rank, spec.held, made.load("v").rank) == (2, 6, 6)
    assert spec.nbytes == adapter.modules["v"].nbytes


def test_an_adapter_with_its_base_can_be_sent_to_another_process(dora):
    adapter, folder = dora
    made = with_base(adapter, open_base(folder))

    sent = pickle.loads(pickle.dumps(made))

    assert all(sent.load(name).dense().equal(made.load(name).dense()) for name in made.modules)


def test_adapters_without_dora_are_left_as_they_are(tmp_path):
    adapter = adapt(Parts(), tmp_path / "adapter", ["q"], use_dora=False)

    found = with_base(adapter, open_base(save_base(tmp_path / "base", Parts())))

    assert found.modules == adapter.modules
    assert found.load("q").b.equal(adapter.load("q").b)


# Names


def square(*names):
    return [ModuleSpec(name, 4, 4, 2, 1.0) for name in names]


@pytest.fixture
def named(tmp_path):
    """named("x.q", …) -> a base with a 4×4 weight for each path."""

    def make(*paths):
        folder = tmp_path / f"base-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        save_file({f"{path}.weight": torch.eye(4) for path in paths}, folder / "model.safetensors")
        return open_base(folder)

    return make


@pytest.mark.parametrize(
    ("modules", "paths"),
    [
        (["l.0.q", "l.1.q"], ["l.0.q", "l.1.q"]),
        (["bert.l.0.q", "bert.l.1.q"], ["l.0.q", "l.1.q"]),
        (["l.0.q", "l.1.q"], ["bert.l.0.q", "bert.l.1.q"]),
        (["l.0.q"], ["l.0.q", "bert.l.0.q"]),
        (["a.b.l.0.q"], ["l.0.q", "b.l.0.q"]),
        # One of two prefixes has them all.
        (["l.0.q", "l.1.q"], ["text.l.0.q", "text.l.1.q", "image.l.0.q"]),
    ],
)
def test_one_prefix_may_be_added_or_taken_off(named, modules, paths):
    found = named(*paths).weights(square(*modules))

    first = {m: next(p for p in sorted(paths, reverse=True) if p.endswith(m) or m.endswith(p)) for m in modules}
    expected = {m: m if m in paths else first[m] for m in modules}
    if modules == ["a.b.l.0.q"]:
        expected = {"a.b.l.0.q": "b.l.0.q"}
    assert {name: weight.key for name, weight in found.items()} == {m: f"{p}.weight" for m, p in expected.items()}


@pytest.mark.parametrize(
    ("modules", "paths", "message"),
    [
        (["l.0.q", "l.9.q"], ["l.0.q", "l.1.q"], r"1 of 2 modules: l\.9\.q"),
        (["l.0.q"], ["text.l.0.q", "image.l.0.q"], r"those in image\., text\."),
        (["pooler.dense", "l.0.q"], ["dense", "x.l.0.q"], "no weight for 1 of 2"),
        (["encoder.l.0.q"], ["decoder.l.0.q"], "no weight for 1 of 1"),
    ],
)
def test_what_a_base_lacks_is_named(named, modules, paths, message):
    weights = named(*paths)

    with pytest.raises(BaseMismatch, match=message) as caught:
        weights.weights(square(*modules))

    assert caught.value.where == str(weights.folder)
    assert caught.value.hint


# Bad input


def changed(folder, **tensors):
    found = load_file(folder / "model.safetensors")
    save_file({**found, **{f"{k}.weight": v for k, v in tensors.items()}}, folder / "model.safetensors")


def cut(folder):
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-10])


def as_pickle(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def indexed(folder, **weight_map):
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def configured(folder):
    (folder / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "gptq"}}))


NAN = torch.eye(8).index_put((torch.tensor(3), torch.tensor(5)), torch.tensor(float("nan")))
BAD = {
    "nothing there": (lambda f: (f / "model.safetensors").unlink(), NotFound, "no weights of a base model"),
    "cut off": (cut, FormatError, "cut off"),
    "a pickle": (as_pickle, UnsafePickle, "only safetensors"),
    "quantised by its config": (configured, FormatError, "quantised"),
    "quantised by its type": (lambda f: changed(f, q=torch.ones(8, 8, dtype=torch.uint8)), BadTensor, "stored as U8"),
    "another shape": (lambda f: changed(f, q=torch.ones(8, 9)), ShapeMismatch, r"8×9, and .* \(linear\) is 8×8"),
    "NaN": (lambda f: changed(f, q=NAN), BadTensor, r"q\.weight\[0:8\] holds 1 elements"),
    "an index to nowhere": (lambda f: indexed(f, x="b.safetensors"), FormatError, "'b.safetensors', which is not"),
    "an index to elsewhere": (lambda f: indexed(f, x="../base/a.safetensors"), FormatError, "which is not there"),
    "an index that is wrong": (lambda f: indexed(f, x="a.safetensors"), FormatError, "has no x"),
    "an empty index": (indexed, FormatError, "no weight_map"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_base_is_refused_by_name(dora, case):
    adapter, folder = dora
    spoil, kind, message = BAD[case]
    spoil(folder)

    with pytest.raises(kind, match=message) as caught:
        with_base(adapter, open_base(folder)).load("q")

    assert isinstance(caught.value, LoramergeError)
    assert str(folder) in caught.value.where + caught.value.message
    assert caught.value.hint


def test_a_row_of_zeros_has_no_direction_but_a_magnitude_of_zero(dora):
    adapter, folder = dora
    changed(folder, q=torch.eye(8) * torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1]))
    nothing = LowRank(b=torch.zeros(8, 2), a=torch.ones(2, 8))
    weight = open_base(folder).weights([adapter.modules["q"]])["q"]

    still = exact(nothing, torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1]), weight)

    assert not still.dense().any()
    with pytest.raises(BadTensor, match="cancel to zero in 1 rows"):
        exact(nothing, torch.ones(8), weight)


def test_loras_own_biases_under_dora_are_refused_as_peft_refuses_them(dora):
    adapter, folder = dora
    modules = {name: replace(spec, bias=True) for name, spec in adapter.modules.items()}

    with pytest.raises(UnsupportedAdapter, match="no meaning under DoRA"):
        with_base(replace(adapter, modules=modules), open_base(folder))
    with pytest.raises(ValueError, match="not supported for DoRA"):
        peft.LoraConfig(use_dora=True, lora_bias=True)
