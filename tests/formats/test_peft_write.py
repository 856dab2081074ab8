"""What is written in PEFT's format: copies are the same bit for bit, results are what PEFT then applies."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from adapters import CONFIG, WEIGHTS
from changes import change_config, rename_tensors
from dense import dense, distance
from safetensors.torch import load_file, save_file

from loramerge.core.adapter import ExtraSpec, ModuleSpec
from loramerge.core.lowrank import LowRank
from loramerge.errors import BadOption, BadTensor, IncompatibleError
from loramerge.formats import peft
from loramerge.formats._format import Outline, outline_of, updates_of


def result(adapter, **changes):
    """The outline of a computed adapter with the same updates."""
    return replace(outline_of(adapter), **{"verbatim": False, **changes})


def config_of(folder):
    return json.loads((folder / CONFIG).read_text())


def test_a_copy_has_the_same_tensors_bit_for_bit_and_the_same_config(kind, make, tmp_path):
    folder = make(kind)
    adapter = peft.read(folder)

    files = peft.write(tmp_path, outline_of(adapter), updates_of(adapter))

    was = load_file(folder / WEIGHTS)
    now = load_file(tmp_path / WEIGHTS)
    assert files == [WEIGHTS, CONFIG]
    assert was.keys() == now.keys()
    assert all(was[key].dtype == now[key].dtype and was[key].equal(now[key]) for key in was)
    assert config_of(tmp_path) == config_of(folder)


def test_peft_loads_a_result_as_the_same_updates(kind, make, peft_loads, tmp_path):
    adapter = peft.read(make(kind))

    peft.write(tmp_path, result(adapter), updates_of(adapter))

    loaded = peft_loads(tmp_path, kind)
    assert loaded.complaints == []
    assert set(loaded.scales.values()) == {1.0}
    assert adapter.modules.keys() == loaded.layers.keys()
    tolerance = 8e-3 if kind == "bfloat16" else 1e-6
    for name in adapter.modules:
        assert distance(loaded.delta(name), dense(adapter, name)) < tolerance, name


def test_a_result_carries_its_extras(kind, make, tmp_path):
    adapter = peft.read(make(kind))

    peft.write(tmp_path, result(adapter), updates_of(adapter))

    again = peft.read(tmp_path)
    assert again.extras == adapter.extras
    assert all(again.load_extra(key).equal(adapter.load_extra(key)) for key in adapter.extras)


def test_lora_bias_is_scaled_with_its_update(make, tmp_path):
    adapter = peft.read(make("lora-bias"))

    peft.write(tmp_path, result(adapter), updates_of(adapter))

    was, now = adapter.load("layers.0.q"), peft.read(tmp_path).load("layers.0.q")
    torch.testing.assert_close(now.bias, was.bias * was.scale)
    assert now.scale == 1.0


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
    tensors = load_file(folder / WEIGHTS)
    mixed = {key: tensor.to(types[key.split(".")[-2]]) for key, tensor in tensors.items()}
    save_file(mixed, folder / WEIGHTS)
    adapter = peft.read(folder)

    peft.write(tmp_path, outline_of(adapter), updates_of(adapter))

    now = load_file(tmp_path / WEIGHTS)
    assert {spec.dtype for spec in adapter.modules.values()} == {wider}
    assert all(now[key].dtype == tensor.dtype and now[key].equal(tensor) for key, tensor in mixed.items())


def test_copies_keep_the_order_of_patterns(make, tmp_path):
    folder = make("plain")
    patterns = {"v": 6, r"layers\.0\.v": 100, "q": 8}
    change_config(folder, alpha_pattern=patterns)
    adapter = peft.read(folder)

    peft.write(tmp_path, outline_of(adapter), updates_of(adapter))

    assert list(config_of(tmp_path)["alpha_pattern"].items()) == list(patterns.items())


def test_a_result_has_patterns_only_where_ranks_differ(make, tmp_path):
    adapter = peft.read(make("plain"))
    updates = dict(updates_of(adapter))
    updates["layers.1.q"] = LowRank(updates["layers.1.q"].b[:, :1], updates["layers.1.q"].a[:1], 2.0)
    for folder in ("same", "differ"):
        (tmp_path / folder).mkdir()

    peft.write(tmp_path / "same", result(adapter), updates_of(adapter))
    peft.write(tmp_path / "differ", result(adapter), updates.items())

    same, differ = (config_of(tmp_path / name) for name in ("same", "differ"))
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

    assert config_of(tmp_path)["target_modules"] == targets


def test_what_the_original_targets_is_kept_where_it_selects_the_same(make, tmp_path):
    adapter = peft.read(make("convolutions"))

    peft.write(tmp_path, result(adapter), updates_of(adapter))

    assert config_of(tmp_path)["target_modules"] == ["conv1", "conv2", "conv3"]


def test_all_ranks_can_be_padded_to_one(make, peft_loads, tmp_path):
    adapter = peft.read(make("patterns"))

    peft.write(tmp_path, result(adapter, pad_rank=6), updates_of(adapter))

    config = config_of(tmp_path)
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (6, 6, {}, {})
    loaded = peft_loads(tmp_path, "patterns")
    assert all(distance(loaded.delta(name), dense(adapter, name)) < 1e-6 for name in adapter.modules)


def test_a_rank_above_the_padded_one_is_an_error(make, tmp_path):
    adapter = peft.read(make("patterns"))

    with pytest.raises(BadOption, match="all ranks were to be 3"):
        peft.write(tmp_path, result(adapter, pad_rank=3), updates_of(adapter))


def test_modules_that_peft_gives_one_rank_are_padded_to_one(make, peft_loads, tmp_path):
    adapter = peft.read(make("attention"))
    updates = dict(updates_of(adapter))
    inner = updates["mha.out_proj"]
    updates["mha.out_proj"] = LowRank(inner.b[:, :1], inner.a[:1], inner.scale)

    peft.write(tmp_path, result(adapter), updates.items())

    loaded = peft_loads(tmp_path, "attention")
    assert peft.read(tmp_path).modules["mha.out_proj"].rank == 3
    assert all(distance(loaded.delta(name), update.dense()) < 1e-6 for name, update in updates.items())


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

    assert distance(dense(peft.read(tmp_path), "q"), update.dense()) < 1e-6


def test_a_number_that_half_precision_cannot_hold_is_an_error(tmp_path):
    large = LowRank(torch.full((4, 1), 1e6), torch.ones(1, 3))

    with pytest.raises(BadTensor, match="F16 cannot hold") as error:
        peft.write(tmp_path, Outline([ModuleSpec("q", 4, 3, 1, 1.0, "F16")]), [("q", large)])

    assert error.value.hint == "a wider --dtype"


def test_a_result_without_its_head_does_not_ask_for_one(make, peft_loads, tmp_path):
    folder = make("saved")
    change_config(folder, task_type="SEQ_CLS")
    adapter = peft.read(folder)

    peft.write(tmp_path, result(adapter, extras=()), updates_of(adapter))

    config = config_of(tmp_path)
    assert (config["task_type"], config["modules_to_save"]) == (None, None)
    assert peft_loads(tmp_path, "saved").complaints == []


def test_biases_of_old_versions_are_written_where_new_ones_look(make, tmp_path):
    folder = make("bias-lora-only")
    clean = load_file(folder / WEIGHTS)
    rename_tensors(folder, lambda key: key.replace(".base_layer.bias", ".bias"))
    adapter = peft.read(folder)

    peft.write(tmp_path, outline_of(adapter), updates_of(adapter))

    assert load_file(tmp_path / WEIGHTS).keys() == clean.keys()


def test_unknown_tensors_are_carried_and_named(make, tmp_path):
    folder = make("plain")
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "base_model.model.x.curious": torch.arange(3)}, folder / WEIGHTS)
    adapter = peft.read(folder)

    peft.write(tmp_path, outline_of(adapter), updates_of(adapter))

    assert adapter.extras["x.curious"].kind == "raw"
    assert "x.curious" in adapter.notes[0]
    assert load_file(tmp_path / WEIGHTS).keys() == {*tensors, "base_model.model.x.curious"}


def test_unknown_config_fields_are_kept_and_named(make, tmp_path):
    folder = make("plain")
    change_config(folder, unsloth_fixed=True)
    adapter = peft.read(folder)

    peft.write(tmp_path, outline_of(adapter), updates_of(adapter))

    assert adapter.config["unsloth_fixed"] is True
    assert "unsloth_fixed" in adapter.notes[0]
    assert config_of(tmp_path)["unsloth_fixed"] is True


def test_a_merged_linear_is_copied_as_a_plain_adapter(merged_linear, tmp_path):
    adapter = peft.read(merged_linear)

    peft.write(tmp_path, outline_of(adapter), updates_of(adapter))

    again = peft.read(tmp_path)
    assert again.modules == adapter.modules
    assert dense(again, "h.0.qkv").equal(dense(adapter, "h.0.qkv"))
    assert "enable_lora" not in again.config
