"""The one table from exceptions to messages and exit codes."""

from __future__ import annotations

import errno

import click

from loramerge.errors import LoramergeError

INTERRUPTED = 130

_OS = {
    errno.ENOSPC: ("The disk is full", "free some space, or choose another folder with -o"),
    errno.EDQUOT: ("The disk quota is used up", "free some space, or choose another folder with -o"),
    errno.EFBIG: ("The file grew beyond the limit of this process", "ulimit -f unlimited, or another disk"),
    errno.EACCES: ("Permission denied", "choose a folder that you may write to with -o or -C"),
    errno.EPERM: ("Permission denied", "choose a folder that you may write to with -o or -C"),
    errno.EROFS: ("The file system is read-only", "choose a folder that you may write to with -o or -C"),
    errno.EMFILE: ("Too many open files", "ulimit -n 4096"),
}


def describe(error: BaseException) -> tuple[str, str, str, int]:
    """(message, where, what to try, exit code) of anything a command can end with."""
    if isinstance(error, LoramergeError):
        return error.message, error.where, error.hint, error.exit_code
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "loramerge"
        return error.format_message(), "", f"{path} --help", 2
    if isinstance(error, click.ClickException):
        return error.format_message(), "", "", error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "Interrupted; nothing half-written was left.", "", "", INTERRUPTED
    if isinstance(error, MemoryError):
        return "Out of memory.", "", "--workers 1, or a smaller --max-memory", 1
    if isinstance(error, OSError):
        message, hint = _OS.get(error.errno or 0, (error.strerror or str(error), ""))
        return f"{message}.", str(error.filename or ""), hint, 1
    return f"{type(error).__name__}: {error}", "", "--debug shows where; please report it", 1
