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

    `rows` is how many rows the model was given, those of all candidates. While `shared`, they are still the same
    and only the rows of the first are there. `differed`: in this forward pass they have become different.
    """

    chosen: tuple[int, ...] = ()
    rows: int = 0
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

    @property
    def own(self) -> int:
        """The rows of one candidate."""
        return self.rows // len(self.chosen)


def first_stack(module: nn.Module) -> tuple[str, list[nn.Module]]:
    """The first list of like modules, which runs first: its name and its blocks; ("", []) where there is none.

    Of an encoder-decoder the encoder's: the decoder is also run by itself, after what the encoder made.
    """
    from torch import nn

    whole: Any = module
    whole = whole.get_encoder() if hasattr(whole, "config") and whole.config.is_encoder_decoder else whole
    lists = (child for child in whole.modules() if isinstance(child, nn.ModuleList))
    stack = next((blocks for blocks in lists if len(blocks) > 1 and len({type(block) for block in blocks}) == 1), None)
    return next((name for name, child in module.named_modules() if child is stack), ""), list(stack or [])


@contextmanager
def share(module: nn.Module, layout: Layout, differing: list[str], *, alike: bool = True) -> Iterator[None]:
    """Hooks that count a pass's rows, and on the first stack of blocks, where candidates differ at modules so named.

    Not `alike`: candidates have inputs of their own, so nothing is shared.
    """
    name, blocks = first_stack(module)
    inside = [int(one.removeprefix(f"{name}.").split(".")[0]) for one in differing if one.startswith(f"{name}.")]
    # The last block at least has to run for all: what follows expects the rows of all.
    depth = min([*inside, len(blocks) - 1]) if alike and len(layout.chosen) > 1 else 0
    inner = getattr(module, "base_model", module)
    narrowed = _Narrowed(layout)
    with ExitStack() as stack:
        for start in {id(one): one for one in (module, inner)}.values():
            stack.callback(start.register_forward_pre_hook(_beginning(layout), with_kwargs=True).remove)
        for at, block in enumerate(blocks[: max(0, depth)]):
            hook = _narrowing(layout, narrowed, first=at == 0)
            stack.callback(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
        if depth > 0:
            hook = _widening(layout, narrowed)
            stack.callback(blocks[depth].register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _beginning(layout: Layout) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        layout.shared = layout.differed = False
        given = (*args, *kwargs.values())
        if any(map(_is_tensor, given)):
            layout.rows = len(_first(given))

    return hook


class _Narrowed:
    """What the blocks below the first difference are given instead of the tensors of all rows."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.known: dict[int, tuple[Tensor, Tensor]] = {}

    def begin(self) -> None:
        """A new forward pass, with other tensors."""
        self.known = {}

    def of(self, value: Tensor) -> Tensor:
        """The first candidate's rows, of a tensor that has all candidates' and the same for each; else the tensor.

        Tables of places or heads are told from rows by that, as large as they may be.
        """
        if id(value) not in self.known:
            # Kept with the original, so that no other tensor can get its id meanwhile.
            self.known[id(value)] = value, self._cut(value)
        return self.known[id(value)][1]

    def _cut(self, value: Tensor) -> Tensor:
        count = len(self.layout.chosen)
        if not len(value) or len(value) % self.layout.rows:
            return value
        first, *others = value.chunk(count)
        return first if all(first.equal(other) for other in others) else value

    def was(self, value: Tensor) -> bool:
        """Whether a tensor is one of those that blocks are given as they are: with the rows of all."""
        return id(value) in self.known


def _narrowing(layout: Layout, narrowed: _Narrowed, *, first: bool) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if first:
            narrowed.begin()
            hidden = _first((*args, *kwargs.values()))
            # Differed: by what comes before the blocks. Tokens without a text that they belong to cannot be told apart.
            layout.shared = not layout.differed and len(hidden) == layout.rows and hidden.ndim > 2
            if layout.shared:
                narrowed.known[id(hidden)] = hidden, hidden[: layout.own]
        return _each((args, kwargs), narrowed.of) if layout.shared else None

    return hook


def _widening(layout: Layout, narrowed: _Narrowed) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not layout.shared:
            return None
        layout.shared = False

        def widen(value: Tensor) -> Tensor:
            if narrowed.was(value) or len(value) != layout.own:
                return value
            return value.repeat(len(layout.chosen), *[1] * (value.ndim - 1))

        return _each((args, kwargs), widen)

    return hook


def _first(values: tuple[Any, ...]) -> Tensor:
    """The first tensor: of a model its inputs, of a block the hidden states."""
    found: Tensor = next(filter(_is_tensor, values))
    return found


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) and value.ndim > 0


def _each(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The function of a tensor, or of those of a tuple or mapping (cosines and sines); all else as it is."""
    if _is_tensor(value):
        return function(value)
    if isinstance(value, tuple):
        return tuple(_each(one, function) for one in value)
    if type(value) is dict:
        return {name: _each(one, function) for name, one in value.items()}
    return value
