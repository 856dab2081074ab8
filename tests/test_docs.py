"""The command reference is made from the commands; `python tests/test_docs.py` writes it again."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
import pytest

from loramerge.cli.main import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "commands.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def reference() -> str:
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


def test_the_command_reference_is_current():
    assert REFERENCE.read_text() == reference(), "python tests/test_docs.py writes it"


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
    REFERENCE.write_text(reference())
    sys.stdout.write(f"{REFERENCE}\n")
