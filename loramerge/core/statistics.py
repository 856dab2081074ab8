"""What was measured of a model's modules while it read a text: what methods that need data are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("grams", "fisher_in", "fisher_out")
"""What can be known of a module y = W x + b, W (out, in), each a mean over all x that it was given:

- grams (in, in): x xᵀ
- fisher_in (in,): x², the diagonal of the Gram matrix
- fisher_out (out,): g², g the gradient of the log-likelihood with respect to y

The diagonal of W's Fisher information is approximated by fisher_out ⊗ fisher_in, as K-FAC does: as if
gradients did not depend on inputs, nor one token's on another's. For a convolution x is a patch,
flattened as its LoRA's A is; for an embedding fisher_in has the frequency of each token.

Source: Martens and Grosse, Optimizing Neural Networks with Kronecker-factored Approximate Curvature, ICML 2015
"""


@dataclass(frozen=True)
class Statistics:
    """What was measured of a module's inputs; lazy, pickles.

    `shapes` has an entry for each pair of a kind (one of KINDS) and a canonical module name. `adapter`
    and `tokens` say with what, and over how much text.
    """

    name: str
    shapes: Mapping[tuple[str, str], tuple[int, ...]]
    loader: Callable[[str, str], Tensor]
    base: str | None = None
    adapter: str | None = None
    tokens: int | None = None

    def has(self, kind: str, module: str) -> bool:
        """Whether this is known of that module."""
        return (kind, module) in self.shapes

    def load(self, kind: str, module: str) -> Tensor:
        """One of them, in float64. Raises KeyError for what is not known."""
        if not self.has(kind, module):
            raise KeyError(f"{kind}.{module}")
        return self.loader(kind, module)
