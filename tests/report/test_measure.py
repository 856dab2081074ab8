"""What a report measures of adapters, against the dense matrices."""

from __future__ import annotations

import pytest
import torch

from loramerge import api
from loramerge.api.opening import open_ref
from loramerge.formats._format import open_adapter
from loramerge.report.measure import measure
from loramerge.workspace.results import read_record


@pytest.fixture
def measured(session, sources):
    """measured(path of a result) -> what is measured of it."""

    def measured(made):
        opened = open_ref(session, made.name)
        return measure(session, read_record(opened.folder), opened)

    return measured


def dense(folder):
    adapter = open_adapter(folder)
    return {name: adapter.load(name).to(dtype=torch.float64).dense() for name in adapter.modules}


def test_spectra_are_the_root_mean_squares_of_singular_values(session, sources, measured):
    made = api.merge(session, rank="2")

    found = measured(made)

    q = [matrix for name, matrix in dense(sources[0]).items() if name.endswith(".q")]
    want = torch.stack([torch.linalg.svdvals(matrix)[:4] for matrix in q]).square().mean(0).sqrt()
    at = list(found.names).index("math-lora")
    torch.testing.assert_close(torch.tensor(found.spectra["layers.q"][at], dtype=torch.float64), want)


def test_likeness_is_the_cosine_of_all_updates(session, sources, measured):
    made = api.merge(session, rank="2")

    found = measured(made)

    flat = [torch.cat([m.flatten() for m in dense(f).values()]) for f in (sources[1], sources[0], made.path)]
    want = [[float(torch.cosine_similarity(x, y, dim=0)) for y in flat] for x in flat]
    assert list(found.names) == ["code-lora", "math-lora", "linear-2"]
    torch.testing.assert_close(torch.tensor(found.cosine), torch.tensor(want), rtol=1e-5, atol=1e-6)


def test_clusters_are_those_that_the_merge_recorded(session, sources, measured):
    made = api.lego(session, k=3)

    found = measured(made)

    recorded = read_record(made.path).report["modules"]
    assert len(found.maps) == 2
    for one in found.maps:
        assert sorted((n for *_, n in one.centres), reverse=True) == recorded[one.module]["sizes"]
        assert len(one.links) == len(one.places) == 6


def test_clusters_that_cannot_be_made_again_are_not_shown(session, sources, measured):
    made = api.lego(session, k=3)
    path = made.path / "loramerge.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1').replace('"sizes": [', '"sizes": [99,'))

    found = measured(made)

    assert all(not one.centres for one in found.maps)
    assert all(len(one.places) == 9 for one in found.maps)
