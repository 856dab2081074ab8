"""Taken apart and put together: nothing is lost, and what is left out is what was meant."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from loramerge import api
from loramerge.core.provenance import sha256_file
from loramerge.errors import BadConfig, BadOption, LoramergeError, NotFound, OutputExists, UsageError
from loramerge.formats._format import open_adapter

WEIGHTS, CONFIG, TABLE = "adapter_model.safetensors", "adapter_config.json", "units.jsonl"

SHARED = Path(os.environ.get("LORAMERGE_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
REAL = sorted(
    config.parent.relative_to(SHARED).as_posix()
    for folder in ("adapters", "trained")
    for config in (SHARED / folder).rglob(CONFIG)
)


def taken_apart(session, folder, **options):
    """The units' folder of an adapter."""
    return api.decompose(session, str(folder), session.folder / "units", **options)


def together(session, **options):
    return api.assemble(session, session.folder / "units", session.folder / "whole", **options)


def table(session):
    return [json.loads(line) for line in (session.folder / "units" / TABLE).read_text().splitlines()]


def write_table(session, rows):
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    (session.folder / "units" / TABLE).write_text(text)


def same(x, y):
    return (x is None and y is None) or (x.dtype == y.dtype and torch.equal(x, y))


def parts(update):
    return update.b, update.a, update.mid, update.bias


@pytest.mark.parametrize("name", REAL or ["none"])
def test_all_units_of_a_real_adapter_are_the_adapter_bit_for_bit(session, shared, name):
    before = open_adapter(shared / "data" / name, allow_pickle=True)

    taken = taken_apart(session, shared / "data" / name, allow_pickle=True)
    made = together(session)

    after = open_adapter(made.path)
    assert taken.units == made.units == made.of == sum(spec.rank for spec in before.modules.values())
    assert list(after.modules) == list(before.modules)
    for module, spec in before.modules.items():
        found = after.load(module)
        assert all(same(x, y) for x, y in zip(parts(found), parts(before.load(module)), strict=True)), module
        assert (found.scale, after.modules[module].dora) == (before.load(module).scale, spec.dora)
    assert sorted(after.extras) == sorted(before.extras)
    assert all(same(after.load_extra(key), before.load_extra(key)) for key in before.extras)
    assert after.base == before.base


@pytest.mark.parametrize("name", [name for name in REAL if name.startswith("trained/")] or ["none"])
def test_a_file_that_peft_wrote_comes_back_as_the_same_tensors(session, shared, name):
    taken_apart(session, shared / "data" / name)
    made = together(session)

    before, after = (load_file(folder / WEIGHTS) for folder in (shared / "data" / name, made.path))
    assert sorted(after) == sorted(before)
    assert all(same(after[key], before[key]) for key in before)
    before, after = (json.loads((folder / CONFIG).read_text()) for folder in (shared / "data" / name, made.path))
    assert after == before


def test_there_is_one_line_for_each_unit_in_natural_order(session, make_adapter):
    sizes = {"layers.10.q": (8, 8), "layers.2.q": (8, 8)}

    taken = taken_apart(session, make_adapter("x", rank=2, modules=sizes))

    assert (taken.units, taken.of, taken.modules) == (4, 4, 2)
    assert [(row["module"], row["unit"]) for row in table(session)] == [
        ("layers.2.q", 0),
        ("layers.2.q", 1),
        ("layers.10.q", 0),
        ("layers.10.q", 1),
    ]


def test_a_line_tells_the_size_of_its_unit(session, make_adapter):
    folder = make_adapter("x", rank=3, alpha=6)

    taken_apart(session, folder)

    update = open_adapter(folder).load("layers.0.q").to(dtype=torch.float64)
    rows = [row for row in table(session) if row["module"] == "layers.0.q"]
    sizes = [float(torch.linalg.matrix_norm(2.0 * update.b[:, [j]] @ update.a[[j]])) for j in range(3)]
    assert [row["norm"] for row in rows] == pytest.approx(sizes)
    assert [row["share"] for row in rows] == pytest.approx([s * s / sum(t * t for t in sizes) for s in sizes])
    assert all("nearest" not in row for row in rows)


def test_the_nearest_unit_elsewhere_is_found_whatever_its_sign_and_scale(session, make_adapter):
    x, y = make_adapter("x", rank=2), make_adapter("y", rank=3)
    tensors = load_file(y / WEIGHTS)
    own = load_file(x / WEIGHTS)
    key = "base_model.model.layers.0.q.lora_{}.weight"
    tensors[key.format("A")][2] = -3 * own[key.format("A")][1]
    tensors[key.format("B")][:, 2] = 0.5 * own[key.format("B")][:, 1]
    from safetensors.torch import save_file

    save_file(tensors, y / WEIGHTS)
    api.pull(session, [str(y)])

    taken_apart(session, x)

    row = next(row for row in table(session) if (row["module"], row["unit"]) == ("layers.0.q", 1))
    assert row["nearest"] == "y#2"
    assert row["cosine"] == pytest.approx(-1.0)


def test_an_adapter_is_not_its_own_neighbour(session, make_adapter):
    api.pull(session, [str(make_adapter("x"))])

    api.decompose(session, "x", session.folder / "units")

    assert all("nearest" not in row for row in table(session))


def test_a_source_that_cannot_be_opened_is_no_neighbour_and_is_told(session, make_adapter):
    gone, y = make_adapter("gone"), make_adapter("y")
    api.pull(session, [str(gone), str(y)])
    shutil.rmtree(gone)

    taken = taken_apart(session, make_adapter("x"))

    (note,) = taken.notes
    assert note.startswith("gone is not compared with: ")
    assert "notes" not in taken.facts
    assert {row["nearest"].partition("#")[0] for row in table(session)} == {"y"}


def test_a_source_of_another_base_is_no_neighbour(session, make_adapter):
    other, unnamed = make_adapter("other", base="acme/other"), make_adapter("unnamed", base=None)
    api.pull(session, [str(other), str(unnamed)])
    shutil.rmtree(other)

    taken = taken_apart(session, make_adapter("x"))

    assert taken.notes == ()
    assert {row["nearest"].partition("#")[0] for row in table(session)} == {"unnamed"}


def test_what_a_condition_leaves_is_the_sum_of_those_units(session, make_adapter, toy, peft_loads):
    folder = make_adapter("x", rank=4)
    taken_apart(session, folder)
    kept = [row for row in table(session) if row["share"] > 0.2 and row["module"] != "layers.1.v"]

    made = together(session, keep="share>0.2 and not module~layers.1.v")

    before, after = open_adapter(folder), open_adapter(made.path)
    assert (made.units, made.of) == (len(kept), 16)
    assert sorted(after.modules) == sorted({row["module"] for row in kept}) != sorted(before.modules)
    for module in after.modules:
        units = [row["unit"] for row in kept if row["module"] == module]
        update = before.load(module)
        want = update.scale * update.b[:, units].double() @ update.a[units].double()
        torch.testing.assert_close(after.load(module).dense().double(), want, rtol=0, atol=1e-6 * float(want.norm()))
    model = peft_loads(toy, made.path)
    layer = model.base_model.model.layers[0]["q"]
    want = after.load("layers.0.q").dense()
    torch.testing.assert_close(layer.get_delta_weight("default"), want, rtol=0, atol=1e-6)


def test_extras_stay_when_units_go(session, make_adapter):
    head = {"classifier.weight": torch.ones(3, 6)}
    taken_apart(session, make_adapter("x", extras=head, modules_to_save=["classifier"]))

    made = together(session, keep="unit<1")

    assert list(open_adapter(made.path).extras) == ["classifier.weight"]
    assert json.loads((made.path / CONFIG).read_text())["modules_to_save"] == ["classifier"]


def test_lines_may_be_deleted_moved_and_repeated_by_hand(session, make_adapter):
    folder = make_adapter("x", rank=3, modules={"layers.0.q": (8, 8), "layers.1.q": (8, 8)})
    taken_apart(session, folder)
    rows = [row for row in table(session) if row["module"] == "layers.0.q"]

    write_table(session, [rows[2], "", rows[0], rows[2]])
    made = together(session)

    update = open_adapter(folder).load("layers.0.q")
    found = open_adapter(made.path)
    assert (made.units, made.of, made.modules) == (2, 6, 1)
    want = update.scale * update.b[:, [0, 2]] @ update.a[[0, 2]]
    torch.testing.assert_close(found.load("layers.0.q").dense(), want, rtol=0, atol=1e-5)


def test_a_line_needs_its_module_and_its_unit_only(session, make_adapter):
    taken_apart(session, make_adapter("x"))
    write_table(session, [{"module": "layers.0.q", "unit": 0}])

    assert together(session).units == 1


@pytest.mark.parametrize(
    ("line", "error", "complaint"),
    [
        ("{", BadConfig, "not a unit"),
        ("[1]", BadConfig, "not a unit"),
        ('{"module": "layers.0.q"}', BadConfig, "not a unit"),
        ('{"module": 3, "unit": 0}', BadConfig, "not a unit"),
        ('{"module": "layers.0.q", "unit": "0"}', BadConfig, "not a unit"),
        ('{"module": "layers.0.q", "unit": true}', BadConfig, "not a unit"),
        ('{"module": "layers.0.q", "unit": 4}', BadOption, "no unit 4 of layers.0.q"),
        ('{"module": "layers.0.q", "unit": -1}', BadOption, "no unit -1"),
        ('{"module": "layers.7.q", "unit": 0}', BadOption, "no unit 0 of layers.7.q"),
        ("[" * 4000, BadConfig, "not a unit"),
    ],
)
def test_a_line_that_is_no_unit_is_refused(session, make_adapter, line, error, complaint):
    taken_apart(session, make_adapter("x"))
    write_table(session, [*table(session), line])

    with pytest.raises(error, match=complaint):
        together(session)

    assert not (session.folder / "whole").exists()


def test_a_condition_that_nothing_meets_leaves_nothing_to_assemble(session, make_adapter):
    taken_apart(session, make_adapter("x"))

    with pytest.raises(UsageError, match="No unit is left"):
        together(session, keep="norm<0")

    assert not (session.folder / "whole").exists()


def test_units_of_dora_cannot_be_left_out_one_by_one(session, make_adapter):
    magnitude = {"layers.0.q.lora_magnitude_vector": torch.ones(8)}
    folder = make_adapter("x", modules={"layers.0.q": (8, 8)}, extras=magnitude, use_dora=True)
    taken_apart(session, folder)

    assert together(session).units == 4
    with pytest.raises(LoramergeError, match="DoRA"):
        api.assemble(session, session.folder / "units", session.folder / "less", keep="unit<2")


def test_a_folder_without_a_table_is_not_one_of_units(session, make_adapter):
    with pytest.raises(NotFound, match=TABLE):
        api.assemble(session, make_adapter("x"), session.folder / "whole")


def test_what_is_assembled_is_a_result_of_the_workspace(session, make_adapter):
    taken_apart(session, make_adapter("x", rank=3))

    api.assemble(session, session.folder / "units", Path("deep/less"), keep="unit<2")
    made = together(session)

    less, whole = session.workspace.results()
    assert (less.name, less.path, less.base, less.rank, less.modules) == ("less", "deep/less", "acme/base", 2, 4)
    assert (whole.name, whole.path, whole.rank) == ("whole", "whole", 3)
    assert {pin.path: pin.sha256 for pin in whole.files} == {
        name: sha256_file(made.path / name) for name in (WEIGHTS, CONFIG)
    }
    assert [row["name"] for row in api.verify(session)] == ["less", "whole"]


@pytest.mark.parametrize(
    ("out", "complaint"),
    [
        ("a b", "cannot be the name of a result"),
        ("deep/x", "'x' is the name of a source"),
        ("units", "take the place of the input 'units'"),
        ("units/adapter", "take the place of the input 'units'"),
    ],
)
def test_an_output_that_cannot_be_a_result_is_refused_before_any_work(session, make_adapter, out, complaint):
    folder = make_adapter("x")
    taken_apart(session, folder)
    api.pull(session, [str(folder)])
    before = sorted(session.folder.rglob("*"))

    with pytest.raises(BadOption, match=complaint):
        api.assemble(session, session.folder / "units", Path(out), force=True)

    assert sorted(session.folder.rglob("*")) == before
    assert [entry.role for entry in session.workspace.entries()] == ["source"]


def test_an_assembled_result_is_replaced_by_force_and_recorded_anew(session, make_adapter):
    taken_apart(session, make_adapter("x", rank=3))
    together(session)

    together(session, keep="unit<2", force=True)

    assert [(entry.name, entry.rank) for entry in session.workspace.results()] == [("whole", 2)]
    assert api.verify(session)


def test_outputs_that_are_there_stay_as_they_are(session, make_adapter):
    folder = make_adapter("x")
    taken_apart(session, folder)
    before = (session.folder / "units" / TABLE).read_bytes()

    with pytest.raises(OutputExists):
        taken_apart(session, folder)
    together(session)
    with pytest.raises(OutputExists):
        together(session)
    together(session, force=True)

    assert (session.folder / "units" / TABLE).read_bytes() == before
