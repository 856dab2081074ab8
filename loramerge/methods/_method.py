"""What a merge method is: a pure function of updates, its options, and what it declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from loramerge.linalg.stored import UNKNOWN, Norms
from loramerge.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from loramerge.core.lowrank import LowRank
    from loramerge.linalg.tiles import Blocks, Stack, Tiles

LAWS = ("identity", "idempotence", "permutation", "units", "scale", "gauge", "zero", "linearity")
"""The laws every method is tested against; `breaks` lists those a method does not keep, and why."""

Grain = Literal["coefficients", "factors", "entries", "stream"]


@dataclass(frozen=True, slots=True)
class Context:
    """What a method may know of where it works: no file, no model, no clock.

    `weights` has one number per update, in their order. `seed` is the user's; mix it with `module`
    so that results do not depend on the order of the work. `keys` tell updates apart by their content
    (equal updates have equal keys, whatever their order, scale or the order of their units): random
    masks are drawn from them. `data` holds what the method `needs`, one tensor per update for each name.
    """

    module: str
    weights: tuple[float, ...]
    seed: int = 0
    keys: Sequence[int] = ()
    data: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A method's result for one module and what it wants said about it (plain JSON values).

    Either the sum of `parts` (a method that only weighs its updates hands them on not loaded; the engine
    adds them up), or a matrix that comes in row `blocks`, with `bias` beside it.

    A result that is nothing but the updates times `weights` says so; updates that count for nothing are no
    parts of it. `norms` are then those of the result and of its parts, as far as the method came by them.
    """

    parts: Sequence[LowRank] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    blocks: Blocks | None = None
    bias: Tensor | None = None
    weights: Sequence[float] | None = None
    norms: Norms = UNKNOWN

    @property
    def delta(self) -> LowRank:
        """The sum of the parts as one update, in float64."""
        from loramerge.core.lowrank import cat

        return cat([part.exact() for part in self.parts])

    def dense(self) -> Tensor:
        """The result as an (out, in) matrix in float64, biases left out: for references and small modules."""
        return self.delta.dense() if self.blocks is None else self.blocks.dense().double()


@dataclass(frozen=True)
class Fold:
    """A method that takes one update at a time: memory does not depend on how many there are.

    `init(shape, options, context)` makes a state, `step(state, at, update)` takes in the at-th update (loaded,
    float64) and returns the state, `finish(state)` makes the Outcome.
    """

    init: Callable[[tuple[int, int], Any, Context], Any]
    step: Callable[[Any, int, LowRank], Any]
    finish: Callable[[Any], Outcome]


@dataclass(frozen=True)
class Method:
    """A merge method.

    What `apply` is depends on the grain, `on`, that the engine feeds it:

    - "coefficients": `apply(gram, options, context)` returns n numbers; the result is Σ cᵢ ΔWᵢ. `gram()`
      gives all inner products of the updates, (n, n) in float64; not called, it costs nothing.
    - "factors": `apply(updates, options, context)` takes the updates of one module (equal shapes, any
      ranks, any floating type, all on one device; loaded when they are asked for) and returns an Outcome.
    - "entries": `apply(tile, state, options, context, start)` turns the rows `start` … of all updates,
      (n, rows, in), into rows of the result, (rows, in); it may write into the tile. `state` is what
      `survey(tiles, options, context)` made of all tiles, which it may go through several times.
    - "stream": a Fold.

    The rest declares what the house has to know of it:

    - `rank`: "free" lets the engine truncate the outcome to the rank asked for (optimally);
      "own" means that the method decides its rank and `--rank` does not apply.
    - `weights`: what each update counts for when nobody says: "mean" 1/n, "sum" 1.
    - `needs`: names of statistics of each adapter that the method cannot do without ("grams", …).
    - `random`: it draws random numbers, so `Context.keys` is filled in.
    - `arrays`: `apply` takes numpy arrays for factors as well as tensors, so that torch need not be imported.
      A method that only weighs its updates (`copies` 0) sees none of them, and need not say so.
    - `copies`: how many matrices of the size of its inputs it holds at once, for the plan's memory: of tiles on
      "entries", of all factors in float64 elsewhere. 0 for one that only weighs updates and never asks for `gram`.
    - `bound(options, ranks)`: the most units an "own" method returns for a module whose updates have
      these ranks (the planner knows no tensor); without it, the sum of the ranks.
    - `check(options, ranks)`: raises BadOption where the options cannot serve any module; gets those
      of each module, with the ranks of its updates.
    - `least`, `most`: how many adapters it takes.
    - `ordered`: the places of adapters mean something. Where an adapter lacks a module such a method gets
      an update of zero in its place; so does one that breaks the law of zero.
    - `shares(options, weights)`: what each adapter counts for where what is no update (biases, heads) is
      averaged; without it, the weights. Where one has a share of 1 and the others 0, a method that says
      this makes that adapter again.
    - `label(options)`: what distinguishes a result in its default folder name ("8" of `lego-8`).
    - `breaks`: law → why it does not hold.
    """

    apply: Any
    options: type
    source: str
    rank: Literal["free", "own"] = "free"
    weights: Literal["mean", "sum"] = "mean"
    on: Grain = "factors"
    survey: Callable[[Tiles | Stack, Any, Context], Any] | None = None
    needs: tuple[str, ...] = ()
    random: bool = False
    copies: int = 3
    arrays: bool = False
    least: int = 1
    most: int | None = None
    ordered: bool = False
    shares: Callable[[Any, Sequence[float]], Sequence[float]] | None = None
    bound: Callable[[Any, Sequence[int]], int] | None = None
    check: Callable[[Sequence[Any], Sequence[Sequence[int]]], None] | None = None
    label: Callable[[Any], str] | None = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    breaks: Mapping[str, str] = field(default_factory=dict)

    @property
    def takes_arrays(self) -> bool:
        """Whether numpy arrays will do."""
        return self.arrays or (self.on == "coefficients" and self.copies == 0)

    @property
    def counts_zeros(self) -> bool:
        """Whether an update of zero has to be handed in where an adapter lacks a module."""
        return self.ordered or "zero" in self.breaks

    @property
    def gauge_invariant(self) -> bool:
        """Whether the result depends on the updates alone, however their factors are written down."""
        return "gauge" not in self.breaks


MERGE: Registry[Method] = Registry("loramerge.methods.merge", "METHOD", "merge method")
"""Merge methods, one per file; the file name is the method name."""
