"""Candidates on a model: forward hooks that add every candidate's update to its own rows.

Inside `Applied.on(chosen)` the model is given each input once for every chosen candidate, candidate after
candidate: (candidates · batch, …). A hook on each adapted module sees what the base's layer made of all rows
and adds what the candidates make of theirs; the layer itself stays as it is, so whatever a model does with
its weights elsewhere goes on working.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loramerge.core.arrays import tensor
from loramerge.core.names import canonical, natural, place
from loramerge.errors import IncompatibleError
from loramerge.evaluation.bank import Bank, Step
from loramerge.evaluation.candidate import Candidate
from loramerge.evaluation.fitting import check, touched, weights
from loramerge.evaluation.sharing import Layout, share
from loramerge.models.layers import CONVOLUTION, EMBEDDING, kind_of, rows_in, rows_out, shape_of

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class Site:
    """One module of the model at which candidates differ from the base."""

    name: str
    module: nn.Module
    bank: Bank
    replaced: Sequence[Mapping[str, Tensor]]
    magnitudes: Sequence[Tensor | None]
    pack: Any
    steps: dict[tuple[int, ...], list[Step]] = field(default_factory=dict)
    gains: dict[int, Tensor] = field(default_factory=dict)

    def changes(self, at: int) -> bool:
        """Whether a candidate is not the base here."""
        return bool(self.bank.terms[at] or self.replaced[at] or self.magnitudes[at] is not None)

    def signature(self, at: int) -> tuple[Any, ...]:
        """What tells candidates apart here: units with coefficients, and the tensors that replace others."""
        own = tuple((leaf, id(value)) for leaf, value in self.replaced[at].items())
        return self.bank.signatures[at], own, id(self.magnitudes[at]) if self.magnitudes[at] is not None else 0


class Applied:
    """A model with candidates on it. The model is changed by nothing but hooks, and only inside `on`.

    Raises IncompatibleError and ShapeMismatch for a model that lacks modules of a candidate or has others.
    """

    def __init__(self, module: nn.Module, candidates: Sequence[Candidate], where: str = "model") -> None:
        self.module = module
        self.candidates = list(candidates)
        self.there = {canonical(name): one for name, one in module.named_modules()}
        self.where = where
        self.apart = False
        self._plans: dict[tuple[int, ...], tuple[list[Site], set[str]]] = {}
        for candidate in candidates:
            check(candidate, self.there, where)
        self.candidates = [self._tied(candidate) for candidate in candidates]
        self.sites = [self._site(name) for name in self._names()]

    def _names(self) -> list[str]:
        found = {name for candidate in self.candidates for name in touched(candidate)}
        return sorted(found, key=natural)

    def _site(self, name: str) -> Site:
        module = self.there[name]
        weight = next(module.parameters())
        bank = Bank([candidate.terms.get(name, ()) for candidate in self.candidates])
        replaced = [_replaced(candidate, name, module) for candidate in self.candidates]
        magnitudes = [candidate.magnitudes.get(name) for candidate in self.candidates]
        pack = bank.pack(weight.dtype, weight.device) if bank.units else None
        return Site(name, module, bank, replaced, magnitudes, pack)

    def _tied(self, candidate: Candidate) -> Candidate:
        """The candidate with its trained tokens wherever the weight is in use: in a tied head too, as PEFT has it."""
        if not candidate.rows:
            return candidate
        ties: dict[int, list[str]] = {}
        for name, parameter in self.module.named_parameters(remove_duplicate=False):
            if canonical(name).rpartition(".")[0] in self.there:
                ties.setdefault(id(parameter), []).append(canonical(name))
        same = {name: names for names in ties.values() for name in names}
        rows = {tied: rows for name, rows in candidate.rows.items() for tied in same.get(name, [name])}
        return replace(candidate, rows={**rows, **candidate.rows})

    @property
    def alone(self) -> bool:
        """Whether a pass may hold one candidate only: what some modules are given are no rows of candidates.

        Rows of experts come in an order that nobody can tell, and an embedding inside a block is given distances.
        """
        places = [(place(site.name), kind_of(site.module)) for site in self.sites]
        return self.apart or any(
            at.expert is not None or (kind == EMBEDDING and at.layer is not None) for at, kind in places
        )

    @contextmanager
    def on(self, chosen: Sequence[int], *, sharing: bool = True) -> Iterator[None]:
        """Candidates with these numbers are on the model meanwhile, in this order.

        With `sharing`, which is right where all are given the same inputs, layers below the first difference run once.
        """
        layout = Layout(tuple(chosen))
        sites, differing = self._plan(layout.chosen)
        with ExitStack() as stack:
            for site in sites:
                hook = _hook(site, layout, site.name in differing)
                stack.callback(site.module.register_forward_hook(hook).remove)
            stack.enter_context(_head_in_one_piece(self.module))
            names = [self._paths[name] for name in differing]
            stack.enter_context(share(self.module, layout, names, alike=sharing))
            yield

    @cached_property
    def _paths(self) -> dict[str, str]:
        """Canonical name → the name of the module in this model."""
        return {canonical(name): name for name, _ in self.module.named_modules()}

    def _plan(self, chosen: tuple[int, ...]) -> tuple[list[Site], set[str]]:
        """The modules that some candidate changes, and the names of those at which they are not all the same."""
        if chosen not in self._plans:
            sites = [site for site in self.sites if any(site.changes(at) for at in chosen)]
            differing = {site.name for site in sites if len({site.signature(at) for at in chosen}) > 1}
            self._plans[chosen] = sites, differing
        return self._plans[chosen]


@contextmanager
def _head_in_one_piece(module: nn.Module) -> Iterator[None]:
    """What a head is given lies together in memory: of chosen positions it does not.

    torch then multiplies row by row and copies the head's whole weight for each (bfloat16: most of a pass).
    """
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None  # type: ignore[operator]
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(lambda _, given: tuple(x.contiguous() for x in given))
    try:
        yield
    finally:
        handle.remove()


def _hook(site: Site, layout: Layout, differs: bool) -> Callable[..., Tensor]:
    def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        layout.differed |= differs
        return _changed(site, layout, differs, given[0], output)

    return hook


def _replaced(candidate: Candidate, name: str, module: nn.Module) -> dict[str, Tensor]:
    """Parameters of one module that a candidate has otherwise, on its device and in its dtype; equal ones left out."""
    found: dict[str, Tensor] = {}
    for leaf, parameter in weights(module).items():
        key = f"{name}.{leaf}"
        if key in candidate.replaced:
            value = tensor(candidate.replaced[key]).to(dtype=parameter.dtype, device=parameter.device)
            if value.shape != parameter.shape or not value.equal(parameter):
                found[leaf] = value
        if key in candidate.rows:
            value = found.get(leaf, parameter).clone()
            value[list(candidate.rows[key].indices)] = tensor(candidate.rows[key].values).to(value)
            found[leaf] = value
    return found


class Apart(Exception):
    """A module is given what is no rows of candidates."""


def _changed(site: Site, layout: Layout, differs: bool, x: Tensor, y: Tensor) -> Tensor:
    """What the module of `site` gives with every candidate's change on its own rows. Raises Apart."""
    rows = layout.own * layout.count
    if len(x) % rows:
        # Places, say, which are the same for every row.
        if not differs:
            layout = Layout(layout.chosen[:1], len(x))
        elif len(x) == 1 and kind_of(site.module) == EMBEDDING:
            x, y = (part.expand(rows, *part.shape[1:]).contiguous() for part in (x, y))
        elif layout.count > 1:
            raise Apart
    y = _replacing(site, layout, x, y)
    if site.pack is None:
        return y
    if any(site.magnitudes[at] is not None for at in layout.here):
        return _with_magnitudes(site, layout, x, y)
    return _adding(site, layout, x, y)


def _replacing(site: Site, layout: Layout, x: Tensor, y: Tensor) -> Tensor:
    """The module run again, with other weights, over the rows of candidates that have them."""
    import torch

    if not any(site.replaced[at] for at in layout.here):
        return y
    parts = []
    for at, xs, ys in zip(layout.here, x.chunk(layout.count), y.chunk(layout.count), strict=True):
        own = site.replaced[at]
        parts.append(_forward(site.module, own, xs) if own else ys)
    if len({part.shape[1:] for part in parts}) > 1:
        sizes = " and ".join(dict.fromkeys(str(part.shape[-1]) for part in parts))
        raise IncompatibleError(
            f"Candidates have heads of {sizes} outputs at {site.name}, which cannot be compared.",
            where=site.name,
            hint="--heads own gives all of them the head of the source that was trained for the task",
        )
    return torch.cat(parts)


def _forward(module: nn.Module, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """The module's own forward, past its hooks, with other weights. Shapes may differ: a head of other labels."""
    from torch.func import functional_call

    hooks = module._forward_hooks.copy()
    module._forward_hooks.clear()
    try:
        found: Tensor = functional_call(module, dict(weights), (x,))
    finally:
        module._forward_hooks.update(hooks)
    return found


def _adding(site: Site, layout: Layout, x: Tensor, y: Tensor) -> Tensor:
    """y + Σ c · scale · B A x (and LoRA's own bias), in place where y's memory allows."""
    chosen = layout.here
    if chosen not in site.steps:
        site.steps[chosen] = site.bank.steps(site.pack, chosen)
    steps = site.steps[chosen]
    if kind_of(site.module) == EMBEDDING:
        return _adding_to_embedding(site, layout, x, y)
    x_rows = rows_in(site.module, x)
    is_places = kind_of(site.module) == CONVOLUTION
    y_rows = rows_out(site.module, y).contiguous()
    rows = len(x_rows) // layout.count
    for step in steps:
        step.add_(y_rows, x_rows, rows)
    _add_biases(site, layout, y_rows)
    return y_rows.reshape(y.movedim(1, -1).shape).movedim(-1, 1) if is_places else y_rows.view(y.shape)


def _add_biases(site: Site, layout: Layout, y_rows: Tensor) -> None:
    if site.bank.has_bias:
        for at, rows in zip(layout.here, y_rows.chunk(layout.count), strict=True):
            if (bias := site.bank.bias(at)) is not None:
                rows += bias.to(rows)


def _adding_to_embedding(site: Site, layout: Layout, x: Tensor, y: Tensor) -> Tensor:
    """Σ c · scale · (A's columns of the tokens)ᵀ Bᵀ: only the tokens' columns are touched."""
    factor = getattr(site.module, "embed_scale", 1.0)  # what some models multiply their embeddings by
    for at, tokens, rows in zip(layout.here, x.chunk(layout.count), y.chunk(layout.count), strict=True):
        for unit, weight in site.bank.terms[at]:
            place_ = site.bank.places[unit.key]
            units = slice(site.pack.starts[place_], site.pack.starts[place_ + 1])
            low = site.pack.a[units][:, tokens.flatten()].T
            rows += (factor * weight * unit.update.scale * (low @ site.pack.b[units])).view(rows.shape).to(rows.dtype)
    return y


def _with_magnitudes(site: Site, layout: Layout, x: Tensor, y: Tensor) -> Tensor:
    """DoRA: m/‖V‖ ∘ (W x + ΔW x) + bias, V = W + ΔW, for the candidates that have magnitudes."""
    bias: Any = getattr(site.module, "bias", None)
    added = _adding(site, layout, x, y)
    # Channels come first in what a convolution gives, and last elsewhere.
    sides = (-1,) + (1,) * (added.ndim - 2) if kind_of(site.module) == CONVOLUTION else (-1,)
    for at, rows in zip(layout.here, added.chunk(layout.count), strict=True):
        if site.magnitudes[at] is not None:
            gain = _gain(site, at).to(rows).view(sides)
            own = site.replaced[at].get("bias", bias)
            own = 0.0 if own is None else own.view(sides)
            rows.copy_(gain * (rows - own) + own)
    return added


def _gain(site: Site, at: int) -> Tensor:
    """m / ‖V‖ of one candidate, (out,), in float64; V is held a moment."""
    import torch

    if at not in site.gains:
        magnitude = site.magnitudes[at]
        assert magnitude is not None
        layer: Any = site.module
        weight = site.replaced[at].get("weight", layer.weight).to(torch.float64)
        out, in_ = shape_of(site.module)
        if kind_of(site.module) == EMBEDDING or type(layer).__name__ == "Conv1D":
            weight = weight.T
        v = weight.reshape(out, in_).clone()
        for unit, factor in site.bank.terms[at]:
            v += (unit.update.to(dtype=torch.float64).dense() * factor).to(v.device)
        site.gains[at] = tensor(magnitude).flatten().to(v) / v.norm(dim=1)
    return site.gains[at]
