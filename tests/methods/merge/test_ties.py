from __future__ import annotations

import pytest
import torch
from peft.utils.merge_utils import ties

from loramerge.errors import BadOption
from loramerge.linalg.tiles import Stack
from loramerge.methods._method import MERGE, Context
from loramerge.methods.merge.ties import Options, merge, survey


def merged(stacked, weights=(1.0, 1.0), **options):
    chosen, context = Options(**options), Context("layer.0", tuple(weights))
    return merge(stacked.clone(), survey(Stack(stacked), chosen, context), chosen, context, 0)


def test_a_disagreement_is_settled_by_the_larger_total():
    tile = torch.tensor([[[3.0, -1.0]], [[-1.0, -3.0]]])  # (n=2, rows=1, in=2)

    assert merged(tile, density=1.0).tolist() == [[3.0, -2.0]]


def test_only_the_largest_entries_of_each_update_vote():
    tile = torch.tensor([[[4.0, 1.0, 2.0, -3.0]], [[-1.0, 5.0, 6.0, 2.0]]])

    # Of the first 4 and −3 stay, of the second 5 and 6.
    assert merged(tile, density=0.5).tolist() == [[4.0, 5.0, 6.0, -3.0]]


def test_weights_enter_after_the_vote_as_in_peft_or_before_it():
    tile = torch.tensor([[[3.0]], [[-2.0]]])

    assert merged(tile, weights=(1.0, 2.0), density=1.0).tolist() == [[3.0]]
    assert merged(tile, weights=(1.0, 2.0), density=1.0, weigh="before").tolist() == [[-2.0]]


def test_signs_can_be_counted_instead_of_added():
    tile = torch.tensor([[[5.0]], [[-1.0]], [[-1.0]]])

    assert merged(tile, weights=(1.0,) * 3, density=1.0).tolist() == [[5.0]]
    assert merged(tile, weights=(1.0,) * 3, density=1.0, sign="frequency").tolist() == [[-1.0]]


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_it_is_what_peft_makes_of_dense_updates_bit_for_bit(density):
    draw = torch.Generator().manual_seed(0)
    stacked = torch.randn(3, 40, 50, generator=draw)

    want = ties(list(stacked), torch.tensor([0.3, 0.7, -1.1]), density)

    assert torch.equal(merged(stacked, weights=(0.3, 0.7, -1.1), density=density), want)


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, float("nan")])
def test_a_density_is_a_share(density):
    with pytest.raises(BadOption, match="density"):
        Options(density=density)


def test_it_is_found_by_its_file():
    assert MERGE["ties"].on == "entries"
