"""`loramerge merge`."""

from __future__ import annotations

from typing import Any

import click

from loramerge import options
from loramerge.cli import _options as opt
from loramerge.cli._making import make, make_from_file
from loramerge.methods._method import MERGE


class _Named(click.Option):
    """An option whose help is made when it is shown: it names all methods, installed ones too."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The option and its help, as click lists them."""
        self.help = f"{', '.join(MERGE.names())}  [default: linear]"
        return super().get_help_record(ctx)


@click.command(
    "merge",
    short_help="Merge adapters by any method.",
    epilog="Example: loramerge merge math-lora code-lora -o both --method linear --rank 16",
)
@opt.sources
@click.option("--method", cls=_Named, metavar="METHOD")
@click.option("-O", "--option", "pairs", multiple=True, metavar="KEY=VALUE", help="An option of the method.")
@opt.rank
@click.option("--dump-recipe", is_flag=True, help="Print the recipe that these flags amount to; merge nothing.")
@opt.making
def command(
    refs: tuple[str, ...],
    method: str | None,
    pairs: tuple[str, ...],
    rank: str | None,
    dump_recipe: bool,
    **values: Any,
) -> None:
    """Merge adapters of one base model into one adapter: `merge REF... --method M`, or `merge RECIPE.yaml`.

    Without REF, the sources of this workspace.
    """
    if len(refs) == 1 and refs[0].endswith((".yaml", ".yml")):
        make_from_file(refs[0], values, dump=dump_recipe, given=bool(method or pairs or rank))
    else:
        make(refs, values, method=method or "linear", options=options.pairs(pairs), rank=rank, dump=dump_recipe)
