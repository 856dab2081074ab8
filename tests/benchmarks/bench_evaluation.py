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

Needs `[models]`.
"""

from __future__ import annotations

import argparse
import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from _harness import Used, compare, process, record, script, timed
from torch import Tensor, nn

from loramerge.core.lowrank import LowRank
from loramerge.evaluation.applied import Applied
from loramerge.evaluation.candidate import Candidate, Unit, combined
from loramerge.evaluation.passes import ROWS, Lot, Pass, Passes, repeated

LAYERS, WIDTH, INNER, WORDS, RANK, ALPHA = 8, 512, 1376, 512, 16, 32
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SHAPES = ((32, 1, 8), (8, 1, 32), (8, 1, 1), (8, 4, 64), (32, 4, 64), (2, 1, 8))
"""Adapters, items, tokens of an item."""


def base(dtype: torch.dtype) -> nn.Module:
    """The random Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        vocab_size=WORDS,
        use_cache=False,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).to(dtype).eval().requires_grad_(False)


def updates(model: nn.Module, count: int) -> list[dict[str, LowRank]]:
    """Random adapters of the model."""
    generator = torch.Generator().manual_seed(1)

    def one(module: nn.Module) -> LowRank:
        b = torch.randn(module.out_features, RANK, generator=generator) * 0.02
        a = torch.randn(RANK, module.in_features, generator=generator) * 0.05
        return LowRank(b.to(module.weight.dtype), a.to(module.weight.dtype), ALPHA / RANK)

    sites = {name: module for name, module in model.named_modules() if name.endswith(TARGETS)}
    return [{name: one(module) for name, module in sites.items()} for _ in range(count)]


def candidates(made: list[dict[str, LowRank]]) -> list[Candidate]:
    """The adapters as candidates."""
    return [
        Candidate(f"a{at}", {name: ((Unit(update), 1.0),) for name, update in some.items()})
        for at, some in enumerate(made)
    ]


def with_peft(made: list[dict[str, LowRank]], dtype: torch.dtype) -> nn.Module:
    """The model with all adapters loaded by PEFT."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), lora_dropout=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base(dtype), config, adapter_name="a0", autocast_adapter_dtype=False)
        for at in range(1, len(made)):
            model.add_adapter(f"a{at}", config, autocast_adapter_dtype=False)
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            key = name.removeprefix("base_model.model.")
            for at, some in enumerate(made):
                module.lora_A[f"a{at}"].weight.data = some[key].a.clone()
                module.lora_B[f"a{at}"].weight.data = some[key].b.clone()
    return model.eval()


@contextmanager
def bare(model: nn.Module, some: dict[str, LowRank]) -> Iterator[None]:
    """One adapter on the model by nothing but a hook on each module."""

    def hook(module: nn.Module, given: tuple[Tensor], output: Tensor, a: Tensor, b: Tensor) -> Tensor:
        flat = output.view(-1, output.shape[-1])
        return flat.addmm_(given[0].reshape(-1, given[0].shape[-1]) @ a, b).view(output.shape)

    there = dict(model.named_modules())
    handles = [
        there[name].register_forward_hook(partial(hook, a=update.a.T, b=update.b.T * update.scale))
        for name, update in some.items()
    ]
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


def ways(count: int, items: int, tokens: int, dtype: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """Every way as a function that makes the last hidden states of all adapters, (adapters · items, tokens, width)."""
    model = base(dtype)
    made = updates(model, count)
    ids = torch.randint(WORDS, (items, tokens), generator=torch.Generator().manual_seed(2))
    peft, lean = with_peft(made, dtype), [with_peft(made[:1], dtype)]
    whole = Applied(model, candidates(made))

    def documented() -> Tensor:
        found = []
        for at in range(count):
            peft.set_adapter(f"a{at}")
            found.append(peft.base_model.model.model(input_ids=ids).last_hidden_state)
        return torch.cat(found)

    def one_loaded() -> Tensor:
        return torch.cat([lean[0].base_model.model.model(input_ids=ids).last_hidden_state for _ in range(count)])

    def loop() -> Tensor:
        found = []
        for some in made:
            with bare(model, some):
                found.append(model.model(input_ids=ids).last_hidden_state)
        return torch.cat(found)

    return {
        "peft": documented,
        "peft-lean": one_loaded,
        "loop": loop,
        "together": partial(last_states, whole, ids, count),
        "base": partial(on_rows, model, ids, count),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=["F32", "BF16"], default="F32")
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="how many of the shapes")
    parser.add_argument("--coefficients", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--once", nargs=2, metavar=("WAY", "COUNT"), help="what a process of --memory does")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    with torch.inference_mode():
        if chosen.memory:
            memory()
        elif chosen.once:
            once(chosen.once[0], int(chosen.once[1]))
        elif chosen.coefficients:
            coefficient_form(chosen.rounds)
        else:
            for shape in SHAPES[: chosen.shapes]:
                one_shape(shape, chosen.rounds, chosen.dtype)


def one_shape(shape: tuple[int, int, int], rounds: int, dtype: str) -> None:
    """All ways at one shape; what they make must agree."""
    count, items, tokens = shape
    made = ways(count, items, tokens, torch.bfloat16 if dtype == "BF16" else torch.float32)
    wanted, got = made["loop"]().double().flatten(), made["together"]().double().flatten()
    error = float((wanted - got).norm() / wanted.norm())
    timers: dict[str, Callable[[], Used]] = {name: partial(timed, way) for name, way in made.items()}
    rows = compare("evaluation", timers, rounds, adapters=count, items=items, tokens=tokens, dtype=dtype, error=error)
    took = {name: row["wall_s"] for name, row in rows.items()}
    print(
        f"   together: {took['peft'] / took['together']:.2f}× PEFT's loop, "
        f"{took['peft-lean'] / took['together']:.2f}× with one loaded, {took['loop'] / took['together']:.2f}× our "
        f"loop, {took['together'] / took['base']:.2f} of the base alone; differs by {error:.1e}",
        flush=True,
    )


def mixtures(model: nn.Module, count: int) -> list[Candidate]:
    """Random linear candidates of four sources."""
    sources = candidates(updates(model, 4))
    weights = torch.rand(count, 4, generator=torch.Generator().manual_seed(3)).tolist()
    names = list(sources[0].terms)
    return [combined(f"c{at}", sources, [dict.fromkeys(names, w) for w in row]) for at, row in enumerate(weights)]


def last_states(applied: Applied, ids: Tensor, count: int) -> Tensor:
    """The last hidden states of all candidates."""

    def run(module: nn.Module, inputs: dict[str, Tensor], number: int) -> tuple[Tensor, Tensor]:
        states = module.model(**inputs).last_hidden_state
        return states[:, -1, :1], states

    lot = Lot(tuple(range(len(ids))), {"input_ids": ids}, ids.shape[1])
    return in_order(Passes(applied, run, ROWS).over(lot, range(count)), count, len(ids))


def on_rows(model: nn.Module, ids: Tensor, count: int) -> Tensor:
    """The base alone, on as many rows in passes of the same size."""
    some = max(1, ROWS // ids.numel())
    parts = [min(some, count - start) for start in range(0, count, some)]
    return torch.cat([model.model(input_ids=repeated(ids, part)).last_hidden_state for part in parts])


def coefficient_form(rounds: int) -> None:
    """Linear candidates of four sources: a row of coefficients each, or an update each."""
    ids = torch.randint(WORDS, (1, 8), generator=torch.Generator().manual_seed(2))
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
    ids = torch.randint(WORDS, (1, 8), generator=torch.Generator().manual_seed(2))
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
