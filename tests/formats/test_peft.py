"""PEFT's format against PEFT itself: what it makes is read as it means it, and what is written it reads."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from loramerge.core.adapter import ExtraSpec, ModuleSpec
from loramerge.core.lowrank import LowRank
from loramerge.errors import (
    AmbiguousName,
    BadConfig,
    BadOption,
    BadTensor,
    FormatError,
    IncompatibleError,
    NotFound,
    UnknownFormat,
    UnsafePickle,
)
from loramerge.formats import peft
from loramerge.formats._format import Outline, open_adapter, outline_of, updates_of
from loramerge.formats._tensors import read_header


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm())


def dense(adapter, name):
    return adapter.load(name).to(dtype=torch.float32).dense()


def result(adapter, **changes):
    """The outline of a computed adapter with the same updates."""
    return replace(outline_of(adapter), **{"verbatim": False, **changes})


def rewrite(folder, **changes):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))


def rename(folder, change):
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({change(key): tensor for key, tensor in tensors.items()}, folder / "adapter_model.safetensors")


def test_updates_are_those_that_peft_applies(kind, make, peft_loads):
    folder = make(kind)

    adapter = peft.read(folder)

    loaded = peft_loads(folder, kind)
    assert adapter.modules.keys() == loaded.layers.keys()
    # A bfloat16 product is rounded by PEFT and not by us.
    tolerance = 4e-3 if kind == "bfloat16" else 1e-6
    for name in adapter.modules:
        assert relative(dense(adapter, name), loaded.delta(name)) < tolerance, name


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
    assert factors + len(adapter.extras) == len(load_file(folder / "adapter_model.safetensors"))
    assert not any(extra.kind == "raw" for extra in adapter.extras.values())


def test_a_copy_has_the_same_tensors_bit_for_bit_and_the_same_config(kind, make, tmp_path):
    folder = make(kind)
    adapter = peft.read(folder)
    (tmp_path / "copy").mkdir()

    files = peft.write(tmp_path / "copy", outline_of(adapter), updates_of(adapter))

    was = load_file(folder / "adapter_model.safetensors")
    now = load_file(tmp_path / "copy" / "adapter_model.safetensors")
    assert files == ["adapter_model.safetensors", "adapter_config.json"]
    assert was.keys() == now.keys()
    assert all(was[key].dtype == now[key].dtype and was[key].equal(now[key]) for key in was)
    texts = [(place / "adapter_config.json").read_text() for place in (folder, tmp_path / "copy")]
    assert json.loads(texts[0]) == json.loads(texts[1])


def test_peft_loads_a_result_as_the_same_updates(kind, make, peft_loads, tmp_path):
    adapter = peft.read(make(kind))
    (tmp_path / "result").mkdir()

    peft.write(tmp_path / "result", result(adapter), updates_of(adapter))

    loaded = peft_loads(tmp_path / "result", kind)
    assert loaded.complaints == []
    assert set(loaded.scales.values()) == {1.0}
    assert adapter.modules.keys() == loaded.layers.keys()
    tolerance = 8e-3 if kind == "bfloat16" else 1e-6
    for name in adapter.modules:
        assert relative(loaded.delta(name), dense(adapter, name)) < tolerance, name


def test_a_result_carries_its_extras(kind, make, tmp_path):
    adapter = peft.read(make(kind))
    (tmp_path / "result").mkdir()

    peft.write(tmp_path / "result", result(adapter), updates_of(adapter))

    again = peft.read(tmp_path / "result")
    assert again.extras == adapter.extras
    assert all(again.load_extra(key).equal(adapter.load_extra(key)) for key in adapter.extras)


def test_lora_bias_is_scaled_with_its_update(make, tmp_path):
    adapter = peft.read(make("lora-bias"))
    (tmp_path / "result").mkdir()

    peft.write(tmp_path / "result", result(adapter), updates_of(adapter))

    was, now = adapter.load("layers.0.q"), peft.read(tmp_path / "result").load("layers.0.q")
    torch.testing.assert_close(now.bias, was.bias * was.scale)
    assert now.scale == 1.0


def test_dora_magnitudes_are_carried(make, peft_loads, tmp_path):
    adapter = peft.read(make("dora"))
    (tmp_path / "copy").mkdir()

    peft.write(tmp_path / "copy", outline_of(adapter), updates_of(adapter))

    magnitudes = {spec.module: key for key, spec in adapter.extras.items() if spec.kind == "magnitude"}
    assert all(spec.dora for spec in adapter.modules.values())
    assert magnitudes.keys() == adapter.modules.keys()
    loaded = peft_loads(tmp_path / "copy", "dora")
    for module, key in magnitudes.items():
        theirs = loaded.layers[module].lora_magnitude_vector["default"].weight
        assert adapter.load_extra(key).equal(theirs)


def test_a_dora_magnitude_is_read_with_and_without_weight_in_its_name(make):
    folder = make("dora")
    plain = peft.read(folder)

    rename(folder, lambda key: key.replace("magnitude_vector", "magnitude_vector.weight"))

    assert peft.read(folder).extras == plain.extras


def test_dora_in_some_modules_only_cannot_be_a_result(make, tmp_path):
    adapter = peft.read(make("dora"))
    _, *rest = outline_of(adapter).extras

    with pytest.raises(IncompatibleError, match="one switch for all"):
        peft.write(tmp_path, result(adapter, extras=rest), updates_of(adapter))


def test_a_result_without_magnitudes_is_no_dora(make, tmp_path):
    adapter = peft.read(make("dora"))

    peft.write(tmp_path, result(adapter, extras=()), updates_of(adapter))

    assert not any(spec.dora for spec in peft.read(tmp_path).modules.values())


@pytest.mark.parametrize(("a", "b", "wider"), [("float16", "float32", "F32"), ("float16", "bfloat16", "F32")])
def test_factors_of_two_types_are_kept_apart_in_a_copy(a, b, wider, make, tmp_path):
    folder = make("plain")
    types = {"lora_A": getattr(torch, a), "lora_B": getattr(torch, b)}
    tensors = load_file(folder / "adapter_model.safetensors")
    mixed = {key: tensor.to(types[key.split(".")[-2]]) for key, tensor in tensors.items()}
    save_file(mixed, folder / "adapter_model.safetensors")
    adapter = peft.read(folder)
    (tmp_path / "copy").mkdir()

    peft.write(tmp_path / "copy", outline_of(adapter), updates_of(adapter))

    now = load_file(tmp_path / "copy" / "adapter_model.safetensors")
    assert {spec.dtype for spec in adapter.modules.values()} == {wider}
    assert all(now[key].dtype == tensor.dtype and now[key].equal(tensor) for key, tensor in mixed.items())


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
    rename(folder, lambda key: key)
    rewrite(folder, alpha_pattern={"v": 6, r"layers\.0\.v": 100, "a_pattern_nobody_meets": 1, "q": 8})

    adapter = peft.read(folder)

    assert [adapter.modules[f"layers.0.{leaf}"].scale for leaf in "qv"] == [4.0, 3.0]


def test_copies_keep_the_order_of_patterns(make, tmp_path):
    folder = make("plain")
    patterns = {"v": 6, r"layers\.0\.v": 100, "q": 8}
    rewrite(folder, alpha_pattern=patterns)
    adapter = peft.read(folder)
    (tmp_path / "copy").mkdir()

    peft.write(tmp_path / "copy", outline_of(adapter), updates_of(adapter))

    written = json.loads((tmp_path / "copy" / "adapter_config.json").read_text())
    assert list(written["alpha_pattern"].items()) == list(patterns.items())


def test_a_result_has_patterns_only_where_ranks_differ(make, tmp_path):
    adapter = peft.read(make("plain"))
    updates = dict(updates_of(adapter))
    updates["layers.1.q"] = LowRank(updates["layers.1.q"].b[:, :1], updates["layers.1.q"].a[:1], 2.0)
    for folder in ("same", "differ"):
        (tmp_path / folder).mkdir()

    peft.write(tmp_path / "same", result(adapter), updates_of(adapter))
    peft.write(tmp_path / "differ", result(adapter), updates.items())

    same, differ = (json.loads((tmp_path / f / "adapter_config.json").read_text()) for f in ("same", "differ"))
    assert (same["r"], same["lora_alpha"], same["rank_pattern"], same["alpha_pattern"]) == (2, 2, {}, {})
    assert differ["rank_pattern"] == differ["alpha_pattern"] == {r"^layers\.1\.q": 1}
    assert "peft_version" not in same
    assert (same["use_rslora"], same["inference_mode"], same["peft_type"]) == (False, True, "LORA")


@pytest.mark.parametrize(
    ("ours", "others", "targets"),
    [
        (["h.0.attn.q", "h.1.attn.q"], [], ["attn.q"]),
        (["h.0.attn.q", "h.1.attn.q", "h.0.mlp.q"], [], ["attn.q", "h.0.mlp.q"]),
        (["h.0.output", "h.1.output"], ["h.0.attention.output"], ["h.0.output", "h.1.output"]),
        (["lm_head", "h.0.q"], [], ["lm_head", "q"]),
    ],
)
def test_targets_select_our_modules_and_no_other_that_is_known(ours, others, targets, tmp_path):
    specs = [ModuleSpec(name, 4, 3, 1, 1.0) for name in ours]
    extras = [(ExtraSpec(f"{n}.bias", "bias", (4,), "F32", n), lambda: torch.ones(4)) for n in others]

    peft.write(
        tmp_path, Outline(specs, extras=extras), ((name, LowRank(torch.ones(4, 1), torch.ones(1, 3))) for name in ours)
    )

    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == targets


def test_what_the_original_targets_is_kept_where_it_selects_the_same(make, tmp_path):
    adapter = peft.read(make("convolutions"))

    peft.write(tmp_path, result(adapter), updates_of(adapter))

    assert json.loads((tmp_path / "adapter_config.json").read_text())["target_modules"] == ["conv1", "conv2", "conv3"]


def test_all_ranks_can_be_padded_to_one(make, peft_loads, tmp_path):
    adapter = peft.read(make("patterns"))
    (tmp_path / "padded").mkdir()

    peft.write(tmp_path / "padded", result(adapter, pad_rank=6), updates_of(adapter))

    config = json.loads((tmp_path / "padded" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (6, 6, {}, {})
    loaded = peft_loads(tmp_path / "padded", "patterns")
    assert all(relative(loaded.delta(name), dense(adapter, name)) < 1e-6 for name in adapter.modules)


def test_a_rank_above_the_padded_one_is_an_error(make, tmp_path):
    adapter = peft.read(make("patterns"))

    with pytest.raises(BadOption, match="all ranks were to be 3"):
        peft.write(tmp_path, result(adapter, pad_rank=3), updates_of(adapter))


def test_modules_that_peft_gives_one_rank_are_padded_to_one(make, peft_loads, tmp_path):
    adapter = peft.read(make("attention"))
    updates = dict(updates_of(adapter))
    inner = updates["mha.out_proj"]
    updates["mha.out_proj"] = LowRank(inner.b[:, :1], inner.a[:1], inner.scale)
    (tmp_path / "result").mkdir()

    peft.write(tmp_path / "result", result(adapter), updates.items())

    loaded = peft_loads(tmp_path / "result", "attention")
    assert peft.read(tmp_path / "result").modules["mha.out_proj"].rank == 3
    assert all(relative(loaded.delta(name), update.dense()) < 1e-6 for name, update in updates.items())


def test_a_copy_can_be_given_another_base(make, tmp_path):
    adapter = peft.read(make("plain"))

    peft.write(tmp_path, replace(outline_of(adapter), base="acme/base"), updates_of(adapter))

    assert peft.read(tmp_path).base == "acme/base"


def test_ranks_may_turn_out_smaller_than_planned(make, tmp_path):
    adapter = peft.read(make("plain"))
    planned = [ModuleSpec(s.name, s.out, s.in_, 50, 1.0) for s in adapter.modules.values()]

    peft.write(tmp_path, result(adapter, modules=planned), updates_of(adapter))

    assert peft.read(tmp_path).rank == 2


def test_an_update_without_units_is_written_as_a_zero_update(tmp_path):
    nothing = LowRank(torch.zeros(4, 0), torch.zeros(0, 3))

    peft.write(tmp_path, Outline([ModuleSpec("q", 4, 3, 0, 1.0)]), [("q", nothing)])

    assert dense(peft.read(tmp_path), "q").equal(torch.zeros(4, 3))


def test_a_middle_factor_is_multiplied_in(tmp_path):
    update = LowRank(torch.randn(4, 2), torch.randn(3, 5), scale=0.5, mid=torch.randn(2, 3))

    peft.write(tmp_path, Outline([ModuleSpec("q", 4, 5, 2, 1.0)]), [("q", update)])

    assert relative(dense(peft.read(tmp_path), "q"), update.dense()) < 1e-6


def test_a_number_that_half_precision_cannot_hold_is_an_error(tmp_path):
    large = LowRank(torch.full((4, 1), 1e6), torch.ones(1, 3))

    with pytest.raises(BadTensor, match="F16 cannot hold") as error:
        peft.write(tmp_path, Outline([ModuleSpec("q", 4, 3, 1, 1.0, "F16")]), [("q", large)])

    assert error.value.hint == "a wider --dtype"


def test_a_result_without_its_head_does_not_ask_for_one(make, peft_loads, tmp_path):
    folder = make("saved")
    rewrite(folder, task_type="SEQ_CLS")
    adapter = peft.read(folder)
    (tmp_path / "headless").mkdir()

    peft.write(tmp_path / "headless", result(adapter, extras=()), updates_of(adapter))

    config = json.loads((tmp_path / "headless" / "adapter_config.json").read_text())
    assert (config["task_type"], config["modules_to_save"]) == (None, None)
    assert peft_loads(tmp_path / "headless", "saved").complaints == []


def test_an_adapter_name_left_in_the_keys_is_taken_out(make):
    folder = make("saved")
    clean = peft.read(folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    leaked = {
        key.replace(".lora_A.", ".lora_A.mine.")
        .replace(".lora_B.", ".lora_B.mine.")
        .replace("head.", "head.modules_to_save.mine."): tensor
        for key, tensor in tensors.items()
    }
    save_file(leaked, folder / "adapter_model.safetensors")

    adapter = peft.read(folder)

    assert (adapter.modules, adapter.extras) == (clean.modules, clean.extras)
    assert "mine" in adapter.notes[0]


def test_keys_of_two_adapters_in_one_file_are_an_error(make):
    folder = make("plain")

    rename(folder, lambda key: key.replace(".weight", ".one.weight" if "layers.0" in key else ".two.weight"))

    with pytest.raises(BadTensor, match="several adapters: one, two"):
        peft.read(folder)


@pytest.mark.parametrize("wrap", ["base_model.model.{}", "module.{}", "base_model.model._orig_mod.{}"])
def test_wrappers_around_names_are_taken_off(wrap, make):
    folder = make("bias-all")
    clean = peft.read(folder)
    inner = "base_model.model." if "_orig_mod" in wrap else ""

    rename(folder, lambda key: wrap.format(key.removeprefix(inner)))

    adapter = peft.read(folder)
    assert (adapter.modules, adapter.extras) == (clean.modules, clean.extras)


def test_biases_of_old_versions_are_written_where_new_ones_look(make, tmp_path):
    folder = make("bias-lora-only")
    clean = load_file(folder / "adapter_model.safetensors")
    rename(folder, lambda key: key.replace(".base_layer.bias", ".bias"))
    adapter = peft.read(folder)
    (tmp_path / "copy").mkdir()

    peft.write(tmp_path / "copy", outline_of(adapter), updates_of(adapter))

    assert load_file(tmp_path / "copy" / "adapter_model.safetensors").keys() == clean.keys()


def test_two_keys_for_one_tensor_are_an_error(make):
    folder = make("bias-lora-only")
    tensors = load_file(folder / "adapter_model.safetensors")
    name = "base_model.model.layers.0.q.bias"

    save_file({**tensors, name: torch.ones(8)}, folder / "adapter_model.safetensors")

    with pytest.raises(BadTensor, match="are the same tensor"):
        peft.read(folder)


def test_unknown_tensors_are_carried_and_named(make, tmp_path):
    folder = make("plain")
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({**tensors, "base_model.model.x.curious": torch.arange(3)}, folder / "adapter_model.safetensors")
    adapter = peft.read(folder)
    (tmp_path / "copy").mkdir()

    peft.write(tmp_path / "copy", outline_of(adapter), updates_of(adapter))

    assert adapter.extras["x.curious"].kind == "raw"
    assert "x.curious" in adapter.notes[0]
    assert load_file(tmp_path / "copy" / "adapter_model.safetensors").keys() == {*tensors, "base_model.model.x.curious"}


def test_unknown_config_fields_are_kept_and_named(make, tmp_path):
    folder = make("plain")
    rewrite(folder, unsloth_fixed=True)
    adapter = peft.read(folder)
    (tmp_path / "copy").mkdir()

    peft.write(tmp_path / "copy", outline_of(adapter), updates_of(adapter))

    assert adapter.config["unsloth_fixed"] is True
    assert "unsloth_fixed" in adapter.notes[0]
    assert json.loads((tmp_path / "copy" / "adapter_config.json").read_text())["unsloth_fixed"] is True


def test_a_config_without_a_kind_is_lora_where_it_can_be_nothing_else(make):
    folder = make("plain")
    config = {"r": 2, "lora_alpha": 4, "target_modules": ["q", "v"]}

    (folder / "adapter_config.json").write_text(json.dumps(config))

    assert peft.read(folder).notes == ("The config does not say peft_type; it was read as LORA.",)


def test_a_merged_linear_becomes_the_update_its_layer_computed(tmp_path):
    a, b = torch.randn(4, 5), torch.randn(12, 2, 1)
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 6,
        "enable_lora": [True, False, True],
        "target_modules": ["qkv"],
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    key = "base_model.model.h.0.qkv"
    save_file({f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}, tmp_path / "adapter_model.safetensors")

    adapter = peft.read(tmp_path)

    convolved = torch.nn.functional.conv1d(a.unsqueeze(0), b, groups=2)[0]
    want = torch.zeros(18, 5)
    want[:6], want[12:] = convolved[:6] * 3.0, convolved[6:] * 3.0
    torch.testing.assert_close(dense(adapter, "h.0.qkv"), want)
    assert (adapter.modules["h.0.qkv"].rank, adapter.modules["h.0.qkv"].scale) == (4, 3.0)


def test_a_merged_linear_is_copied_as_a_plain_adapter(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 6,
        "enable_lora": [True, False, True],
        "target_modules": ["qkv"],
    }
    (tmp_path / "old" / "adapter_config.json").write_text(json.dumps(config))
    tensors = {"h.0.qkv.lora_A.weight": torch.randn(4, 5), "h.0.qkv.lora_B.weight": torch.randn(12, 2, 1)}
    save_file(tensors, tmp_path / "old" / "adapter_model.safetensors")
    adapter = peft.read(tmp_path / "old")

    peft.write(tmp_path / "new", outline_of(adapter), updates_of(adapter))

    again = peft.read(tmp_path / "new")
    assert again.modules == adapter.modules
    assert dense(again, "h.0.qkv").equal(dense(adapter, "h.0.qkv"))
    assert "enable_lora" not in again.config


def test_a_folder_with_one_named_adapter_opens_it(make, tmp_path):
    folder = make("plain")
    (tmp_path / "around").mkdir()
    shutil.move(folder, tmp_path / "around" / "mine")

    adapter = open_adapter(tmp_path / "around")

    assert (adapter.name, adapter.path) == ("mine", tmp_path / "around" / "mine")
    assert adapter.files == ("adapter_model.safetensors", "adapter_config.json")


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

    assert open_adapter(folder / "adapter_model.safetensors").modules == open_adapter(folder).modules


def test_weights_without_a_config_are_an_error(make):
    folder = make("plain")
    (folder / "adapter_config.json").unlink()

    with pytest.raises(BadConfig, match=r"no adapter_config\.json"):
        open_adapter(folder)
    with pytest.raises(BadConfig, match=r"no adapter_config\.json"):
        open_adapter(folder / "adapter_model.safetensors")


def test_a_config_without_weights_is_an_error(make):
    folder = make("plain")
    (folder / "adapter_model.safetensors").unlink()

    with pytest.raises(FormatError, match="neither"):
        open_adapter(folder)


def test_a_stranger_is_described_by_its_keys(make, tmp_path):
    shutil.copy(make("plain") / "adapter_model.safetensors", tmp_path / "lora.safetensors")

    with pytest.raises(UnknownFormat, match=r"layers\.0\.q\.lora_A\.weight") as error:
        open_adapter(tmp_path / "lora.safetensors")

    assert "adapter_config.json" in error.value.hint


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
    header = read_header(folder / "adapter_model.safetensors")

    remote = peft.outline(json.loads((folder / "adapter_config.json").read_text()), header, "far")

    assert (remote.modules, remote.extras, remote.base) == (adapter.modules, adapter.extras, adapter.base)
    with pytest.raises(NotFound, match="not here"):
        remote.load(next(iter(remote.modules)))


def test_a_tensor_that_is_not_finite_is_named_with_its_count(make):
    folder = make("plain")
    tensors = load_file(folder / "adapter_model.safetensors")
    key = "base_model.model.layers.0.q.lora_A.weight"
    tensors[key][0, :2] = torch.tensor([float("nan"), float("inf")])
    save_file(tensors, folder / "adapter_model.safetensors")
    adapter = peft.read(folder)

    with pytest.raises(BadTensor, match=rf"{key} holds 2 elements") as error:
        adapter.load("layers.0.q")

    assert error.value.where == str(folder / "adapter_model.safetensors")


def pickled(folder):
    """The folder with its weights as a pickle instead."""
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    return folder


def test_a_pickle_is_refused_unless_it_is_allowed(make):
    folder = make("saved")
    safe = peft.read(folder)
    pickled(folder)

    with pytest.raises(UnsafePickle, match="can run code") as error:
        open_adapter(folder)
    allowed = open_adapter(folder, allow_pickle=True)

    assert error.value.hint.startswith("--allow-pickle")
    assert (allowed.modules, allowed.extras) == (safe.modules, safe.extras)
    assert allowed.files == ("adapter_model.bin", "adapter_config.json")


def test_a_pickle_that_runs_code_is_not_run(make, tmp_path):
    folder = pickled(make("plain"))
    torch.save({"x": Touch(tmp_path / "ran")}, folder / "adapter_model.bin")

    with pytest.raises(UnsafePickle, match="torch refuses"):
        open_adapter(folder, allow_pickle=True)

    assert not (tmp_path / "ran").exists()


class Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": 3}, "something other than named tensors"),
        ([torch.ones(2)], "something other than named tensors"),
    ],
    ids=["a number", "a list"],
)
def test_a_pickle_of_anything_but_tensors_is_refused(content, message, make):
    folder = pickled(make("plain"))
    torch.save(content, folder / "adapter_model.bin")

    with pytest.raises(UnsafePickle, match=message):
        open_adapter(folder, allow_pickle=True)


def test_a_pickle_in_a_strange_container_is_refused(make):
    folder = pickled(make("plain"))
    whole = (folder / "adapter_model.bin").read_bytes()
    with zipfile.ZipFile(folder / "adapter_model.bin", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("adapter_model/more", b"0" * 10_000_000)

    with pytest.raises(UnsafePickle, match="adapter_model/more"):
        open_adapter(folder, allow_pickle=True)
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(UnsafePickle, match="not a zip"):
        open_adapter(folder, allow_pickle=True)
    (folder / "adapter_model.bin").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsafePickle, match="not a zip"):
        open_adapter(folder, allow_pickle=True)


def test_safetensors_are_preferred_to_a_pickle_of_the_same_names(make):
    folder = make("plain")
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")

    assert open_adapter(folder).files[0] == "adapter_model.safetensors"


def test_a_pickle_of_other_names_beside_safetensors_is_an_error(make):
    folder = make("plain")
    tensors = load_file(folder / "adapter_model.safetensors")
    torch.save({**tensors, "base_model.model.evil.lora_A.weight": torch.ones(2, 2)}, folder / "adapter_model.bin")

    with pytest.raises(FormatError, match=r"same tensors: base_model\.model\.evil"):
        open_adapter(folder)
