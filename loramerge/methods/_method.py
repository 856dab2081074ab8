"""What a merge method is: a pure function of updates, its options, and what it declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from loramerge.registry import Registry

if TYPE_CHECKING:
    from loramerge.core.lowrank import LowRank

LAWS = ("identity", "idempotence", "permutation", "units", "scale", "gauge", "zero", "linearity")
"""The laws every method is tested against; `breaks` lists those a method does not keep, and why."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a method may know of where it works: no file, no model, no clock.

    `weights` has one number per update, in their order. `seed` is the user's; mix it with `module`
    so that results do not depend on the order of the work.
    """

    module: str
    weights: tuple[float, ...]
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """A method's result for one module, as the sum of `parts`, and what it wants said about it (plain JSON values).

    A method that only weighs its updates hands them on as parts, not loaded; the engine adds them up.
    """

    parts: Sequence[LowRank]
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def delta(self) -> LowRank:
        """The result as one update, in float64."""
        import torch

        from loramerge.core.lowrank import cat

        return cat([part.to(dtype=torch.float64) for part in self.parts])


@dataclass(frozen=True)
class Method:
    """A merge method.

    `apply(updates, options, context)` takes the updates of one module (equal shapes, any ranks, any
    floating type, all on one device; loaded when they are asked for) and returns an Outcome.

    - `rank`: "free" lets the engine truncate the outcome to the rank asked for (optimally);
      "own" means that the method decides its rank and `--rank` does not apply.
    - `weights`: what each update counts for when nobody says: "mean" 1/n, "sum" 1.
    - `on`: the grain the engine feeds it (see docs/architecture.md).
    - `bound(options, ranks)`: the most units an "own" method returns for a module whose updates have
      these ranks (the planner knows no tensor); without it, the sum of the ranks.
    - `check(options, ranks)`: raises BadOption where the options cannot serve any module; gets those
      of each module, with the ranks of its updates.
    - `label(options)`: what distinguishes a result in its default folder name ("8" of `lego-8`).
    - `breaks`: law → why it does not hold.
    """

    apply: Callable[[Sequence[LowRank], Any, Context], Outcome]
    options: type
    source: str
    rank: Literal["free", "own"] = "free"
    weights: Literal["mean", "sum"] = "mean"
    on: Literal["coefficients", "factors", "entries", "stream"] = "factors"
    needs: tuple[str, ...] = ()
    bound: Callable[[Any, Sequence[int]], int] | None = None
    check: Callable[[Sequence[Any], Sequence[Sequence[int]]], None] | None = None
    label: Callable[[Any], str] | None = None
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    breaks: Mapping[str, str] = field(default_factory=dict)
    gauge_invariant: bool = True


MERGE: Registry[Method] = Registry("loramerge.methods.merge", "METHOD", "merge method")
