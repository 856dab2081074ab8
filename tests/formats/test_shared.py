"""Real adapters of strangers, and trained ones: read, copied bit for bit, and compared with PEFT's own updates."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file
from standin import peft_delta, peft_layers, stand_in

from loramerge.errors import UnsafePickle
from loramerge.formats._format import Outline, open_adapter, outline_of, updates_of
from loramerge.formats.peft import write

DATA = Path(os.environ.get("LORAMERGE_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
FOUND = sorted(
    str(config.parent.relative_to(DATA))
    for part in ("adapters", "trained")
    for config in DATA.glob(f"{part}/**/adapter_config.json")
)
REFUSED = {
    "adapters/bloom-560m/wujindou-bin": "MergedLinear: PEFT has dropped its three-dimensional B and enable_lora",
}
"""What PEFT 0.21 cannot load, and why."""

LOADABLE = [name for name in FOUND if name not in REFUSED]


@pytest.fixture
def folder(shared, request):
    return shared / "data" / request.param


def sample(adapter):
    """Every ninth module, and every one that is not like the others."""
    names = list(adapter.modules)
    usual = max({spec.rank for spec in adapter.modules.values()}, key=[s.rank for s in adapter.modules.values()].count)
    odd = [name for name, spec in adapter.modules.items() if spec.rank != usual or spec.kind != "linear"]
    return sorted({*names[::9], names[-1], *odd[:4]})


def assert_same(got, want):
    assert (got - want).norm() <= 1e-6 * want.norm()


@pytest.mark.parametrize("folder", FOUND, indirect=True)
def test_a_copy_is_bit_for_bit_and_resolves_to_the_same_scales(folder, tmp_path):
    adapter = open_adapter(folder, allow_pickle=True)

    write(tmp_path, outline_of(adapter), updates_of(adapter))

    copy = open_adapter(tmp_path)
    assert (copy.modules, copy.extras, copy.base) == (adapter.modules, adapter.extras, adapter.base)
    for name in adapter.modules:
        one, two = adapter.load(name), copy.load(name)
        assert one.a.equal(two.a)
        assert one.b.equal(two.b)
    assert all(copy.load_extra(key).equal(adapter.load_extra(key)) for key in adapter.extras)


@pytest.mark.parametrize("folder", LOADABLE, indirect=True)
def test_a_copy_has_the_same_keys_and_config(folder, tmp_path):
    adapter = open_adapter(folder)

    write(tmp_path, outline_of(adapter), updates_of(adapter))

    was, now = (load_file(place / "adapter_model.safetensors") for place in (folder, tmp_path))
    assert was.keys() == now.keys()
    assert all(was[key].dtype == now[key].dtype and was[key].equal(now[key]) for key in was)
    configs = [json.loads((place / "adapter_config.json").read_text()) for place in (folder, tmp_path)]
    assert configs[0] == configs[1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", LOADABLE, indirect=True)
def test_updates_and_scales_are_those_of_peft(folder):
    adapter = open_adapter(folder)
    names = sample(adapter)

    layers = peft_layers(folder, stand_in(adapter, names), names)

    for name, layer in layers.items():
        assert adapter.modules[name].scale == layer.scaling["default"]
        assert_same(adapter.load(name).to(dtype=torch.float32).dense(), peft_delta(layer))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", LOADABLE, indirect=True)
def test_peft_loads_a_result_as_the_same_updates(folder, tmp_path):
    adapter = open_adapter(folder)
    names = sample(adapter)
    # The updates alone: a DoRA magnitude is of no use without its base.
    specs = [replace(adapter.modules[name], dora=False) for name in names]

    write(tmp_path, Outline(specs, adapter.base, config=adapter.config), ((n, adapter.load(n)) for n in names))

    layers = peft_layers(tmp_path, stand_in(adapter, names), names)
    for name, layer in layers.items():
        assert layer.scaling["default"] == 1.0
        assert_same(peft_delta(layer), adapter.load(name).to(dtype=torch.float32).dense())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("folder", REFUSED, indirect=True)
def test_what_peft_refuses_is_read_as_its_old_layer_computed_it(folder):
    adapter = open_adapter(folder, allow_pickle=True)
    names = sample(adapter)
    state = torch.load(folder / "adapter_model.bin", weights_only=True, map_location="cpu")

    for name in names:
        a, b = (state[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        convolved = torch.nn.functional.conv1d(a.unsqueeze(0), b, groups=2)[0] * (16 / 8)
        wanted = torch.zeros(3, 1024, 1024)
        wanted[0], wanted[2] = convolved[:1024], convolved[1024:]

        assert_same(adapter.load(name).dense(), wanted.reshape(3072, 1024))
    config = peft.LoraConfig.from_pretrained(str(folder))
    config.task_type = None
    model = peft.get_peft_model(stand_in(adapter, names), config)
    with pytest.raises(RuntimeError, match="size mismatch"):
        peft.set_peft_model_state_dict(model, state)


@pytest.mark.parametrize("folder", REFUSED, indirect=True)
def test_its_pickle_is_refused_unless_allowed(folder):
    with pytest.raises(UnsafePickle, match="can run code"):
        open_adapter(folder)


@pytest.mark.parametrize("folder", ["trained/minilm-sst2-r8-dora"], indirect=True)
def test_dora_magnitudes_are_carried(folder, tmp_path):
    adapter = open_adapter(folder)

    write(tmp_path, outline_of(adapter), updates_of(adapter))

    copy = open_adapter(tmp_path)
    magnitudes = [key for key, spec in copy.extras.items() if spec.kind == "magnitude"]
    assert len(magnitudes) == len(adapter.modules) == 12
    assert all(spec.dora for spec in copy.modules.values())
    assert all(copy.load_extra(key).equal(adapter.load_extra(key)) for key in magnitudes)


@pytest.mark.parametrize("folder", ["trained/minilm-trec-patterns"], indirect=True)
def test_patterns_give_the_ranks_and_scales_they_were_trained_with(folder):
    modules = open_adapter(folder).modules

    found = {name: (spec.rank, spec.scale) for name, spec in modules.items()}

    assert found["bert.encoder.layer.5.attention.self.value"] == (12, 4.0)
    assert found["bert.encoder.layer.1.attention.self.query"] == (4, 4.0)
    assert found["bert.encoder.layer.3.attention.self.query"] == (8, 2.0)


@pytest.mark.parametrize("folder", ["trained/minilm-sst2-r16-rslora"], indirect=True)
def test_rslora_divides_by_the_root(folder):
    assert {spec.scale for spec in open_adapter(folder).modules.values()} == {16 / 16**0.5}


@pytest.mark.parametrize("folder", ["trained/minilm-subj-r8-biasall"], indirect=True)
def test_biases_are_told_from_heads(folder):
    extras = open_adapter(folder).extras

    kinds = {key: spec.kind for key, spec in extras.items()}

    assert kinds["bert.encoder.layer.0.attention.self.query.bias"] == "bias"
    assert kinds["bert.pooler.dense.bias"] == "bias"
    heads = {key for key, kind in kinds.items() if kind == "saved"}
    assert heads == {f"classifier.{end}" for end in ("bias", "weight", "modules_to_save.bias", "original_module.bias")}


@pytest.mark.parametrize("folder", ["trained/stories260k-oz-r16-embed"], indirect=True)
def test_an_embedding_update_brings_a_copy_of_the_base(folder):
    adapter = open_adapter(folder)

    assert adapter.modules["model.embed_tokens"].kind == "embedding"
    assert adapter.modules["model.embed_tokens"].shape == (64, 512)
    assert {key: spec.kind for key, spec in adapter.extras.items()} == {"model.embed_tokens.weight": "base"}
