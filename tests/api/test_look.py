"""What show and inspect say of an adapter, on one that is odd in known ways."""

from __future__ import annotations

import pytest
import torch

from loramerge import api
from loramerge.errors import BadTensor, UnsafePickle

NAMES = ("q", "dead", "twin", "zero", "huge")


def factors(name):
    """b (8, 3) and a (3, 6) of one module: plain, or odd as its name says."""
    draw = torch.Generator().manual_seed(len(name))
    b, a = torch.randn(8, 3, generator=draw), torch.randn(3, 6, generator=draw)
    if name == "dead":
        b[:, 1] = 0
    if name == "twin":
        b[:, 2], a[2] = -3 * b[:, 0], 0.5 * a[0]
    if name == "zero":
        b = torch.zeros(8, 3)
    return (b * 1000 if name == "huge" else b), a


@pytest.fixture
def odd(make_adapter):
    """An adapter of five modules, four of them odd."""
    tensors = {}
    for name in NAMES:
        b, a = factors(name)
        tensors |= {f"layers.0.{name}.lora_B.weight": b, f"layers.0.{name}.lora_A.weight": a}
    return make_adapter("odd", rank=3, alpha=6, modules={}, extras=tensors)


@pytest.fixture
def rows(session, odd):
    """Module → what inspect measured."""
    return {row["module"].rpartition(".")[2]: row for row in api.inspect(session, str(odd)).modules}


@pytest.mark.parametrize("name", NAMES)
def test_the_spectrum_is_that_of_the_dense_update(rows, name):
    b, a = factors(name)

    want = torch.linalg.svdvals(2.0 * b.double() @ a.double())[:3]
    torch.testing.assert_close(torch.tensor(rows[name]["spectrum"]).double(), want, rtol=1e-6, atol=1e-9)
    assert rows[name]["norm"] == pytest.approx(float(want.norm()))
    assert rows[name]["rank"] == 3


def test_units_that_do_nothing_and_units_that_do_the_same_are_counted(rows):
    counted = {name: (row["numerical_rank"], row["dead"], row["duplicates"]) for name, row in rows.items()}

    assert counted == {"q": (3, 0, 0), "dead": (2, 1, 0), "twin": (2, 0, 1), "zero": (0, 3, 0), "huge": (3, 0, 0)}


def test_the_effective_rank_lies_between_one_and_the_rank(rows):
    assert all(1 <= row["effective_rank"] <= 3 for name, row in rows.items() if name != "zero")
    assert rows["zero"]["effective_rank"] == 0


def test_what_deserves_a_look_is_said(session, odd):
    notes = api.inspect(session, str(odd)).notes

    assert "layers.0.zero: the update is zero, it was never trained" in notes
    assert any(note.startswith("layers.0.huge: its norm is ") for note in notes)
    assert len(notes) == 2


def test_many_remarks_of_one_kind_are_cut_short(session, make_adapter):
    tensors = {}
    for i in range(9):
        tensors |= {f"layers.{i}.q.lora_B.weight": torch.zeros(8, 2), f"layers.{i}.q.lora_A.weight": torch.ones(2, 6)}

    notes = api.inspect(session, str(make_adapter("x", rank=2, modules={}, extras=tensors))).notes

    assert len(notes) == 6
    assert notes[-1] == "and 4 more modules likewise"


def test_families_add_up(session, make_adapter):
    modules = {f"model.layers.{i}.self_attn.{name}": (8, 8) for i in (0, 1) for name in ("q_proj", "v_proj")}

    found = api.inspect(session, str(make_adapter("x", rank=2, modules=modules)))

    assert [(row["family"], row["modules"], row["rank"]) for row in found.families] == [
        ("attention.q", 2, 2),
        ("attention.v", 2, 2),
    ]
    norms = [row["norm"] for row in found.modules if row["module"].endswith("q_proj")]
    assert found.families[0]["norm"] == pytest.approx(sum(norm**2 for norm in norms) ** 0.5)


def test_show_reads_no_number(session, make_adapter):
    nan = {"layers.9.q.lora_A.weight": torch.full((4, 8), float("nan")), "layers.9.q.lora_B.weight": torch.ones(8, 4)}
    folder = make_adapter("x", extras=nan, use_rslora=True, task_type="SEQ_CLS")

    shown = api.show(session, str(folder))

    facts = {key: shown.facts[key] for key in ("name", "base", "task", "modules", "rank", "dtype", "rslora", "dora")}
    assert facts == {
        "name": "x",
        "base": "acme/base",
        "task": "SEQ_CLS",
        "modules": 5,
        "rank": 4,
        "dtype": "F32",
        "rslora": True,
        "dora": False,
    }
    assert shown.facts["scale"] == 4.0
    with pytest.raises(BadTensor, match="NaN"):
        api.inspect(session, str(folder))


def test_show_names_the_base_as_it_is_known(session, make_adapter):
    shown = api.show(session, str(make_adapter("x", base="minilm-l6-v2")))

    assert shown.facts["known_as"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_show_counts_extras_by_kind(session, make_adapter):
    extras = {"score.weight": torch.ones(2, 6), "layers.0.q.bias": torch.ones(8)}

    shown = api.show(session, str(make_adapter("x", extras=extras, modules_to_save=["score"], bias="lora_only")))

    assert shown.facts["extras"] == {"bias": 1, "saved": 1}


def test_show_of_ranks_that_differ_is_a_span(session, make_adapter):
    smaller = {"layers.9.q.lora_A.weight": torch.ones(2, 8), "layers.9.q.lora_B.weight": torch.ones(8, 2)}

    shown = api.show(session, str(make_adapter("x", rank=4, extras=smaller, rank_pattern={"layers.9.q": 2})))

    assert (shown.facts["rank"], shown.facts["scale"]) == ("2–4", "2.0–4.0")
    assert [(row["modules"], row["rank"], row["kind"]) for row in shown.families] == [
        (3, "2–4", "linear"),
        (2, 4, "linear"),
    ]


def test_a_pickle_is_not_shown_unless_it_is_allowed(session, make_adapter):
    from safetensors.torch import load_file

    folder = make_adapter("old")
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()

    with pytest.raises(UnsafePickle):
        api.show(session, str(folder))
    assert api.show(session, str(folder), allow_pickle=True).facts["modules"] == 4
