"""Whether a candidate goes with a model: its modules are there, and of the same sides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from loramerge.core.names import natural
from loramerge.errors import IncompatibleError, ShapeMismatch, UnsupportedAdapter
from loramerge.models.layers import kind_of, shape_of
from loramerge.registry import near

if TYPE_CHECKING:
    from torch import Tensor, nn

    from loramerge.evaluation.candidate import Candidate


def touched(candidate: Candidate) -> set[str]:
    """The modules at which a candidate is not the base."""
    owners = {name.rpartition(".")[0] for name in (*candidate.replaced, *candidate.rows)}
    return {*(m for m, terms in candidate.terms.items() if terms), *candidate.magnitudes, *owners}


def check(candidate: Candidate, there: Mapping[str, nn.Module], where: str) -> None:
    """Raises IncompatibleError where a model lacks modules of a candidate (all are listed), ShapeMismatch otherwise."""
    if lacking := [name for name in sorted(touched(candidate), key=natural) if name not in there]:
        close = near(lacking[0], there)
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise IncompatibleError(
            f"The base lacks {len(lacking)} of the modules of {candidate.name}: {', '.join(lacking[:5])}{more}.",
            where=where,
            hint=f"--base names the model that it was trained on (this has {', '.join(close) or 'none like it'})",
        )
    for name, terms in candidate.terms.items():
        if terms and kind_of(there[name]) is None:
            raise UnsupportedAdapter(f"{name} is no layer that an update can be added to.", where=candidate.name)
        for unit, _ in terms:
            if (found := shape_of(there[name])) != unit.update.shape:
                sides = " and ".join(f"{out}×{in_}" for out, in_ in (found, unit.update.shape))
                raise ShapeMismatch(f"{name} is {sides} in base and adapter.", where=f"{where}, {candidate.name}")
    for key in (*candidate.replaced, *candidate.rows):
        _check_weight(candidate, key, there, where)


def _check_weight(candidate: Candidate, key: str, there: Mapping[str, nn.Module], where: str) -> None:
    """Raises IncompatibleError for a weight that the base lacks, ShapeMismatch for one of another width.

    Another number of rows is another number of labels or tokens, which a head or an embedding may have.
    """
    name, _, leaf = key.rpartition(".")
    weight = weights(there[name]).get(leaf)
    if weight is None:
        raise IncompatibleError(f"The base has no weight {key}, and {candidate.name} replaces it.", where=where)
    if key in candidate.rows and max(candidate.rows[key].indices, default=0) >= len(weight):
        raise IncompatibleError(
            f"{candidate.name} has trained token {max(candidate.rows[key].indices)}, and {key} has {len(weight)} rows.",
            where=where,
        )
    value = candidate.rows[key].values if key in candidate.rows else candidate.replaced[key]
    if value.shape[1:] != weight.shape[1:]:
        sides = " and ".join("×".join(map(str, one.shape)) for one in (weight, value))
        raise ShapeMismatch(f"{key} is {sides} in base and adapter.", where=f"{where}, {candidate.name}")


def weights(module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters and buffers."""
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
