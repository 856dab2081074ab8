"""Which modules of a model are measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loramerge.core.names import first_match, matches, natural, suffix
from loramerge.errors import BadOption, IncompatibleError
from loramerge.models.layers import EMBEDDING, kind_of

if TYPE_CHECKING:
    from torch import nn

    from loramerge.core.adapter import Adapter
    from loramerge.models.model import Model


def choose(model: Model, like: Adapter | None, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """Canonical name → module, in natural order: those of `like`, else all linear layers; of them what a pattern takes.

    Raises BadOption for a pattern that takes none, IncompatibleError where the base has no weights for one.
    """
    names = list(like.modules) if like else _linear(model)
    for pattern in patterns:
        if not any(matches(pattern, name) for name in names):
            kinds = list(dict.fromkeys(f"*.{suffix(name).rpartition('.')[2]}" for name in names))
            raise BadOption(f"No module is taken by {pattern!r}.", hint=", ".join(kinds[:12]))
    chosen = [name for name in sorted(names, key=natural) if not patterns or first_match(patterns, name)]
    for name in chosen:
        if any(weight.startswith(f"{name}.") for weight in model.untrained):
            raise IncompatibleError(f"The base has no weights for {name}.", where=model.where)
    return {name: model.modules[name] for name in chosen}


def _linear(model: Model) -> list[str]:
    return [name for name, module in model.modules.items() if kind_of(module) not in (None, EMBEDDING)]
