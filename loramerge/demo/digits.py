"""The data: scikit-learn's 1,797 handwritten digits of 8×8 pixels, and three ways to make them harder.

    faint    ink at three tenths of its strength: a dry pen
    thin     strokes worn down: every pixel becomes the darkest of its 2×2 neighbourhood
    dotted   every second pixel gone, as on a chessboard: a bad print

A shift keeps the label. All are functions of the image alone, so data repeats without a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

TRAINING = 1297
SIDE = 8


@dataclass(frozen=True)
class Digits:
    """Images (n, 8, 8) with ink in [0, 1], and their labels (n,)."""

    images: Tensor
    labels: Tensor

    def shifted(self, shift: str) -> Digits:
        """The same digits under one of `SHIFTS`."""
        return Digits(SHIFTS[shift](self.images), self.labels)

    def first(self, count: int) -> Digits:
        """The first `count` digits."""
        return Digits(self.images[:count], self.labels[:count])


def load() -> tuple[Digits, Digits]:
    """Training and test digits: always the same 1,297 and 500, mixed since the file is sorted by writer."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(bunch.images, dtype=torch.float32)[order] / 16
    labels = torch.tensor(bunch.target, dtype=torch.long)[order]
    return Digits(images[:TRAINING], labels[:TRAINING]), Digits(images[TRAINING:], labels[TRAINING:])


def faint(images: Tensor) -> Tensor:
    """Three tenths of the ink."""
    return images * 0.3


def thin(images: Tensor) -> Tensor:
    """Each pixel with its right, lower and lower-right neighbours: the least ink of the four."""
    padded = F.pad(images[:, None], (0, 1, 0, 1))
    return -F.max_pool2d(-padded, kernel_size=2, stride=1)[:, 0]


def dotted(images: Tensor) -> Tensor:
    """Only the pixels whose row and column sum to an odd number."""
    place = torch.arange(SIDE)
    return images * ((place[:, None] + place) % 2)


SHIFTS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType({"faint": faint, "thin": thin, "dotted": dotted})
