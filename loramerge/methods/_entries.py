"""Pieces that elementwise rules share: trim, drop, elect, average. On tiles (n, rows, in).

Random masks are drawn with a counter-based generator from the seed, the update's content key and the
module, at the entry's own place: they depend neither on tiles nor on the order of adapters or work.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from loramerge.errors import BadOption

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from loramerge.linalg.tiles import Stack, Tiles
    from loramerge.methods._method import Context


class Dropping(Protocol):
    """Options of a method that drops entries at random."""

    @property
    def density(self) -> float:
        """The probability that an entry is kept."""

    @property
    def rescale(self) -> str:
        """What is done to those that are: see `survey_drop`."""


def check_share(name: str, value: float, example: str) -> None:
    """Raises BadOption for a share outside (0, 1]."""
    if not 0 < value <= 1:
        raise BadOption(f"{name} is {value}, outside (0, 1].", hint=example)


def thresholds(tiles: Tiles | Stack, density: float) -> Tensor:
    """(n,) for each update the least magnitude among the `density` share of its entries largest in size.

    ⌊density · entries⌋ of them, at least one; exact (`linalg.select`).
    """
    return kth(tiles, max(1, int(density * tiles.shape[0] * tiles.shape[1])))


def kth(tiles: Tiles | Stack, k: int) -> Tensor:
    """(n,) for each update its k-th largest magnitude, counted from 1."""
    from loramerge.linalg.select import kth_held, kth_magnitudes
    from loramerge.linalg.tiles import Stack

    if isinstance(tiles, Stack):
        return kth_held(tiles.stacked, k)
    return kth_magnitudes(tiles, [k] * tiles.count)


def trim(tile: Tensor, least: Tensor) -> Tensor:
    """The tile with what is smaller in size than each update's threshold set to zero, in place."""
    import torch

    for part, bound in zip(tile, least.to(tile), strict=True):
        # Comparing into numbers takes a tenth of the time that booleans take.
        sizes = part.abs()
        part.mul_(torch.ge(sizes, bound, out=sizes))
    return tile


def uniform(context: Context, at: int, start: int, rows: int, width: int) -> Tensor:
    """(rows, width) numbers in [0, 1) for the entries of update `at` from row `start` on, in float64 of 32 bits."""
    import torch

    return torch.from_numpy(_drawn(context, at, start, rows, width) * 2.0**-32)


def _drawn(context: Context, at: int, start: int, rows: int, width: int) -> NDArray[np.uint32]:
    """(rows, width) random 32-bit numbers, each a function of the entry's place alone."""
    import numpy as np

    # Philox gives eight 32-bit numbers a step, so rows that take whole steps can start anywhere.
    steps = -(-width // 8)
    mixed = zlib.crc32(f"{context.module}:{context.seed}".encode())
    generator = np.random.Philox(key=np.array([context.keys[at], mixed], dtype=np.uint64))
    generator.advance(start * steps)
    return generator.random_raw(rows * steps * 4).view(np.uint32).reshape(rows, steps * 8)[:, :width]


def drop(tile: Tensor, density: float, context: Context, start: int) -> Tensor:
    """The tile with each entry kept with probability `density`, else set to zero, in place."""
    import numpy as np
    import torch

    last = np.uint32(max(1, round(density * 2**32)) - 1)
    for at, part in enumerate(tile):
        kept = _drawn(context, at, start, *part.shape) <= last
        part.mul_(torch.from_numpy(kept.view(np.uint8)).to(part))
    return tile


def survey_drop(tiles: Tiles | Stack, options: Dropping, context: Context) -> Sequence[float]:
    """What `drop`ped entries of each update are multiplied with under `options.rescale`.

    expectation: 1 / density. norm: what restores Σ|x| of the whole matrix. none: 1.
    """
    if options.rescale == "norm":
        return l1_ratios(tiles, lambda start, tile: drop(tile, options.density, context, start))
    return [1.0 / options.density if options.rescale == "expectation" else 1.0] * tiles.count


def l1_ratios(tiles: Tiles | Stack, mask: Callable[[int, Tensor], Tensor]) -> list[float]:
    """For each update Σ|x| over Σ|x| of what `mask(start, tile)` leaves of it; 1 where that is nothing."""
    import torch

    sums = totals(tiles, lambda start, tile: torch.cat([tile.abs(), mask(start, tile).abs()]))
    before, after = sums.chunk(2)
    ratios: list[float] = (before / after).where(after > 0, 1.0).tolist()
    return ratios


def totals(tiles: Tiles | Stack, measure: Callable[[int, Tensor], Tensor]) -> Tensor:
    """(k,) the sums of `measure(start, tile)`, (k, rows, in), over all entries, in float64; no matter the tiles."""
    import torch

    rows: Tensor | None = None
    for start, tile in tiles:
        found = measure(start, tile).sum(dim=2, dtype=torch.float64)
        rows = found.new_empty(len(found), tiles.shape[0]) if rows is None else rows
        rows[:, start : start + found.shape[1]] = found
    assert rows is not None
    return rows.sum(1)


def scaled(tile: Tensor, factors: Sequence[float]) -> Tensor:
    """Each update's entries times its factor, in place."""
    for part, factor in zip(tile, factors, strict=True):
        if factor != 1.0:
            part.mul_(factor)
    return tile


def weighted_sum(tile: Tensor, weights: Sequence[float]) -> Tensor:
    """Σ wᵢxᵢ, (n, rows, in) → (rows, in); writes into the tile."""
    return scaled(tile, weights).sum(0)


def elect_and_average(tile: Tensor, weights: Sequence[float], *, sign: str = "total", weigh: str = "after") -> Tensor:
    """TIES' second and third step on trimmed entries, (n, rows, in) → (rows, in); writes into the tile.

    `sign`: "total" elects sign(Σ x), "frequency" sign(Σ sign(x)); a tie is +. `weigh`: "after" averages wx
    over how many agree; "before" elects among wx and divides by the sum of the agreeing |w|.
    """
    ones = [1.0] * len(weights)
    if weigh == "before":
        return mean_of_agreeing(scaled(tile, weights), ones, [abs(weight) for weight in weights], sign=sign)
    return mean_of_agreeing(tile, weights, ones, sign=sign)


def mean_of_agreeing(tile: Tensor, weights: Sequence[float], shares: Sequence[float], *, sign: str = "total") -> Tensor:
    """Σ wᵢxᵢ / Σ shareᵢ over those xᵢ that have the elected sign, 0 where none has; writes into the tile."""
    import torch

    votes = tile.sign().sum(0) if sign == "frequency" else tile.sum(0)
    elected = torch.ge(votes, 0.0, out=torch.empty_like(votes)).mul_(2.0).sub_(1.0)
    total, count = torch.zeros_like(votes), torch.zeros_like(votes)
    for part, weight, share in zip(tile, weights, shares, strict=True):
        # What disagrees is negative now.
        part.mul_(elected).clamp_(min=0.0)
        count.add_(part.sign(), alpha=share)
        total.add_(part.mul_(weight))
    return total.mul_(elected).div_(count.add_(torch.eq(count, 0.0, out=votes)))
