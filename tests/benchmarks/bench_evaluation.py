"""What does it cost to run many adapters on one base, against one after another?

A random Llama of 8 layers of width 512 and adapters of rank 16 on all seven projections, the inputs the same for
all adapters. Ways, round after round in one process:

- peft: PEFT's documented loop, all adapters loaded, `set_adapter` before each
- peft-lean: PEFT with one adapter loaded at a time; loading is not counted
- loop: one adapter after another through bare hooks, the best a sequential loop can be
- together: all adapters in one pass
- base: the base alone on as many rows, which nothing can beat

    python tests/benchmarks/bench_evaluation.py [--threads 1] [--rounds 5] [--dtype F32]
    python tests/benchmarks/bench_evaluation.py --coefficients       linear candidates: coefficients or merged updates
    python tests/benchmarks/bench_evaluation.py --memory             the memory of both, a process each
    python tests/benchmarks/bench_evaluation.py --size 8b --device cuda --dtype BF16   decode steps and scoring on a GPU

Needs `[models]`.
"""

from __future__ import annotations

import argparse
import gc
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from _harness import Used, compare, process, record, script, timed
from torch import Tensor, nn

from loramerge.core.lowrank import LowRank
from loramerge.evaluation.applied import Applied
from loramerge.evaluation.candidate import Candidate, Unit, combined
from loramerge.evaluation.passes import GPU_ROWS, ROWS, Lot, Pass, Passes, repeated

RANK, ALPHA = 16, 32
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SHAPES = ((32, 1, 8), (8, 1, 32), (8, 1, 1), (8, 4, 64), (32, 4, 64), (2, 1, 8))
"""Adapters, items, tokens of an item."""


@dataclass(frozen=True)
class Size:
    """The sides of a random Llama."""

    layers: int = 8
    width: int = 512
    inner: int = 1376
    words: int = 512
    heads: int = 8
    shared_heads: int = 8
    """Heads of keys and values."""


SMALL = Size()


def base(dtype: torch.dtype, size: Size = SMALL, device: str = "cpu") -> nn.Module:
    """The random Llama, made where and as it is used."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.shared_heads,
        vocab_size=size.words,
        use_cache=False,
        pad_token_id=None,
    )
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval().requires_grad_(False)


def updates(model: nn.Module, count: int) -> list[dict[str, LowRank]]:
    """Random adapters of the model, where it is."""
    generator = torch.Generator(device_of(model)).manual_seed(1)

    def drawn(*sides: int, like: Tensor) -> Tensor:
        return torch.randn(*sides, generator=generator, dtype=like.dtype, device=like.device)

    def one(module: nn.Module) -> LowRank:
        b = drawn(module.out_features, RANK, like=module.weight) * 0.02
        a = drawn(RANK, module.in_features, like=module.weight) * 0.05
        return LowRank(b, a, ALPHA / RANK)

    sites = {name: module for name, module in model.named_modules() if name.endswith(TARGETS)}
    return [{name: one(module) for name, module in sites.items()} for _ in range(count)]


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def candidates(made: list[dict[str, LowRank]]) -> list[Candidate]:
    """The adapters as candidates."""
    return [
        Candidate(f"a{at}", {name: ((Unit(update), 1.0),) for name, update in some.items()})
        for at, some in enumerate(made)
    ]


def with_peft(model: nn.Module, made: list[dict[str, LowRank]]) -> nn.Module:
    """The model with all adapters loaded by PEFT: a model of its own, whose weights are the same memory."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), lora_dropout=0.0)
    how = {"autocast_adapter_dtype": False, "low_cpu_mem_usage": True}
    own = deepcopy(model, {id(weight): weight for weight in model.parameters()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft = get_peft_model(own, config, adapter_name="a0", **how)
        for at in range(1, len(made)):
            peft.add_adapter(f"a{at}", config, **how)
    for name, module in peft.named_modules():
        if hasattr(module, "lora_A"):
            key = name.removeprefix("base_model.model.")
            for at, some in enumerate(made):
                module.lora_A[f"a{at}"].weight = nn.Parameter(some[key].a, requires_grad=False)
                module.lora_B[f"a{at}"].weight = nn.Parameter(some[key].b, requires_grad=False)
    return peft.eval()


@contextmanager
def bare(model: nn.Module, some: dict[str, LowRank]) -> Iterator[None]:
    """One adapter on the model by nothing but a hook on each module."""

    def hook(module: nn.Module, given: tuple[Tensor], output: Tensor, update: LowRank) -> Tensor:
        flat = output.view(-1, output.shape[-1])
        h = given[0].reshape(-1, given[0].shape[-1]) @ update.a.T
        return flat.addmm_(h, update.b.T, alpha=update.scale).view(output.shape)

    there = dict(model.named_modules())
    handles = [there[name].register_forward_hook(partial(hook, update=update)) for name, update in some.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def in_order(passes: Iterator[Pass], count: int, items: int) -> Tensor:
    """What passes made, candidate after candidate, (candidates · items, numbers)."""
    found = list(passes)
    made = found[0].raw.new_empty(count, items, found[0].raw.shape[-1])
    for one in found:
        made[torch.tensor(one.candidates)[:, None], torch.tensor(one.items)] = one.raw
    return made.flatten(0, 1)


@dataclass(frozen=True)
class Setup:
    """A model and its adapters, for every way."""

    model: nn.Module
    made: list[dict[str, LowRank]]
    peft: nn.Module
    lean: nn.Module
    whole: Applied

    @classmethod
    def of(cls, model: nn.Module, count: int) -> Setup:
        made = updates(model, count)
        return cls(model, made, with_peft(model, made), with_peft(model, made[:1]), Applied(model, candidates(made)))


@dataclass(frozen=True)
class Past:
    """What came before the inputs: a cache for each adapter's rows, and one for the rows of all."""

    each: list[Any]
    all: Any

    @classmethod
    def none(cls, count: int) -> Past:
        return cls([None] * count, None)


def ways(setup: Setup, ids: Tensor, past: Past) -> dict[str, Callable[[], Tensor]]:
    """Every way as a function that makes the last hidden states of all adapters, (adapters · items, tokens, width)."""
    model, count = setup.model, len(setup.made)

    def documented() -> Tensor:
        found = []
        for at in range(count):
            setup.peft.set_adapter(f"a{at}")
            found.append(forward(setup.peft.base_model.model, ids, past.each[at]))
        return torch.cat(found)

    def one_loaded() -> Tensor:
        return torch.cat([forward(setup.lean.base_model.model, ids, cache) for cache in past.each])

    def loop() -> Tensor:
        found = []
        for some, cache in zip(setup.made, past.each, strict=True):
            with bare(model, some):
                found.append(forward(model, ids, cache))
        return torch.cat(found)

    def step() -> Tensor:
        with setup.whole.on(range(count), sharing=False):
            return base_step()

    def base_step() -> Tensor:
        return forward(model, repeated(ids, count), past.all)

    found = {"peft": documented, "peft-lean": one_loaded, "loop": loop}
    if past.all is not None:
        return found | {"together": step, "base": base_step}
    return found | {
        "together": partial(last_states, setup.whole, ids, count),
        "base": partial(on_rows, model, ids, count),
    }


def forward(model: nn.Module, ids: Tensor, cache: Any = None) -> Tensor:
    """The last hidden states; the cache is left as it was."""
    found: Tensor = model.model(input_ids=ids, past_key_values=cache, use_cache=cache is not None).last_hidden_state
    if cache is not None:
        cache.crop(-ids.shape[1])
    return found


def difference(got: Tensor, wanted: Tensor) -> float:
    """The relative difference, in the 2-norm."""
    wanted = wanted.double()
    return float((got.double() - wanted).norm() / wanted.norm())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["F32", "BF16"], default="F32")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the shapes")
    parser.add_argument("--coefficients", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--once", nargs=2, metavar=("WAY", "COUNT"), help="what a process of --memory does")
    parser.add_argument("--size", choices=["8b", "toy"], help="decode steps and scoring of a Llama of that size")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where that is")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    dtype = torch.bfloat16 if chosen.dtype == "BF16" else torch.float32
    with torch.inference_mode():
        if chosen.size:
            import _evaluation_sized

            _evaluation_sized.main(chosen.size, chosen.device, dtype, chosen.rounds)
        elif chosen.memory:
            memory()
        elif chosen.once:
            once(chosen.once[0], int(chosen.once[1]))
        elif chosen.coefficients:
            coefficient_form(chosen.rounds)
        else:
            for shape in SHAPES[: chosen.shapes]:
                one_shape(shape, chosen.rounds, dtype)


def one_shape(shape: tuple[int, int, int], rounds: int, dtype: torch.dtype) -> None:
    """All ways at one shape; what they make must agree."""
    count, items, tokens = shape
    made = ways(Setup.of(base(dtype), count), tokens_of(SMALL, items, tokens), Past.none(count))
    error = difference(made["together"](), made["loop"]())
    timers: dict[str, Callable[[], Used]] = {name: partial(timed, way) for name, way in made.items()}
    shown = {"adapters": count, "items": items, "tokens": tokens, "dtype": name_of(dtype)}
    tell({name: row["wall_s"] for name, row in compare("evaluation", timers, rounds, **shown, error=error).items()})
    print(f"   differs by {error:.1e}", flush=True)


def tokens_of(size: Size, items: int, tokens: int) -> Tensor:
    """Random items."""
    return torch.randint(size.words, (items, tokens), generator=torch.Generator().manual_seed(2))


def name_of(dtype: torch.dtype) -> str:
    return "BF16" if dtype == torch.bfloat16 else "F32"


def tell(took: Mapping[str, float]) -> None:
    """Print the other ways' times over that of one pass."""
    ratios = [f"{way} {wall / took['together']:.2f}×" for way, wall in took.items() if way != "together"]
    print(f"   over together: {', '.join(ratios)}", flush=True)


def mixtures(model: nn.Module, count: int) -> list[Candidate]:
    """Random linear candidates of four sources."""
    sources = candidates(updates(model, 4))
    weights = torch.rand(count, 4, generator=torch.Generator().manual_seed(3)).tolist()
    names = list(sources[0].terms)
    return [combined(f"c{at}", sources, [dict.fromkeys(names, w) for w in row]) for at, row in enumerate(weights)]


def last_states(applied: Applied, ids: Tensor, count: int) -> Tensor:
    """The last hidden states of all candidates."""

    def run(module: nn.Module, inputs: dict[str, Tensor], number: int) -> tuple[Tensor, Tensor]:
        states = forward(module, inputs["input_ids"])
        return states[:, -1, :1], states

    lot = Lot(tuple(range(len(ids))), {"input_ids": ids}, ids.shape[1])
    made = in_order(Passes(applied, run, rows_on(ids.device)).over(lot, range(count)), count, len(ids))
    return made.unflatten(1, (ids.shape[1], -1))


def on_rows(model: nn.Module, ids: Tensor, count: int) -> Tensor:
    """The base alone, on as many rows in passes of the same size."""
    some = max(1, rows_on(ids.device) // ids.numel())
    parts = [min(some, count - start) for start in range(0, count, some)]
    return torch.cat([forward(model, repeated(ids, part)) for part in parts])


def rows_on(device: torch.device) -> int:
    return GPU_ROWS if device.type == "cuda" else ROWS


def coefficient_form(rounds: int) -> None:
    """Linear candidates of four sources: a row of coefficients each, or an update each."""
    ids = tokens_of(SMALL, 1, 8)
    model = base(torch.float32)
    for count in (8, 32, 128):
        rows = mixtures(model, count)
        held = {"coefficients": Applied(model, rows), "updates": Applied(model, [materialised(row) for row in rows])}
        made = {name: partial(last_states, applied, ids, count) for name, applied in held.items()}
        a, b = (way().double() for way in made.values())
        error = float((a - b).norm() / b.norm())
        ways = {**made, "base": partial(on_rows, model, ids, count)}
        found = compare(
            "coefficients",
            {name: partial(timed, way) for name, way in ways.items()},
            rounds,
            candidates=count,
            error=error,
        )
        took = {name: row["wall_s"] for name, row in found.items()}
        over = {name: took[name] - took["base"] for name in held}
        print(
            f"   {count} candidates: over the base {over['coefficients'] / took['base']:.0%} against "
            f"{over['updates'] / took['base']:.0%}, {over['coefficients'] / over['updates']:.2f} of it; "
            f"differ by {error:.1e}",
            flush=True,
        )
        del held, made, ways
        gc.collect()


def memory() -> None:
    """The most memory that a process takes with so many linear candidates."""
    for count in (1, 8, 32, 128):
        for way in ("coefficients", "updates"):
            used = process(script("bench_evaluation.py", "--once", way, str(count)))
            record("coefficients-memory", way=way, candidates=count, peak_mb=round(used.peak, 1))
            print(f"{count:4} candidates as {way:12} {used.peak:6.0f} MB", flush=True)


def once(way: str, count: int) -> None:
    """One pass of linear candidates in one of the two ways."""
    model = base(torch.float32)
    rows = mixtures(model, count)
    ids = tokens_of(SMALL, 1, 8)
    last_states(Applied(model, rows if way == "coefficients" else [materialised(row) for row in rows]), ids, count)


def materialised(row: Candidate) -> Candidate:
    """The same candidate with one update at each module: its units side by side, coefficients in them."""
    from loramerge.core.lowrank import cat

    terms = {
        name: ((Unit(cat([unit.update.times(weight) for unit, weight in some])), 1.0),)
        for name, some in row.terms.items()
    }
    return Candidate(row.name, terms)


if __name__ == "__main__":
    main()
