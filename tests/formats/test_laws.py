"""What holds for every format: it reads what it wrote, says what it will read, and needs no torch to look."""

from __future__ import annotations

import pickle
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from loramerge.core.adapter import ExtraSpec, ModuleSpec
from loramerge.core.lowrank import LowRank
from loramerge.formats._format import FORMATS, Outline, open_adapter, outline_of, updates_of

WRITERS = [name for name in FORMATS.names() if FORMATS[name].write]
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def updates(specs):
    """Random updates for some specs, the same each time."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    return {s.name: LowRank(random(s.out, s.rank), random(s.rank, s.in_), s.scale) for s in specs}


@pytest.fixture(params=DTYPES)
def specs(request):
    dtype = request.param
    return [
        ModuleSpec("model.layers.0.q_proj", 6, 5, 2, 0.5, dtype),
        ModuleSpec("model.layers.0.v_proj", 4, 5, 3, 0.5, dtype),
        ModuleSpec("model.layers.10.q_proj", 6, 5, 2, -3.0, dtype),
        ModuleSpec("model.layers.10.v_proj", 4, 5, 1, 0.1, dtype),
    ]


@pytest.fixture(params=WRITERS)
def name(request):
    return request.param


@pytest.fixture
def folders(tmp_path):
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    return [tmp_path / str(number) for number in range(3)]


def test_a_result_is_read_as_what_it_was(name, specs, folders):
    made = updates(specs)

    FORMATS[name].write(folders[0], Outline(specs, base="some/base"), made.items())

    adapter = open_adapter(folders[0])
    assert (adapter.format, adapter.base) == (name, "some/base")
    assert list(adapter.modules) == [spec.name for spec in specs]
    tolerance = {"F64": 1e-6, "F32": 1e-6, "F16": 2e-3, "BF16": 2e-2}[specs[0].dtype]
    for spec in specs:
        update = adapter.load(spec.name)
        assert (update.shape, update.rank, update.a.dtype) == (spec.shape, spec.rank, DTYPES[spec.dtype])
        wanted = made[spec.name].dense()
        assert (update.to(dtype=torch.float32).dense() - wanted).norm() <= tolerance * wanted.norm()


def test_a_copy_is_bit_for_bit(name, specs, folders):
    FORMATS[name].write(folders[0], Outline(specs, base="some/base"), updates(specs).items())
    adapter = open_adapter(folders[0])

    FORMATS[name].write(folders[1], outline_of(adapter), updates_of(adapter))

    copy = open_adapter(folders[1])
    assert (copy.modules, copy.base) == (adapter.modules, adapter.base)
    for module in adapter.modules:
        one, two = adapter.load(module), copy.load(module)
        assert one.a.equal(two.a)
        assert one.b.equal(two.b)
        assert one.scale == two.scale


def test_a_copy_of_a_copy_is_the_same_file(name, specs, folders):
    FORMATS[name].write(folders[0], Outline(specs), updates(specs).items())
    for source, target in pairwise(folders):
        adapter = open_adapter(source)
        files = FORMATS[name].write(target, outline_of(adapter), updates_of(adapter))

    assert all((folders[1] / file).read_bytes() == (folders[2] / file).read_bytes() for file in files)


def test_the_same_updates_give_the_same_bytes(name, specs, folders):
    for folder in folders[:2]:
        files = FORMATS[name].write(folder, Outline(specs), updates(specs).items())

    assert all((folders[0] / file).read_bytes() == (folders[1] / file).read_bytes() for file in files)


def test_the_files_it_says_it_wrote_are_those_that_are_there(name, specs, folders):
    files = FORMATS[name].write(folders[0], Outline(specs), updates(specs).items())

    assert sorted(files) == sorted(item.name for item in folders[0].iterdir())
    assert sorted(open_adapter(folders[0]).files) == sorted(files)


def test_it_knows_its_own_and_no_other(name, specs, folders):
    FORMATS[name].write(folders[0], Outline(specs), updates(specs).items())

    knowing = [candidate for candidate in FORMATS.names() if FORMATS[candidate].sniff(folders[0])]

    assert knowing == [name]
    assert not FORMATS[name].sniff(folders[1])


def test_extras_survive(name, folders):
    spec = ModuleSpec("model.layers.0.q_proj", 6, 5, 2, 1.0)
    saved = torch.randn(3, 6)
    extra = ExtraSpec("head.weight", "saved", (3, 6), "F32", "head")
    outline = Outline([spec], extras=[(extra, lambda: saved)], config={"modules_to_save": ["head"]})

    FORMATS[name].write(folders[0], outline, updates([spec]).items())

    adapter = open_adapter(folders[0])
    assert adapter.extras == {"head.weight": extra}
    assert adapter.load_extra("head.weight").equal(saved)


def test_an_open_adapter_pickles(name, specs, folders):
    FORMATS[name].write(folders[0], Outline(specs), updates(specs).items())
    adapter = open_adapter(folders[0])

    again = pickle.loads(pickle.dumps(adapter))

    assert again.modules == adapter.modules
    assert again.load(specs[0].name).a.equal(adapter.load(specs[0].name).a)


def test_opening_reads_no_tensor_and_imports_no_torch(name, specs, folders):
    FORMATS[name].write(folders[0], Outline(specs), updates(specs).items())
    script = (
        "import sys\n"
        "from loramerge.formats._format import open_adapter\n"
        f"adapter = open_adapter({str(folders[0])!r})\n"
        "assert adapter.rank == 3 and adapter.nbytes\n"
        "sys.exit('torch' in sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], check=False)

    assert done.returncode == 0
