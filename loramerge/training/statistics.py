"""Statistics of a model's modules over a text, as running sums in float64: nothing is kept of a token.

What is measured is said in `core.statistics`. The log-likelihood whose gradient `fisher_out` squares is

- of a causal model that of each next token of the text,
- of a classifier that of labels drawn from its own prediction, which is what the Fisher information is
  the mean over (Kunstner et al., Limitations of the Empirical Fisher Approximation, NeurIPS 2019),

summed over the text; a gradient at one token sums over all that follow from it in its line. Only what
fits `max_memory` is measured at a time, in as many passes over the text as that takes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from loramerge.errors import BadOption
from loramerge.models import layers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from loramerge.models.model import Model
    from loramerge.models.text import Batches

Shapes = dict[tuple[str, str], tuple[int, ...]]
Progress = Callable[[int, int], None]

_SUM_BYTES = 8
_SINGLE = "single_label_classification"


def check_likelihood(model: Model) -> None:
    """Raises BadOption where the model gives no probabilities, or only those of a head nobody trained."""
    hint = "leave --fisher out, or take a model with a head"
    if model.task == "FEATURE_EXTRACTION":
        raise BadOption("--fisher needs a likelihood, and an encoder without a head has none.", hint=hint)
    config: Any = model.module.config
    if model.task != "CAUSAL_LM" and (config.num_labels < 2 or config.problem_type not in (None, _SINGLE)):
        raise BadOption("--fisher needs a model that chooses one of several labels.", hint=hint)
    if model.untrained:
        raise BadOption(
            f"--fisher needs a trained head, and {', '.join(model.untrained)} are in neither base nor adapter.",
            where=model.where,
            hint="an adapter that was saved with its head, as REF",
        )


@dataclass
class Measurement:
    """A model, a text, and the modules to measure; `unused` fills with the names of those that were given nothing."""

    model: Model
    batches: Batches
    modules: Mapping[str, nn.Module]
    fisher: bool = False
    seed: int = 0
    device: str = "cpu"
    unused: list[str] = field(default_factory=list)

    @cached_property
    def shapes(self) -> Shapes:
        """What there is to measure, in order; of a layer that is no matrix there is nothing."""
        found: Shapes = {}
        for name, module in self.modules.items():
            kind = layers.kind_of(module)
            if kind is None:
                continue
            out, in_ = layers.shape_of(module)
            if kind != layers.EMBEDDING:
                found["grams", name] = (in_, in_)
            if self.fisher:
                found["fisher_in", name] = (in_,)
                found["fisher_out", name] = (out,)
        return found

    def collect(
        self, max_memory: int | None = None, progress: Progress = lambda done, total: None
    ) -> Iterator[tuple[str, str, Tensor]]:
        """(kind, module, tensor in float64) for each of `shapes`; means are over what a module was given.

        A module that was given nothing has zeros. Raises BadOption where the sums of one module alone
        are more than `max_memory`.
        """
        lots = list(_lots(self.shapes, max_memory))
        self.model.module.to(self.device)
        for number, names in enumerate(lots):
            meters = [Meter(name, self.modules[name], self.fisher, self.device) for name in names]
            for done in self._pass(meters):
                progress(number * len(self.batches) + done, len(lots) * len(self.batches))
            self.unused += [meter.name for meter in meters if not meter.rows]
            for meter in meters:
                yield from meter.means()

    def _pass(self, meters: Sequence[Meter]) -> Iterator[int]:
        """Run over the text once; yields the number of batches done."""
        import torch

        draws = random.Random(self.seed)
        with ExitStack() as stack:
            for meter in meters:
                stack.enter_context(meter.module.register_forward_hook(meter.forward))
            for done, batch in enumerate(self.batches, 1):
                with torch.set_grad_enabled(self.fisher):
                    self._run({name: tensor.to(self.device) for name, tensor in batch.items()}, draws)
                yield done

    def _run(self, batch: Mapping[str, Tensor], draws: random.Random) -> None:
        output = self.model.module(**{name: batch[name] for name in batch if name in self.model.takes})
        if self.fisher:
            value = log_likelihood(self.model.task, output.logits, batch["input_ids"], draws)
            if value.requires_grad:  # unless none of the modules ran
                value.backward()  # type: ignore[no-untyped-call]


def _lots(shapes: Shapes, max_memory: int | None) -> Iterator[list[str]]:
    """The names of modules that are measured together, in order."""
    sizes: dict[str, int] = {}
    for (_, name), shape in shapes.items():
        sizes[name] = sizes.get(name, 0) + _SUM_BYTES * math.prod(shape)
    lot: list[str] = []
    held = 0
    for name in sizes:
        size = sizes[name]
        if max_memory is not None and size > max_memory:
            raise BadOption(
                f"The sums of {name} take {size:,} bytes, more than --max-memory allows.",
                hint=f"--max-memory {-(-size // 2**20)}MiB",
            )
        if lot and max_memory is not None and held + size > max_memory:
            yield lot
            lot, held = [], 0
        lot.append(name)
        held += size
    if lot:
        yield lot


class Meter:
    """The running sums of one module, fed by hooks while the model runs."""

    def __init__(self, name: str, module: nn.Module, fisher: bool, device: str) -> None:
        import torch

        out, in_ = layers.shape_of(module)
        self.name = name
        self.module = module
        self.fisher = fisher
        self.embedding = layers.kind_of(module) == layers.EMBEDDING
        self.rows = 0
        # Of an embedding, whose inputs have one 1 each, the Gram matrix is diagonal.
        self.inputs = torch.zeros((in_,) if self.embedding else (in_, in_), dtype=torch.float64, device=device)
        self.gradients = torch.zeros(out, dtype=torch.float64, device=device)

    def forward(self, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """A forward hook: adds the inputs and, for the Fisher information, waits for the gradient."""
        rows = layers.rows_in(module, given[0].detach())
        self.rows += len(rows)
        if self.embedding:
            self.inputs += rows.bincount(minlength=len(self.inputs))
        else:
            rows = rows.double()
            self.inputs.addmm_(rows.T, rows)
        if not self.fisher:
            return output
        if not output.requires_grad:
            output = output.requires_grad_().clone()  # the model may write into it, not into a leaf
        output.register_hook(self.backward)  # type: ignore[no-untyped-call]
        return output

    def backward(self, gradient: Tensor) -> None:
        """Adds the squared gradient of one output."""
        self.gradients += layers.rows_out(self.module, gradient).double().square().sum(0)

    def means(self) -> Iterator[tuple[str, str, Tensor]]:
        """(kind, module, mean) of each kind."""
        count = max(self.rows, 1)
        inputs = self.inputs.cpu() / count
        if not self.embedding:
            # The product of a matrix with its own transpose need not come out symmetric to the last bit.
            yield "grams", self.name, (inputs + inputs.T) / 2
        if self.fisher:
            yield "fisher_in", self.name, inputs if self.embedding else inputs.diagonal()
            yield "fisher_out", self.name, self.gradients.cpu() / count


def log_likelihood(task: str, logits: Tensor, tokens: Tensor, draws: random.Random) -> Tensor:
    """Of a causal model's next tokens, or of one label for each of a classifier's rows, drawn as it predicts."""
    import torch

    if task == "CAUSAL_LM":
        logits, labels = logits[:, :-1], tokens[:, 1:]
    found = logits.float().log_softmax(dim=-1)
    if task != "CAUSAL_LM":
        # One number for each row, in their order: the same labels whatever the size of a batch.
        uniform = torch.tensor([draws.random() for _ in range(found[..., 0].numel())], device=found.device)
        passed = found.detach().exp().cumsum(dim=-1) < uniform.reshape(*found.shape[:-1], 1)
        labels = passed.sum(dim=-1).clamp(max=found.shape[-1] - 1)
    return found.gather(-1, labels.unsqueeze(-1)).sum()
