"""Every candidate meets every item once, however the passes are cut, and also where memory ends half-way."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from peft_models import base, load_adapter, save_adapter

from loramerge.errors import LoramergeError
from loramerge.evaluation.applied import Applied
from loramerge.evaluation.candidate import Candidate, of_adapter, scaled
from loramerge.evaluation.harness import Bench
from loramerge.evaluation.metrics import mean
from loramerge.evaluation.passes import Lot, Passes
from loramerge.evaluation.tasks._task import Prepared
from loramerge.formats._format import open_adapter

LENGTH = 4


@pytest.fixture(scope="module")
def model():
    return base("LlamaForCausalLM")


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    """The base and five more, two of them an adapter's own and three that adapter at other scales."""
    folder = tmp_path_factory.mktemp("adapters")
    made = [
        of_adapter(
            open_adapter(save_adapter(lambda: base("LlamaForCausalLM"), folder / str(rank), r=rank, target_modules=on))
        )
        for rank, on in ((4, ["q_proj"]), (2, ["v_proj", "down_proj"]))
    ]
    return [*made, *(scaled(made[0], factor, f"×{factor}") for factor in (0.25, 0.5, 3)), Candidate("base")]


def lot_of(items):
    draw = torch.Generator().manual_seed(items)
    ids = torch.randint(3, 40, (items, LENGTH), generator=draw)
    return Lot(tuple(range(100, 100 + items)), {"input_ids": ids}, LENGTH)


def run(module, inputs, count):
    logits = module(**inputs).logits[:, -1]
    return logits, logits


def gathered(passes, lot, chosen):
    """(candidate, item) → observation; fails where one comes twice."""
    found = {}
    for one in passes.over(lot, chosen):
        for (i, at), (j, item) in itertools.product(enumerate(one.candidates), enumerate(one.items)):
            assert (at, item) not in found
            found[at, item] = torch.from_numpy(one.observed[i, j])
    return found


def assert_all(found, model, lot, candidates):
    """Everything is there, as it is one at a time."""
    assert set(found) == set(itertools.product(range(len(candidates)), lot.items))
    for (at, item), value in found.items():
        applied = Applied(model, candidates)
        with torch.inference_mode(), applied.on([at]):
            place = lot.items.index(item)
            wanted = run(model, lot.part(place, place + 1).inputs, 1)[0][0].double()
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rows", [1, LENGTH, 3 * LENGTH, 7 * LENGTH, 13 * LENGTH, 10_000])
def test_any_number_of_rows_covers_all_items_of_all_candidates_once(model, candidates, rows):
    lot = lot_of(5)
    passes = Passes(Applied(model, candidates), run, rows)

    found = gathered(passes, lot, range(len(candidates)))

    assert_all(found, model, lot, candidates)
    assert passes.notes == []


def test_a_pass_has_no_more_rows_than_it_may(model, candidates):
    sizes = []
    hook = model.get_input_embeddings().register_forward_hook(lambda _, given, __: sizes.append(given[0].numel()))

    with hook:
        list(Passes(Applied(model, candidates), run, 7 * LENGTH).over(lot_of(5), range(6)))

    assert sizes == [6 * LENGTH] * 5


def limited(model, rows, error):
    """The model has no memory for more than so many rows of tokens."""

    def hook(module, given):
        if len(given[0]) > rows:
            raise error

    return model.lm_head.register_forward_pre_hook(hook)


ERRORS = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried …"),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("room", [1, 2, 5, 11])
def test_where_memory_ends_passes_are_halved_and_nothing_is_lost(model, candidates, error, room):
    lot = lot_of(5)
    passes = Passes(Applied(model, candidates), run, 10_000)

    with limited(model, room, error):
        found = gathered(passes, lot, range(len(candidates)))

    assert_all(found, model, lot, candidates)
    assert passes.rows < 2 * LENGTH * (room + 1)
    assert passes.notes[0] == "memory ended at 120 rows in a pass; passes have 60 from there on"


@pytest.mark.parametrize(("room", "times"), [(100, 1), (40, 3)])
def test_memory_ends_no_second_time_with_as_many_rows(model, candidates, room, times):
    lot = lot_of(64)
    passes = Passes(Applied(model, candidates), run, 32 * LENGTH * len(candidates))

    with limited(model, room, MemoryError()):
        found = gathered(passes, lot, range(len(candidates)))
        failures = len(passes.notes)
        list(passes.over(lot, range(len(candidates))))

    assert len(found) == 64 * len(candidates)
    assert (failures, len(passes.notes)) == (times, times)


def test_an_item_that_does_not_fit_alone_is_named(model, candidates):
    passes = Passes(Applied(model, candidates), run, 10_000)

    with (
        limited(model, 0, MemoryError()),
        pytest.raises(LoramergeError, match=r"one item of one candidate \(4, item 101\)"),
    ):
        list(passes.over(lot_of(3), range(len(candidates))))


def test_an_item_is_named_as_in_its_file(model, candidates):
    passes = Passes(Applied(model, candidates), run, 10_000, range(1000, 2000))

    with limited(model, 0, MemoryError()), pytest.raises(LoramergeError, match=r"\(4, item 1101\)"):
        list(passes.over(lot_of(3), range(len(candidates))))


def test_a_bench_remembers_how_many_rows_there_is_memory_for(model, candidates):
    prepared = Prepared([replace(lot_of(5), items=tuple(range(5)))], run, [mean("x")], 5)
    bench = Bench(model)

    with limited(model, 5, MemoryError()):
        for _ in range(3):
            bench.observe(candidates, prepared, check=False)

    rows = [int(note.split(" rows")[0].rpartition(" ")[2]) for note in bench.notes]
    assert rows[0] == 120
    assert rows == sorted(set(rows), reverse=True)


def test_other_failures_are_not_taken_for_a_lack_of_memory(model, candidates):
    with limited(model, 0, RuntimeError("shapes do not go together")), pytest.raises(RuntimeError, match="shapes"):
        list(Passes(Applied(model, candidates), run, 10_000).over(lot_of(3), [0, 1]))


# One candidate after another


class Bank(torch.nn.Module):
    """A model in which each token goes to an expert that its number names: rows come in another order."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(40, 8)
        self.experts = torch.nn.ModuleList(torch.nn.Linear(8, 8, bias=False) for _ in range(3))
        self.head = torch.nn.Linear(8, 5)

    def forward(self, input_ids):
        x = self.embed(input_ids)
        made = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            mine = input_ids % 3 == number
            made[mine] = expert(x[mine])
        return self.head(made)


def bank_candidates(draw):
    from loramerge.evaluation.candidate import Unit

    def one(number):
        terms = {f"experts.{e}": ((Unit(draw(2, (8, 8), dtype=torch.float32)), 1.0),) for e in range(3)}
        return Candidate(str(number), terms)

    return [one(0), one(1), Candidate("base")]


def test_experts_run_with_one_candidate_a_pass(draw):
    model, candidates = Bank().requires_grad_(False), bank_candidates(draw)
    lot = lot_of(5)

    def run_bank(module, inputs, count):
        logits = module(**inputs)[:, -1]
        return logits, logits

    found = gathered(Passes(Applied(model, candidates), run_bank, 10_000), lot, range(3))

    for at, candidate in enumerate(candidates):
        moved = Bank()
        for name, terms in candidate.terms.items():
            moved.get_submodule(name).weight.data += terms[0][0].update.dense()
        for place, item in enumerate(lot.items):
            wanted = moved(lot.inputs["input_ids"][place : place + 1])[0, -1].double()
            torch.testing.assert_close(found[at, item], wanted, rtol=0, atol=1e-5)


class Distances(torch.nn.Module):
    """A model that projects something that is no text's: a table of places, in each pass."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(40, 8)
        self.table = torch.nn.Parameter(torch.randn(LENGTH, 8))
        self.places = torch.nn.Linear(8, 8)

    def forward(self, input_ids):
        return self.embed(input_ids) * self.places(self.table)


def test_what_is_given_no_rows_of_candidates_runs_with_one_candidate_a_pass(draw):
    from loramerge.evaluation.candidate import Unit

    model = Distances().requires_grad_(False)
    units = [Unit(draw(2, (8, 8), dtype=torch.float32)) for _ in range(3)]
    candidates = [Candidate(str(at), {"places": ((unit, 1.0),)}) for at, unit in enumerate(units)]
    lot = lot_of(5)
    passes = Passes(Applied(model, candidates), lambda module, inputs, _: (module(**inputs)[:, -1],) * 2, 10_000)

    found = gathered(passes, lot, range(3))

    for (at, item), value in found.items():
        moved = Distances()
        moved.places.weight.data += units[at].update.dense()
        wanted = moved(lot.inputs["input_ids"][item - 100 : item - 99])[0, -1].double()
        torch.testing.assert_close(value, wanted, rtol=0, atol=1e-5)
    assert passes.notes == ["one candidate a pass: the model gives some module what belongs to no candidate"]


def test_a_real_model_that_also_projects_distances_gives_what_peft_gives(tmp_path):
    kind, lot = "DebertaV2ForSequenceClassification", lot_of(3)
    configs = [
        {"target_modules": ["query_proj", "key_proj"]},
        {"target_modules": ["dense"]},
        {"target_modules": ["value_proj"]},
    ]
    folders = [
        save_adapter(lambda: base(kind), tmp_path / str(seed), seed=seed, r=2, task_type="SEQ_CLS", **config)
        for seed, config in enumerate(configs)
    ]
    candidates = [of_adapter(open_adapter(folder)) for folder in folders]
    passes = Passes(Applied(base(kind), candidates), lambda module, inputs, _: (module(**inputs).logits,) * 2, 10_000)

    found = gathered(passes, lot, range(3))

    for at, folder in enumerate(folders):
        with torch.inference_mode():
            wanted = load_adapter(base(kind), folder)(**lot.inputs).logits.double()
        torch.testing.assert_close(torch.stack([found[at, item] for item in lot.items]), wanted, rtol=0, atol=1e-4)
