from __future__ import annotations

import fnmatch
import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loramerge.core.names import Place, canonical, first_match, matches, natural, place, suffix
from loramerge.errors import BadOption


@pytest.mark.parametrize(
    "path",
    [
        "model.layers.0.self_attn.q_proj",
        "base_model.model.model.layers.0.self_attn.q_proj",
        "base_model.model.base_model.model.model.layers.0.self_attn.q_proj",
        "module.base_model.model.model.layers.0.self_attn.q_proj",
        "base_model.model.module.base_model.model.model.layers.0.self_attn.q_proj",
        "_orig_mod.model.layers.0._checkpoint_wrapped_module.self_attn.q_proj",
        "_fsdp_wrapped_module.base_model.model.model.layers.0._orig_mod.self_attn.q_proj",
    ],
)
def test_a_canonical_name_has_no_wrappers(path):
    assert canonical(path) == "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    "name", ["base_model.encoder.layer.0", "module.fc", "model.base_model.model.fc", "model.module"]
)
def test_a_models_own_words_are_kept(name):
    assert canonical(name) == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.3.mlp.experts.7.down_proj", Place(layer=3, expert=7)),
        ("transformer.h.11.attn.c_attn", Place(layer=11, expert=None)),
        ("encoder.block.2.layer.1.DenseReluDense.wi_0", Place(layer=2, expert=None)),
        ("experts.4.layers.5.w1", Place(layer=5, expert=4)),
        ("lm_head", Place(layer=None, expert=None)),
        ("blocks.²", Place(layer=None, expert=None)),
    ],
)
def test_a_name_says_its_layer_and_expert(name, expected):
    assert place(name) == expected


def test_layers_and_experts_share_a_suffix():
    names = [f"layers.{i}.mlp.experts.{j}.down_proj" for i in range(3) for j in range(3)]

    suffixes = {suffix(name) for name in names}

    assert suffixes == {"layers.mlp.experts.down_proj"}


@pytest.mark.parametrize("name", ["lm_head", "down_blocks.attn1.to_q", "0.2"])
def test_a_suffix_keeps_what_is_no_index(name):
    assert suffix(name) == name


def test_natural_order_reads_numbers_as_numbers():
    expected = ["a.2.b", "a.2.b2", "a.2.b10", "a.10.b", "task", "task1", "task2", "task10"]
    shuffled = random.Random(0).sample(expected, len(expected))

    assert sorted(shuffled, key=natural) == expected


@given(st.lists(st.text("a.019_٣", max_size=12), max_size=12))
@settings(deadline=None)
def test_natural_order_is_total(names):
    backwards = names[::-1]

    keys = {natural(name) for name in names}

    assert len(keys) == len(set(names))
    assert sorted(names, key=natural) == sorted(backwards, key=natural)


def test_natural_order_takes_numbers_of_any_length():
    long = "layers." + "9" * 5000

    assert natural(long) > natural("layers." + "9" * 4999)


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("*.mlp.*", ["model.layers.0.mlp.up_proj", "mlp.up_proj"], ["model.layers.0.self_attn.q_proj", "a.xmlp.b"]),
        ("model.layers.[0-3].*", ["model.layers.0.q", "model.layers.3.q"], ["model.layers.4.q", "model.layers.30.q"]),
        ("*.[0-11].*", ["h.0.q", "h.9.q", "h.11.q"], ["h.12.q", "h.110.q", "h.111.q"]),
        ("*.[9-11].q", ["h.9.q", "h.10.q", "h.11.q"], ["h.8.q", "h.1.q", "h.91.q"]),
        ("*.lm_head", ["lm_head", "model.lm_head"], ["my_lm_head", "lm_head.dense"]),
        ("*_proj", ["model.q_proj", "q_proj"], ["q_proj.x"]),
        ("h.?.q", ["h.0.q", "h.9.q"], ["h.10.q", "h..q"]),
        ("a.b", ["a.b"], ["axb", "a.bc", "A.B"]),
        ("a+(b)|$", ["a+(b)|$"], ["aab"]),
        ("*", ["", "a.b\nc"], []),
        ("h**q", ["h.0.q", "hq"], ["h.qx"]),
    ],
)
def test_a_pattern_takes_whole_names(pattern, taken, left):
    assert [name for name in taken if not matches(pattern, name)] == []
    assert [name for name in left if matches(pattern, name)] == []


@given(st.integers(0, 2000), st.integers(0, 2000), st.integers(0, 2500))
@settings(deadline=None)
def test_a_range_takes_exactly_its_numbers(low, width, number):
    high = low + width

    taken = matches(f"h.[{low}-{high}].q", f"h.{number}.q")

    assert taken == (low <= number <= high)


@given(st.text("ab.*?", max_size=10).filter(lambda p: not p.startswith("*.")), st.text("ab.", max_size=14))
@settings(max_examples=500, deadline=None)
def test_patterns_without_ranges_are_those_of_fnmatch(pattern, name):
    expected = re.match(fnmatch.translate(pattern), name) is not None

    assert matches(pattern, name) == expected


@given(st.text("a1*[0-2]", max_size=8), st.text("a12", max_size=10))
@settings(max_examples=500, deadline=None)
def test_never_giving_back_loses_no_match(pattern, name):
    tokens = re.findall(r"\*|\[0-2\]|[a1]", pattern)
    free = "".join({"*": ".*", "[0-2]": "(?<![0-9])[0-2](?![0-9])"}.get(token, token) for token in tokens)

    taken = matches("".join(tokens), name)

    assert taken == (re.fullmatch(free, name) is not None)


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("layers.[3-0].*", "from 3 to 0"),
        ("layers.[abc].*", "no range"),
        ("layers.[0-3", "no range"),
        ("layers.0]", "no range"),
        ("*.[0-99999999999]", "no range"),
        ("a" * 1001, "too long"),
    ],
)
def test_a_broken_pattern_is_an_option_error(pattern, complaint):
    with pytest.raises(BadOption, match=complaint) as caught:
        matches(pattern, "layers.0")

    assert caught.value.hint


@pytest.mark.parametrize("pattern", ["*a" * 400 + "b", "*[0-99]" * 100 + "b", "*?" * 400 + "b", "*.a*" * 200])
def test_no_pattern_blows_up(pattern):
    name = "a1." * 5_000

    start = time.perf_counter()
    matches(pattern, name)

    assert time.perf_counter() - start < 2


def test_the_first_pattern_that_matches_wins():
    rules = {"*.mlp.*": 1, "*.layers.[0-3].*": 2, "*": 3}

    found = [first_match(rules, name) for name in ("m.layers.0.mlp.up", "m.layers.0.attn.q", "lm_head")]

    assert found == ["*.mlp.*", "*.layers.[0-3].*", "*"]
    assert first_match(["*.mlp.*"], "lm_head") is None
