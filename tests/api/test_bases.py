"""Adapters go together that were made for one base, by whatever name it goes."""

from __future__ import annotations

import pytest

from loramerge import api
from loramerge.errors import BaseMismatch
from loramerge.formats._format import open_adapter


def test_adapters_of_different_bases_are_refused_with_both_names(session, make_adapter):
    x, y = make_adapter("x", base="acme/one"), make_adapter("y", base="acme/two")

    with pytest.raises(BaseMismatch, match="acme/one and acme/two") as caught:
        api.merge(session, [str(x), str(y)])

    assert caught.value.where == "x, y"


@pytest.mark.parametrize(
    ("what", "base"),
    [
        ({"allow_base_mismatch": True}, "acme/one"),
        ({"aliases": {"acme/one": "acme/two"}}, "acme/one"),
        ({"aliases": {"acme/two": "acme/one"}}, "acme/two"),
        ({"base": "acme/three", "allow_base_mismatch": True}, "acme/three"),
    ],
    ids=str,
)
def test_a_mismatch_can_be_overruled(session, make_adapter, what, base):
    x, y = make_adapter("x", base="acme/one"), make_adapter("y", base="acme/two")

    made = api.merge(session, [str(x), str(y)], **what)

    assert open_adapter(made.path).base == base


def test_a_recipe_that_names_the_base_holds_all_adapters_to_it(session, make_adapter):
    two = make_adapter("math-lora"), make_adapter("code-lora")

    with pytest.raises(BaseMismatch, match="acme/other and acme/base") as caught:
        api.merge(session, [str(folder) for folder in two], base="acme/other")

    assert caught.value.where == "math-lora"


def test_mirrors_of_one_base_are_one_base(session, make_adapter):
    x = make_adapter("x", base="sentence-transformers/all-MiniLM-L6-v2")
    y = make_adapter("y", base="minilm-l6-v2")

    made = api.merge(session, [str(x), str(y)])

    assert open_adapter(made.path).base == "sentence-transformers/all-MiniLM-L6-v2"


def test_an_adapter_without_a_base_is_taken_for_one_of_the_others(session, make_adapter):
    x, y = make_adapter("x"), make_adapter("y", base=None)

    made = api.merge(session, [str(x), str(y)])

    assert open_adapter(made.path).base == "acme/base"
    assert made.report["notes"] == ["y: no base model named, taken for the others'"]
