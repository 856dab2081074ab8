"""PEFT's format against PEFT itself: what it makes is read as it means it."""

from __future__ import annotations

import json
import pickle
import shutil

import pytest
import torch
from adapters import CONFIG, WEIGHTS
from changes import change_config, rename_tensors
from dense import dense, distance
from safetensors.torch import load_file, save_file

from loramerge.errors import AmbiguousName, BadConfig, BadTensor, FormatError, NotFound, UnknownFormat
from loramerge.formats import peft
from loramerge.formats._format import open_adapter, outline_of, updates_of
from loramerge.formats._tensors import read_header


def test_updates_are_those_that_peft_applies(kind, make, peft_loads):
    folder = make(kind)

    adapter = peft.read(folder)

    loaded = peft_loads(folder, kind)
    assert adapter.modules.keys() == loaded.layers.keys()
    # A bfloat16 product is rounded by PEFT and not by us.
    tolerance = 4e-3 if kind == "bfloat16" else 1e-6
    for name in adapter.modules:
        assert distance(dense(adapter, name), loaded.delta(name)) < tolerance, name


def test_scales_are_those_that_peft_resolves(kind, make, peft_loads):
    folder = make(kind)

    adapter = peft.read(folder)

    assert {name: spec.scale for name, spec in adapter.modules.items()} == peft_loads(folder, kind).scales
    assert all(adapter.load(name).scale == spec.scale for name, spec in adapter.modules.items())


def test_specs_say_what_the_factors_are(kind, make):
    adapter = peft.read(make(kind))

    for name, spec in adapter.modules.items():
        update = adapter.load(name)

        assert (update.shape, update.rank, update.bias is not None) == (spec.shape, spec.rank, spec.bias)
        assert update.a.dtype == {"F32": torch.float32, "BF16": torch.bfloat16}[spec.dtype]


def test_every_tensor_is_an_update_or_an_extra(kind, make):
    folder = make(kind)

    adapter = peft.read(folder)

    factors = sum(3 if spec.bias else 2 for spec in adapter.modules.values())
    assert factors + len(adapter.extras) == len(load_file(folder / WEIGHTS))
    assert not any(extra.kind == "raw" for extra in adapter.extras.values())


def test_dora_magnitudes_are_carried(make, peft_loads, tmp_path):
    adapter = peft.read(make("dora"))

    peft.write(tmp_path, outline_of(adapter), updates_of(adapter))

    magnitudes = {spec.module: key for key, spec in adapter.extras.items() if spec.kind == "magnitude"}
    assert all(spec.dora for spec in adapter.modules.values())
    assert magnitudes.keys() == adapter.modules.keys()
    loaded = peft_loads(tmp_path, "dora")
    for module, key in magnitudes.items():
        theirs = loaded.layers[module].lora_magnitude_vector["default"].weight
        assert adapter.load_extra(key).equal(theirs)


def test_a_dora_magnitude_is_read_with_and_without_weight_in_its_name(make):
    folder = make("dora")
    plain = peft.read(folder)

    rename_tensors(folder, lambda key: key.replace("magnitude_vector", "magnitude_vector.weight"))

    assert peft.read(folder).extras == plain.extras


def test_extras_say_what_they_are(make):
    biases = peft.read(make("bias-all")).extras
    saved = peft.read(make("saved")).extras
    tied = peft.read(make("llama-tied")).extras

    assert biases["layers.0.q.bias"].kind == "bias"
    assert biases["mha.out_proj.bias"].module == "mha.out_proj"
    assert biases["head.original_module.bias"].kind == "saved"
    # As PEFT matches modules_to_save: by the end of the name, so that `head` takes `pre_head` too.
    assert {key: spec.module for key, spec in saved.items()} == {
        "head.bias": "head",
        "head.weight": "head",
        "pre_head.bias": "pre_head",
        "pre_head.weight": "pre_head",
    }
    assert {key: spec.kind for key, spec in tied.items()} == {
        "lm_head.weight": "base",
        "model.embed_tokens.weight": "base",
    }


def test_trained_tokens_know_their_rows(make):
    by_name = peft.read(make("tokens")).extras["emb.token_adapter.trainable_tokens_delta"]
    by_list = peft.read(make("llama-tokens")).extras["model.embed_tokens.token_adapter.trainable_tokens_delta"]

    assert (by_name.kind, by_name.module, by_name.indices) == ("tokens", "emb", (4, 1))
    assert by_list.indices == (3, 1)


def test_an_embedding_and_a_convolution_are_laid_out_as_lowrank_says(make):
    embedding = peft.read(make("embedding")).modules["emb"]
    convolution = peft.read(make("convolutions")).modules["conv2"]

    assert (embedding.kind, embedding.shape) == ("embedding", (8, 10))
    assert (convolution.kind, convolution.shape, convolution.kernel) == ("conv2d", (8, 4 * 9), (3, 3))


def test_the_first_pattern_wins_in_the_order_of_the_file(make):
    folder = make("plain")
    rename_tensors(folder, lambda key: key)
    change_config(folder, alpha_pattern={"v": 6, r"layers\.0\.v": 100, "a_pattern_nobody_meets": 1, "q": 8})

    adapter = peft.read(folder)

    assert [adapter.modules[f"layers.0.{leaf}"].scale for leaf in "qv"] == [4.0, 3.0]


def test_an_adapter_name_left_in_the_keys_is_taken_out(make):
    folder = make("saved")
    clean = peft.read(folder)
    tensors = load_file(folder / WEIGHTS)
    leaked = {
        key.replace(".lora_A.", ".lora_A.mine.")
        .replace(".lora_B.", ".lora_B.mine.")
        .replace("head.", "head.modules_to_save.mine."): tensor
        for key, tensor in tensors.items()
    }
    save_file(leaked, folder / WEIGHTS)

    adapter = peft.read(folder)

    assert (adapter.modules, adapter.extras) == (clean.modules, clean.extras)
    assert "mine" in adapter.notes[0]


def test_keys_of_two_adapters_in_one_file_are_an_error(make):
    folder = make("plain")

    rename_tensors(folder, lambda key: key.replace(".weight", ".one.weight" if "layers.0" in key else ".two.weight"))

    with pytest.raises(BadTensor, match="several adapters: one, two"):
        peft.read(folder)


@pytest.mark.parametrize("wrap", ["base_model.model.{}", "module.{}", "base_model.model._orig_mod.{}"])
def test_wrappers_around_names_are_taken_off(wrap, make):
    folder = make("bias-all")
    clean = peft.read(folder)
    inner = "base_model.model." if "_orig_mod" in wrap else ""

    rename_tensors(folder, lambda key: wrap.format(key.removeprefix(inner)))

    adapter = peft.read(folder)
    assert (adapter.modules, adapter.extras) == (clean.modules, clean.extras)


def test_two_keys_for_one_tensor_are_an_error(make):
    folder = make("bias-lora-only")
    tensors = load_file(folder / WEIGHTS)
    name = "base_model.model.layers.0.q.bias"

    save_file({**tensors, name: torch.ones(8)}, folder / WEIGHTS)

    with pytest.raises(BadTensor, match="are the same tensor"):
        peft.read(folder)


def test_a_config_without_a_kind_is_lora_where_it_can_be_nothing_else(make):
    folder = make("plain")
    config = {"r": 2, "lora_alpha": 4, "target_modules": ["q", "v"]}

    (folder / CONFIG).write_text(json.dumps(config))

    assert peft.read(folder).notes == ("The config does not say peft_type; it was read as LORA.",)


def test_a_merged_linear_becomes_the_update_its_layer_computed(merged_linear):
    adapter = peft.read(merged_linear)

    a, b = (load_file(merged_linear / WEIGHTS)[f"h.0.qkv.lora_{side}.weight"] for side in "AB")
    convolved = torch.nn.functional.conv1d(a.unsqueeze(0), b, groups=2)[0]
    want = torch.zeros(18, 5)
    want[:6], want[12:] = convolved[:6] * 3.0, convolved[6:] * 3.0
    torch.testing.assert_close(dense(adapter, "h.0.qkv"), want)
    assert (adapter.modules["h.0.qkv"].rank, adapter.modules["h.0.qkv"].scale) == (4, 3.0)


def test_a_folder_with_one_named_adapter_opens_it(make, tmp_path):
    folder = make("plain")
    (tmp_path / "around").mkdir()
    shutil.move(folder, tmp_path / "around" / "mine")

    adapter = open_adapter(tmp_path / "around")

    assert (adapter.name, adapter.path) == ("mine", tmp_path / "around" / "mine")
    assert adapter.files == (WEIGHTS, CONFIG)


def test_several_named_adapters_have_to_be_chosen_from(make, tmp_path):
    folder = make("plain")
    (tmp_path / "around").mkdir()
    shutil.copytree(folder, tmp_path / "around" / "one")
    shutil.copytree(folder, tmp_path / "around" / "two")

    with pytest.raises(AmbiguousName, match="one, two") as error:
        open_adapter(tmp_path / "around")

    assert error.value.hint == str(tmp_path / "around" / "one")
    assert open_adapter(tmp_path / "around" / "two").name == "two"


def test_a_file_of_an_adapter_stands_for_its_folder(make):
    folder = make("plain")

    assert open_adapter(folder / WEIGHTS).modules == open_adapter(folder).modules


def test_weights_without_a_config_are_an_error(make):
    folder = make("plain")
    (folder / CONFIG).unlink()

    with pytest.raises(BadConfig, match=r"no adapter_config\.json"):
        open_adapter(folder)
    with pytest.raises(BadConfig, match=r"no adapter_config\.json"):
        open_adapter(folder / WEIGHTS)


def test_a_config_without_weights_is_an_error(make):
    folder = make("plain")
    (folder / WEIGHTS).unlink()

    with pytest.raises(FormatError, match="neither"):
        open_adapter(folder)


def test_a_stranger_is_described_by_its_keys(make, tmp_path):
    shutil.copy(make("plain") / WEIGHTS, tmp_path / "lora.safetensors")

    with pytest.raises(UnknownFormat, match=r"layers\.0\.q\.lora_A\.weight") as error:
        open_adapter(tmp_path / "lora.safetensors")

    assert CONFIG in error.value.hint


def test_a_path_that_does_not_exist_is_not_found(tmp_path):
    with pytest.raises(NotFound, match="nothing at"):
        open_adapter(tmp_path / "nowhere")


def test_an_open_adapter_can_be_sent_to_another_process(make):
    adapter = open_adapter(make("saved"))

    again = pickle.loads(pickle.dumps(adapter))

    assert dense(again, "layers.1.v" if "layers.1.v" in again.modules else "layers.1.q").equal(
        dense(adapter, "layers.1.q")
    )
    assert again.load_extra("head.weight").equal(adapter.load_extra("head.weight"))


def test_a_header_and_a_config_are_enough_to_describe_an_adapter(kind, make):
    folder = make(kind)
    adapter = peft.read(folder)
    header = read_header(folder / WEIGHTS)

    remote = peft.outline(json.loads((folder / CONFIG).read_text()), header, "far")

    assert (remote.modules, remote.extras, remote.base) == (adapter.modules, adapter.extras, adapter.base)
    with pytest.raises(NotFound, match="not here"):
        remote.load(next(iter(remote.modules)))


def test_a_tensor_that_is_not_finite_is_named_with_its_count(make):
    folder = make("plain")
    tensors = load_file(folder / WEIGHTS)
    key = "base_model.model.layers.0.q.lora_A.weight"
    tensors[key][0, :2] = torch.tensor([float("nan"), float("inf")])
    save_file(tensors, folder / WEIGHTS)
    adapter = peft.read(folder)

    with pytest.raises(BadTensor, match=rf"{key} holds 2 elements") as error:
        adapter.load("layers.0.q")

    assert error.value.where == str(folder / WEIGHTS)
