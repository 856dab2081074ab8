"""Options that several commands share, and the global ones, spelled once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def global_options() -> list[click.Option]:
    """The options accepted before and after every command."""
    return [
        click.Option(["-C", "workspace"], metavar="DIR", help="Work in this folder."),
        click.Option(
            ["--format", "format_"], type=click.Choice(["auto", "human", "json"]), help="How data is printed."
        ),
        click.Option(["-q", "--quiet"], is_flag=True, default=None, help="One id per line, nothing else."),
        click.Option(["--endpoint"], metavar="URL", help="The Hub to talk to."),
        click.Option(["--offline"], is_flag=True, default=None, help="Never use the network."),
        click.Option(
            ["--insecure"], is_flag=True, default=None, help="Send a token over plain http too (a LAN's Hub)."
        ),
        click.Option(["--workers"], type=click.IntRange(1), metavar="N", help="Modules worked on at once."),
        click.Option(["--executor"], type=click.Choice(["threads", "processes"]), help="What a worker is."),
        click.Option(["--device"], type=click.Choice(["cpu", "cuda", "auto"]), help="Where the arithmetic runs."),
        click.Option(["--max-memory"], metavar="SIZE", help="Bytes at work at once, e.g. 2GB."),
        click.Option(["--debug"], is_flag=True, default=None, help="Show the traceback of an error."),
    ]


data = click.option("--data", multiple=True, metavar="NAME=FILE", help="Statistics of one adapter (`loramerge stats`).")
sources = click.argument("refs", nargs=-1, metavar="[REF]...")
ref = click.argument("ref", metavar="REF")
allow_pickle = click.option("--allow-pickle", is_flag=True, help="Read .bin files too (weights only; never code).")
bases = click.option(
    "--base",
    "bases",
    multiple=True,
    metavar="[NAME=]PATH",
    help="The base's weights (a folder with model.safetensors), which make DoRA exact; or NAME=OTHERNAME: "
    "two names of one base model.",
)
mismatch = click.option("--allow-base-mismatch", is_flag=True, help="Across base models too, where shapes agree.")
force = click.option("--force", is_flag=True, help="Replace the output folder.")
out = click.option("-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Where the result goes.")
rank = click.option("--rank", metavar="RULE", help="N, max, sum, energy:T, elbow, sv-ratio:T, sv-fro:T  [default: max]")
rows_taken = click.option(
    "--rows-taken",
    "part",
    type=click.Choice(["all", "even", "odd"]),
    default="all",
    show_default=True,
    help="Of the items all, or every other one: choose on even ones, report odd ones.",
)
seed = click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random choice.")


def evaluating(function: F) -> F:
    """The options of every command that runs a base model on tasks."""
    for option in reversed(_EVALUATING):
        function = option(function)
    return function


_EVALUATING = [
    click.option("--base", required=True, metavar="DIR", help="The base model: a folder, or a Hub repo."),
    click.option(
        "--task",
        "tasks",
        multiple=True,
        required=True,
        metavar="[NAME=]TASK",
        help="A folder, or KIND:FILE; repeatable.",
    ),
    click.option("--split", metavar="NAME", help="Which file of a task's folder.  [default: test, else validation]"),
    click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N items of each task."),
    click.option(
        "-T", "--task-option", "task_options", multiple=True, metavar="KEY=VALUE", help="An option of a kind of task."
    ),
    click.option(
        "--heads",
        type=click.Choice(["each", "own"]),
        default="each",
        show_default=True,
        help="each: a candidate's own task head. own: on each task the head of the source trained for it.",
    ),
    click.option("--own", multiple=True, metavar="TASK=NAME", help="Which source a task belongs to."),
    click.option(
        "--dtype",
        type=click.Choice(["F32", "BF16", "F16"], case_sensitive=False),
        default="F32",
        show_default=True,
        help="What the model computes in.",
    ),
    click.option("--rows", type=click.IntRange(1), metavar="N", help="Rows of activations in a pass."),
    click.option("--no-check", is_flag=True, help="Let candidates pass that change no output."),
]


def making(function: F) -> F:
    """The options of every command that makes one adapter of several."""
    for option in reversed(_MAKING):
        function = option(function)
    return function


_MAKING = [
    click.option("-w", "--weight", "weights", multiple=True, metavar="[NAME=]W", help="One adapter's weight."),
    click.option("--weights", "weighting", type=click.Choice(["mean", "sqrt", "sum"]), help="1/n, 1/√n or 1 each."),
    click.option(
        "--for",
        "rules",
        multiple=True,
        metavar="'PATTERN:KEY=VALUE,…'",
        help="For modules that match: method, rank, weight.NAME, or an option.",
    ),
    click.option("--normalize", is_flag=True, help="Divide the weights by their sum."),
    click.option("--scale", type=float, default=1.0, show_default=True, help="Multiply the result."),
    click.option(
        "--rescale",
        type=click.Choice(["norm", "none"]),
        default="none",
        show_default=True,
        help="norm: give each module's result the mean norm of its inputs, before --scale.",
    ),
    data,
    click.option("--metric", metavar="FILE", help="Truncate by the outputs' error: covariances of the inputs."),
    click.option(
        "--extras", default="auto", show_default=True, metavar="POLICY", help="auto|average|first:NAME|drop|error"
    ),
    click.option(
        "--dora",
        type=click.Choice(["error", "factors"]),
        default="error",
        show_default=True,
        help="DoRA without --base: refuse it, or leave its magnitudes out.",
    ),
    click.option(
        "--dtype", type=click.Choice(["F32", "F16", "BF16", "F64"], case_sensitive=False), help="Result type."
    ),
    bases,
    mismatch,
    click.option("--profile", type=click.Choice(["vllm"]), help="Restrict the files to what a runtime takes."),
    click.option("--plan", is_flag=True, help="Show modules, ranks, bytes and memory; read no tensor."),
    allow_pickle,
    seed,
    out,
    force,
]
