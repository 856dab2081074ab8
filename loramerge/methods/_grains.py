"""How each grain of method is fed: from the updates of one module to an Outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from loramerge.core.updates import Updates
from loramerge.methods._method import Context, Fold, Grain, Method, Outcome
from loramerge.methods._weighing import weighted

if TYPE_CHECKING:
    from loramerge.core.lowrank import LowRank


def apply(method: Method, updates: Sequence[LowRank], options: Any, context: Context) -> Outcome:
    """What a method makes of the updates of one module, before it is cut to a rank."""
    if method.random:
        context = replace(context, keys=Keys(updates))
    return _GRAINS[method.on](method, updates, options, context)


class Keys(Sequence[int]):
    """The `key` of each update, computed when it is first asked for."""

    def __init__(self, updates: Sequence[LowRank]) -> None:
        self._updates = updates
        self._known: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._updates)

    @overload
    def __getitem__(self, at: int) -> int: ...

    @overload
    def __getitem__(self, at: slice) -> list[int]: ...

    def __getitem__(self, at: int | slice) -> int | list[int]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if at not in self._known:
            self._known[at] = key(self._updates[at])
        return self._known[at]


def key(update: LowRank) -> int:
    """A number that tells updates apart by content: 64 bits of a hash over their units, whatever the units' order."""
    import torch

    flat = update.plain()
    # Plain bytes, since numpy has no bfloat16.
    rows = [side.cpu().reshape(-1).view(torch.uint8).reshape(len(side), -1).numpy() for side in (flat.a, flat.b.T)]
    units = sorted(hashlib.blake2b(a.tobytes() + b.tobytes()).digest() for a, b in zip(*rows, strict=True))
    return int.from_bytes(hashlib.blake2b(b"".join(units), digest_size=8).digest(), "little")


def _coefficients(method: Method, updates: Sequence[LowRank], options: Any, context: Context) -> Outcome:
    from loramerge.linalg.measure import gram

    numbers = [float(number) for number in method.apply(partial(gram, updates), options, context)]
    return Outcome(Updates.of(updates).weighted(numbers), {"coefficients": numbers}, weights=numbers)


def _factors(method: Method, updates: Sequence[LowRank], options: Any, context: Context) -> Outcome:
    outcome: Outcome = method.apply(updates, options, context)
    return outcome


def _entries(method: Method, updates: Sequence[LowRank], options: Any, context: Context) -> Outcome:
    """Elementwise on ΔW; LoRA's own biases, of which there is no matrix, are added with their weights."""
    from loramerge.linalg.tiles import Blocks, Tiles
    from loramerge.linalg.units import total_bias

    loaded = list(updates)
    tiles = Tiles(loaded)
    state = method.survey(tiles, options, context) if method.survey else None

    def rule(start: int, tile: Any) -> Any:
        return method.apply(tile, state, options, context, start)

    return Outcome(blocks=Blocks(tiles, rule), bias=total_bias(weighted(loaded, context)))


def _stream(method: Method, updates: Sequence[LowRank], options: Any, context: Context) -> Outcome:
    import torch

    fold: Fold = method.apply
    state = fold.init(Updates.of(updates).shape, options, context)
    for at, update in enumerate(updates):
        state = fold.step(state, at, update.to(dtype=torch.float64))
    return fold.finish(state)


_GRAINS: Mapping[Grain, Callable[[Method, Sequence[LowRank], Any, Context], Outcome]] = {
    "coefficients": _coefficients,
    "factors": _factors,
    "entries": _entries,
    "stream": _stream,
}
