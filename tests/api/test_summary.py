"""What the report of a result says of families and of the whole."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file, save_file

from loramerge import api
from loramerge.recipe import Ingredient, Recipe

CLUSTERED = ("energy_kept", "cluster_sizes", "mixed")


@pytest.fixture
def merged(session, make_adapter):
    """merged(dead) -> the report of lego over two adapters whose modules with one of the names in `dead` are zero."""

    def merge(dead):
        folders = [make_adapter("math-lora"), make_adapter("code-lora")]
        for path in (folder / "adapter_model.safetensors" for folder in folders):
            tensors = load_file(path)
            save_file(
                {
                    key: value * 0 if any(f".{name}." in key for name in dead) else value
                    for key, value in tensors.items()
                },
                path,
                metadata={"format": "pt"},
            )
        recipe = Recipe(adapters=tuple(Ingredient(str(folder)) for folder in folders), method="lego", options={"k": 3})
        return api.make(session, recipe).report

    return merge


def test_a_module_of_dead_units_does_not_hide_what_the_others_kept(merged):
    report = merged(["layers.0.q"])

    living = [row for row in report["modules"].values() if "energy" in row]
    assert len(living) == len(report["modules"]) - 1
    assert report["overall"]["energy_kept"] == pytest.approx(sum(row["energy"] for row in living) / len(living))
    assert report["overall"]["mixed"] == pytest.approx(sum(row["mixing"] for row in living) / len(living))
    assert all(row.keys() >= set(CLUSTERED) for row in report["families"])


def test_where_all_units_are_dead_nothing_is_said_of_clusters(merged):
    report = merged(["layers"])

    assert not set(CLUSTERED) & report["overall"].keys()
    assert not any(set(CLUSTERED) & row.keys() for row in report["families"])
