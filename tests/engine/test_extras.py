"""Tensors beside the updates: what each policy keeps, averages, puts apart and says."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from loramerge.core.adapter import Adapter, ExtraSpec
from loramerge.engine.extras import merge_extras
from loramerge.errors import BadOption, IncompatibleError, ShapeMismatch

_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def adapter(name, task=None, **tensors):
    """An adapter of extras only: key → tensor, (kind, tensor), or ("tokens", tensor, indices)."""
    specs, held = {}, {}
    for key, value in tensors.items():
        kind, tensor, *indices = value if isinstance(value, tuple) else ("saved", value)
        owner = key.rpartition(".")[0]
        specs[key] = ExtraSpec(key, kind, tuple(tensor.shape), _NAMES[tensor.dtype], owner, *map(tuple, indices))
        held[key] = tensor
    return Adapter(name, "peft", {}, None, specs, partial(held.__getitem__), config={"task_type": task})


def kept(extras):
    """Key → numbers of what goes into the result itself."""
    return {spec.key: load().tolist() for spec, load in extras.kept}


def bias(*numbers, dtype=torch.float32):
    return "bias", torch.tensor(numbers, dtype=dtype)


def head(*numbers):
    return torch.tensor([numbers], dtype=torch.float32)


def test_biases_are_averaged_with_the_weights():
    x, y = adapter("x", **{"q.bias": bias(1, 2)}), adapter("y", **{"q.bias": bias(3, 6)})

    extras = merge_extras([x, y], [0.25, 0.75], "auto")

    assert kept(extras) == {"q.bias": [2.5, 5.0]}
    assert extras.notes == ("q.bias averaged over x, y",)


@pytest.mark.parametrize("weights", [[1, 3, 9], [0.1, 0.3, 0.5], [-1, -3, 7]])
def test_an_average_is_over_those_that_have_the_tensor(weights):
    x, y = adapter("x", **{"q.bias": bias(1, 2)}), adapter("y", **{"q.bias": bias(3, 6)})

    extras = merge_extras([x, y, adapter("z")], weights, "auto")

    assert kept(extras)["q.bias"] == pytest.approx([2.5, 5.0])


def test_weights_that_cancel_have_no_average():
    x, y = adapter("x", **{"q.bias": bias(1)}), adapter("y", **{"q.bias": bias(3)})

    with pytest.raises(BadOption, match="sum to zero"):
        merge_extras([x, y], [1.0, -1.0], "auto")


def test_what_is_equal_is_kept_bit_for_bit_whatever_the_weights():
    tensor = torch.tensor([0.1, 1e-30])
    adapters = [adapter(name, **{"q.bias": ("bias", tensor.clone())}) for name in "xy"]

    extras = merge_extras(adapters, [1.0, -1.0], "auto")

    assert torch.equal(extras.kept[0][1](), tensor)
    assert extras.notes == ()


@pytest.mark.parametrize("key", ["classifier.weight", "score.weight", "roberta.pooler.dense.weight", "qa_outputs.bias"])
def test_heads_that_differ_are_kept_apart_each_whole(key):
    x, y = adapter("x", **{key: head(1, 2)}), adapter("y", **{key: head(3, 4)})

    extras = merge_extras([x, y], [0.5, 0.5], "auto")

    assert kept(extras) == {}
    assert {name: sources[0][1]().tolist() for name, sources in extras.heads.items()} == {"x": [[1, 2]], "y": [[3, 4]]}
    assert extras.notes == (
        "the head of x kept as heads/x.safetensors",
        "the head of y kept as heads/y.safetensors",
    )


def test_a_head_may_have_another_shape_in_each_adapter():
    x, y = adapter("x", **{"score.weight": head(1, 2)}), adapter("y", **{"score.weight": head(3, 4, 5)})

    extras = merge_extras([x, y], [0.5, 0.5], "auto")

    assert sorted(extras.heads) == ["x", "y"]


def test_a_saved_module_of_a_classifier_is_its_head_whatever_its_name():
    x, y = adapter("x", "SEQ_CLS", **{"out.weight": head(1)}), adapter("y", "SEQ_CLS", **{"out.weight": head(2)})

    extras = merge_extras([x, y], [0.5, 0.5], "auto")

    assert sorted(extras.heads) == ["x", "y"]


def test_the_same_head_is_written_normally():
    adapters = [adapter(name, **{"score.weight": head(1, 2)}) for name in "xyz"]

    extras = merge_extras(adapters, [1, 1, 1], "auto")

    assert kept(extras) == {"score.weight": [[1, 2]]}
    assert not extras.heads


def test_a_head_that_differs_in_one_tensor_stays_together():
    x = adapter("x", **{"score.weight": head(1), "score.bias": ("saved", torch.zeros(1))})
    y = adapter("y", **{"score.weight": head(2), "score.bias": ("saved", torch.zeros(1))})

    extras = merge_extras([x, y], [0.5, 0.5], "auto")

    assert kept(extras) == {}
    assert [spec.key for spec, _ in extras.heads["y"]] == ["score.bias", "score.weight"]


def test_heads_are_apart_and_biases_averaged_in_one_merge():
    x = adapter("x", **{"score.weight": head(1), "q.bias": bias(2)})
    y = adapter("y", **{"score.weight": head(3), "q.bias": bias(4)})

    extras = merge_extras([x, y], [0.5, 0.5], "auto")

    assert kept(extras) == {"q.bias": [3.0]}
    assert sorted(extras.heads) == ["x", "y"]


def test_average_takes_heads_too():
    x, y = adapter("x", **{"score.weight": head(1, 2)}), adapter("y", **{"score.weight": head(3, 4)})

    extras = merge_extras([x, y], [1.0, 1.0], "average")

    assert kept(extras) == {"score.weight": [[2.0, 3.0]]}
    assert not extras.heads


@pytest.mark.parametrize("policy", ["auto", "average"])
def test_shapes_that_disagree_have_no_average(policy):
    x, y = adapter("x", **{"q.bias": bias(1, 2)}), adapter("y", **{"q.bias": bias(1, 2, 3)})

    with pytest.raises(ShapeMismatch, match=r"q\.bias: its shape is \(2,\) and \(3,\)") as caught:
        merge_extras([x, y], [0.5, 0.5], policy)

    assert caught.value.where == "x, y"
    assert "--extras" in caught.value.hint


def test_an_average_has_the_widest_type():
    x = adapter("x", **{"q.bias": bias(1, dtype=torch.float16), "v.bias": bias(1, dtype=torch.float16)})
    y = adapter("y", **{"q.bias": bias(2, dtype=torch.bfloat16), "v.bias": bias(2, dtype=torch.float64)})

    extras = merge_extras([x, y], [0.5, 0.5], "auto")

    assert [(spec.key, spec.dtype, load().dtype) for spec, load in extras.kept] == [
        ("q.bias", "F32", torch.float32),
        ("v.bias", "F64", torch.float64),
    ]


def rows(*numbers, at):
    return "tokens", torch.tensor([[number] for number in numbers], dtype=torch.float32), at


def test_trained_tokens_are_averaged_row_by_row():
    x, y = adapter("x", **{"emb.delta": rows(1, 2, at=[4, 7])}), adapter("y", **{"emb.delta": rows(3, 6, at=[4, 7])})

    extras = merge_extras([x, y], [0.5, 0.5], "auto")

    assert kept(extras) == {"emb.delta": [[2.0], [4.0]]}
    assert extras.kept[0][0].indices == (4, 7)


def test_rows_that_stand_for_different_tokens_have_no_average():
    x, y = adapter("x", **{"emb.delta": rows(1, 2, at=[4, 7])}), adapter("y", **{"emb.delta": rows(3, 6, at=[7, 4])})

    with pytest.raises(ShapeMismatch, match="its rows stand for different tokens"):
        merge_extras([x, y], [0.5, 0.5], "auto")


def test_copies_of_a_base_weight_that_differ_are_left_out_and_the_note_says_so():
    x, y = adapter("x", **{"emb.weight": ("base", head(1))}), adapter("y", **{"emb.weight": ("base", head(2))})

    extras = merge_extras([x, y], [0.5, 0.5], "auto")

    assert kept(extras) == {}
    assert extras.notes == ("emb.weight: the copies of a base weight differ, left out",)


@pytest.mark.parametrize("value", [("raw", head(1)), ("saved", torch.tensor([7]))], ids=["raw", "counter"])
def test_what_nobody_can_average_is_refused_unless_it_is_the_same(value):
    kind, tensor = value
    x, same, other = (adapter(n, thing=(kind, t)) for n, t in [("x", tensor), ("y", tensor), ("z", tensor + 1)])

    assert list(kept(merge_extras([x, same], [0.5, 0.5], "auto"))) == ["thing"]
    with pytest.raises(IncompatibleError, match="merge the tensor thing") as caught:
        merge_extras([x, other], [0.5, 0.5], "auto")
    assert caught.value.hint == "--extras drop"


def test_one_adapters_extras_are_all_kept():
    x = adapter("x", "SEQ_CLS", **{"score.weight": head(1), "q.bias": bias(2), "thing": ("raw", head(5))})

    extras = merge_extras([x], [3.0], "auto")

    assert kept(extras) == {"q.bias": [2.0], "score.weight": [[1.0]], "thing": [[5.0]]}


def test_first_takes_all_of_one_adapter_and_none_of_the_others():
    x = adapter("x", **{"score.weight": head(1), "q.bias": bias(2)})
    y = adapter("y", **{"score.weight": head(3), "v.bias": bias(4)})

    extras = merge_extras([x, y], [0.5, 0.5], "first:y")

    assert kept(extras) == {"score.weight": [[3.0]], "v.bias": [4.0]}
    assert extras.notes == ("extras are those of y; not those of x",)


def test_first_of_an_unknown_adapter_names_the_near_ones():
    with pytest.raises(BadOption, match="first:math names no adapter") as caught:
        merge_extras([adapter("math-lora"), adapter("code")], [1, 1], "first:math")

    assert caught.value.hint == "math-lora"


def test_drop_says_how_many_of_whom():
    x, y = adapter("x", **{"score.weight": head(1), "q.bias": bias(2)}), adapter("y")

    extras = merge_extras([x, y], [0.5, 0.5], "drop")

    assert (kept(extras), extras.heads) == ({}, {})
    assert extras.notes == ("2 extra tensors of x dropped (--extras drop)",)


def test_error_refuses_adapters_that_have_any():
    x, y = adapter("x", **{"q.bias": bias(2)}), adapter("y")

    assert merge_extras([y], [1.0], "error").kept == ()
    with pytest.raises(IncompatibleError) as caught:
        merge_extras([x, y], [0.5, 0.5], "error")
    assert caught.value.where == "x"


def test_a_policy_that_is_none_is_answered_with_those_that_are():
    with pytest.raises(BadOption, match="'automatic' is not a policy") as caught:
        merge_extras([adapter("x")], [1.0], "automatic")

    assert caught.value.hint == "auto, average, first:NAME, drop, error"


@pytest.mark.parametrize("policy", ["auto", "average", "drop", "error", "first:x"])
def test_magnitudes_belong_to_updates_and_are_no_extras_of_a_merge(policy):
    x = adapter("x", **{"q.magnitude": ("magnitude", torch.ones(2))})

    extras = merge_extras([x], [1.0], policy)

    assert (extras.kept, extras.notes) == ((), ())


def test_keys_come_in_natural_order():
    x = adapter("x", **{f"layers.{i}.bias": bias(i) for i in (10, 9, 2)})

    extras = merge_extras([x], [1.0], "auto")

    assert list(kept(extras)) == ["layers.2.bias", "layers.9.bias", "layers.10.bias"]
