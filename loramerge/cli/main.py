"""The command line's door: finds commands by file name, catches what they raise, prints it once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any

import click

from loramerge import __version__
from loramerge.cli import _errors
from loramerge.cli._options import global_options
from loramerge.cli._session import output
from loramerge.registry import Registry

COMMANDS: Registry[click.Command] = Registry("loramerge.cli.commands", "command", "command")


def with_globals(command: click.Command) -> click.Command:
    """Make a command accept the global options; what is given after the command wins."""
    if isinstance(command, click.Group):
        for child in command.commands.values():
            with_globals(child)
        return command
    own = {option.name for option in command.params}
    shared = [option for option in global_options() if option.name not in own]
    names = [option.name for option in shared if option.name]
    command.params.extend(shared)
    inner = command.callback
    assert inner is not None

    def callback(*args: Any, **values: Any) -> None:
        context = click.get_current_context()
        _remember(context, {name: values.pop(name) for name in names})
        inner(*args, **values)
        sys.stdout.flush()  # here, where click ends quietly if whoever read our output has had enough

    command.callback = callback
    return command


class Commands(click.Group):
    """The group of all commands; each is imported when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, without importing one."""
        return COMMANDS.names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command of that name; raises UnknownName with its neighbours."""
        found = self.commands.get(cmd_name)
        if found is None:
            found = self.commands[cmd_name] = with_globals(COMMANDS[cmd_name])
        return found


def _remember(context: click.Context, values: dict[str, Any]) -> None:
    settings = context.find_root().ensure_object(dict)
    settings.update({name: value for name, value in values.items() if value is not None})


@click.command(
    cls=Commands,
    params=global_options(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The story: loramerge pull A B C, then loramerge lego --k 8, then loramerge push ME/MERGED.",
)
@click.version_option(__version__, package_name="loramerge")
@click.pass_context
def cli(context: click.Context, /, **values: Any) -> None:
    """Pull, take apart, merge and push LoRA adapters."""
    _remember(context, values)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command line and leave with its exit code."""
    settings: dict[str, Any] = {}
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ✓ is no reason to fail
    try:
        code = cli.main(args=arguments, prog_name="loramerge", standalone_mode=False, obj=settings)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        code = error.exit_code
    except BaseException as error:
        if isinstance(error, SystemExit | GeneratorExit) or settings.get("debug"):
            raise
        message, where, hint, code = _errors.describe(error)
        output(settings).error(message, where, hint, code)
        if code == _errors.INTERRUPTED:
            # All is undone by now; threads that wait for a server, and workers interrupted too, are not waited for.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code if isinstance(code, int) else 0)
