"""The base model: a transformer of some hundred thousand parameters that reads a digit as 16 patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from loramerge.demo.digits import SIDE

NAME = "digits-transformer"
TARGETS = ("q", "k", "v", "o", "fc1", "fc2")
"""The linear layers that adapters change: all of a block's."""
PATCH = 2


class Block(nn.Module):
    """Attention, then a two-layer perceptron, each on a normed residual stream (n, tokens, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, width)
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The stream with both branches added."""
        x = x + self._attend(self.norm1(x))
        hidden: Tensor = self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return x + hidden

    def _attend(self, x: Tensor) -> Tensor:
        q, k, v = (self._split(part(x)) for part in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v)
        joined: Tensor = self.o(mixed.transpose(1, 2).flatten(2))
        return joined

    def _split(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        return x.view(n, tokens, self.heads, width // self.heads).transpose(1, 2)


class DigitsTransformer(nn.Module):
    """Images (n, 8, 8) to logits (n, 10)."""

    def __init__(self, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.name_or_path = NAME  # what PEFT writes into an adapter's config as its base
        self.embed = nn.Linear(PATCH * PATCH, width)
        self.place = nn.Parameter(torch.randn((SIDE // PATCH) ** 2, width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits from the mean over all patches."""
        x = self.embed(patches(images)) + self.place
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits


def patches(images: Tensor) -> Tensor:
    """(n, 8, 8) to (n, 16, 4): non-overlapping 2×2 squares in reading order."""
    rows = SIDE // PATCH
    grid = images.reshape(-1, rows, PATCH, rows, PATCH)
    return grid.transpose(2, 3).reshape(-1, rows * rows, PATCH * PATCH)
