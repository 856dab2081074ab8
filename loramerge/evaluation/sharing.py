"""Layers below the first difference run once.

All candidates are given the same inputs, so up to the first block in which they differ their rows are the same.
The blocks before it are given the rows of the first candidate only; the block with the difference gets them once
for each candidate. What is outside the blocks (embeddings, the head) sees all rows, as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class Layout:
    """What a pass holds: the chosen candidates, one after another, each with the same number of rows.

    While `shared`, they are still the same and only the rows of the first are there. `differed`: in this forward
    pass they have become different.
    """

    chosen: tuple[int, ...] = ()
    shared: bool = False
    differed: bool = False

    @property
    def here(self) -> tuple[int, ...]:
        """The candidates whose rows are there now."""
        return self.chosen[:1] if self.shared else self.chosen

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.here)


def first_stack(module: nn.Module) -> tuple[str, list[nn.Module]]:
    """The first list of like modules, which runs first: its name and its blocks; ("", []) where there is none."""
    from torch import nn

    for name, child in module.named_modules():
        if isinstance(child, nn.ModuleList) and len(child) > 1 and len({type(block) for block in child}) == 1:
            return name, list(child)
    return "", []


@contextmanager
def share(module: nn.Module, layout: Layout, differing: list[str]) -> Iterator[None]:
    """Hooks on the first stack of blocks of a model, where candidates differ at modules of these names."""
    name, blocks = first_stack(module)
    inside = [int(one.removeprefix(f"{name}.").split(".")[0]) for one in differing if one.startswith(f"{name}.")]
    # The last block at least has to run for all: what follows expects the rows of all.
    depth = min([*inside, len(blocks) - 1])
    if depth <= 0 or len(layout.chosen) == 1:
        yield
        return
    inner = getattr(module, "base_model", module)
    with ExitStack() as stack:
        for start in {id(one): one for one in (module, inner)}.values():
            stack.callback(start.register_forward_pre_hook(_beginning(layout)).remove)
        for at, block in enumerate(blocks[:depth]):
            hook = _narrowing(layout, first=at == 0)
            stack.callback(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
        stack.callback(blocks[depth].register_forward_pre_hook(_widening(layout), with_kwargs=True).remove)
        yield


def _beginning(layout: Layout) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any) -> None:
        layout.shared = layout.differed = False

    return hook


def _narrowing(layout: Layout, *, first: bool) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if first:
            layout.shared = not layout.differed  # by what comes before the blocks
        if not layout.shared:
            return None
        count = len(layout.chosen)
        rows = _rows(args, kwargs) // (count if first else 1)
        return _each((args, kwargs), lambda value: value[:rows] if value.shape[0] == rows * count else value)

    return hook


def _widening(layout: Layout) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not layout.shared:
            return None
        layout.shared = False
        count, rows = len(layout.chosen), _rows(args, kwargs)

        def widen(value: Tensor) -> Tensor:
            return value.repeat(count, *[1] * (value.ndim - 1)) if value.shape[0] == rows else value

        return _each((args, kwargs), widen)

    return hook


def _rows(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """The rows of the hidden states: the first tensor a block is given."""
    hidden = args[0] if args else kwargs["hidden_states"]
    return int(hidden.shape[0])


def _each(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The function of a tensor, or of those of a tuple or mapping (cosines and sines); all else as it is."""
    import torch

    if isinstance(value, torch.Tensor) and value.ndim:
        return function(value)
    if isinstance(value, tuple):
        return tuple(_each(one, function) for one in value)
    if type(value) is dict:
        return {name: _each(one, function) for name, one in value.items()}
    return value
