"""The references are made from commands and methods; `python tests/test_docs.py` writes them again."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from pathlib import Path

import click
import pytest

from loramerge.cli.main import COMMANDS, cli
from loramerge.methods._method import MERGE

ROOT = Path(__file__).resolve().parents[1]
COMMANDS_PAGE, METHODS_PAGE = ROOT / "docs" / "commands.md", ROOT / "docs" / "methods.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> str:
    """docs/commands.md as it should be."""
    parts = ["# Commands\n\nMade from `--help`; the global options are accepted before and after every command."]
    context = click.Context(cli, info_name="loramerge", terminal_width=100, **cli.context_settings)
    parts.append(_block(cli.get_help(context)))
    for name in COMMANDS.names():
        command = cli.get_command(context, name)
        below = [command.commands[child] for child in sorted(command.commands)] if hasattr(command, "commands") else []
        for found, path in [(command, name)] if not below else [(child, f"{name} {child.name}") for child in below]:
            parts.append(f"## {path}")
            parts.append(_block(_own_help(found, path, context)))
    return "\n\n".join(parts) + "\n"


_PREFACE = """# Merge methods

Made from the methods themselves. Each is one file under `loramerge/methods/merge/`, tested against every
law in float64 (`tests/methods/test_laws.py`); a law that does not hold is listed with the reason.

Grains: *coefficients* weigh whole updates (exact, and nothing is formed but the result); *factors* work
on the factors; *entries* work on ΔW itself, a few rows at a time; *stream* takes one adapter after the other.
"""

_GRAINS = "| method | what it is | grain | weights unless said | laws it breaks |\n|---|---|---|---|---|"
_ONE = {"mean": "1/n", "sum": "1"}


def methods() -> str:
    """docs/methods.md as it should be."""
    docs = {name: importlib.import_module(MERGE._own[name]).__doc__.strip() for name in MERGE.names()}
    rows = [_row(name, docs[name]) for name in docs]
    pages = [part for name, doc in docs.items() for part in _page(name, doc)]
    return "\n\n".join([_PREFACE.strip(), "\n".join([_GRAINS, *rows]), *pages]) + "\n"


def _row(name: str, doc: str) -> str:
    method = MERGE[name]
    first = doc.splitlines()[0].partition(": ")[2] or doc.splitlines()[0]
    return f"| [{name}](#{name}) | {first} | {method.on} | {_ONE[method.weights]} | {', '.join(method.breaks) or '–'} |"


def _page(name: str, doc: str) -> list[str]:
    method = MERGE[name]
    options = [f"{f.name}={f.default}" for f in dataclasses.fields(method.options)]
    parts = [f"## {name}", _block(doc)]
    if options:
        parts.append(f"Options and their defaults: `{'`, `'.join(options)}`")
    if method.breaks:
        parts.append("\n".join(f"- breaks {law}: {reason}" for law, reason in method.breaks.items()))
    return parts


WRITTEN = {COMMANDS_PAGE: commands, METHODS_PAGE: methods}


def _own_help(command: click.Command, path: str, context: click.Context) -> str:
    inner = click.Context(command, info_name=path, parent=context)
    shown = [p for p in command.params if not (isinstance(p, click.Option) and p.name in _globals())]
    kept, command.params = command.params, shown
    try:
        return command.get_help(inner)
    finally:
        command.params = kept


def _globals() -> set[str]:
    return {str(option.name) for option in cli.params} - {"version"}


def _block(text: str) -> str:
    return f"```\n{text.rstrip()}\n```"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_a_reference_is_current(page):
    assert page.read_text() == WRITTEN[page](), "python tests/test_docs.py writes it"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_a_page_names_exists(page):
    named = set(re.findall(r"\bloramerge ([a-z]+)\b", page.read_text().replace("loramerge hub", "loramerge hub")))
    prose = {"is", "does", "reads", "has", "for", "or", "and", "may", "writes", "import", "s"}

    assert named - prose <= set(COMMANDS.names())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_hold(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())

    assert all((page.parent / link).exists() for link in links), links


if __name__ == "__main__":
    for path, make in WRITTEN.items():
        path.write_text(make())
        sys.stdout.write(f"{path}\n")
