"""Every error a user can cause, as one tree; each says what, where and what to try.

    LoramergeError             1  a failure with no better place
    ├── UsageError             2  the command line or a recipe asks for something that cannot be
    │   ├── BadOption             an option's value is outside what it takes
    │   ├── UnknownName           no plugin, command or adapter has that name (near names offered)
    │   ├── AmbiguousName         one short name, two adapters
    │   ├── MissingExtra          an optional dependency is not installed
    │   ├── NeedsData             a method needs statistics that nobody gave it
    │   └── OutputExists          the output folder is there already
    ├── FormatError            3  a file is not what it should be
    │   ├── UnknownFormat         no reader takes it
    │   ├── BadConfig             a config field is missing, of the wrong type, or contradicts the tensors
    │   ├── BadTensor             a tensor has a wrong shape, dtype or name, or is not finite
    │   ├── UnsafePickle          a pickle, and nobody allowed it
    │   └── UnsupportedAdapter    an adapter kind that has no exact route to LoRA
    ├── IncompatibleError      4  adapters that cannot go together
    │   ├── ShapeMismatch         they disagree about a module's shape
    │   ├── BaseMismatch          they were trained on different base models
    │   └── NeedsBase             the update depends on the base weights (DoRA)
    ├── AccessError            5  the Hub says no
    │   ├── NotFound              repo, revision or file
    │   ├── Gated                 access has to be asked for
    │   └── NotAllowed            wrong or missing token, someone else's namespace
    ├── NetworkError           6  the Hub cannot be reached
    │   └── Offline               and was not to be: --offline
    └── IntegrityError         7  bytes are not those that were promised
        └── LockMismatch          the lock pins something else

The number is the exit code of the command line.
"""

from __future__ import annotations

from typing import Any


class LoramergeError(Exception):
    """What went wrong, where (a file, a tensor, adapters), and what to try next."""

    exit_code = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword arguments are not part of Exception's own pickle; errors cross process borders.
        return _rebuild, (type(self), self.message, self.where, self.hint)


def _rebuild(kind: type[LoramergeError], message: str, where: str, hint: str) -> LoramergeError:
    return kind(message, where=where, hint=hint)


class UsageError(LoramergeError):
    """The command line or a recipe asks for something that cannot be."""

    exit_code = 2


class BadOption(UsageError):
    """An option's value is outside what it takes."""


class UnknownName(UsageError):
    """No plugin, command or adapter has that name."""


class AmbiguousName(UsageError):
    """One short name, two adapters."""


class MissingExtra(UsageError):
    """An optional dependency is not installed."""


class NeedsData(UsageError):
    """A method needs statistics that nobody gave it."""


class OutputExists(UsageError):
    """The output is there already."""


class FormatError(LoramergeError):
    """A file is not what it should be."""

    exit_code = 3


class UnknownFormat(FormatError):
    """No reader takes it."""


class BadConfig(FormatError):
    """A config field is missing, of the wrong type, or contradicts the tensors."""


class BadTensor(FormatError):
    """A tensor has a wrong shape, dtype or name, or is not finite."""


class UnsafePickle(FormatError):
    """A pickle, and nobody allowed it."""


class UnsupportedAdapter(FormatError):
    """An adapter kind that has no exact route to LoRA."""


class IncompatibleError(LoramergeError):
    """Adapters that cannot go together."""

    exit_code = 4


class ShapeMismatch(IncompatibleError):
    """Adapters disagree about a module's shape."""


class BaseMismatch(IncompatibleError):
    """Adapters were trained on different base models."""


class NeedsBase(IncompatibleError):
    """The update depends on the base weights."""


class AccessError(LoramergeError):
    """The Hub says no."""

    exit_code = 5


class NotFound(AccessError):
    """A repo, a revision or a file is not there."""


class Gated(AccessError):
    """Access has to be asked for."""


class NotAllowed(AccessError):
    """A wrong or missing token, or someone else's namespace."""


class NetworkError(LoramergeError):
    """The Hub cannot be reached."""

    exit_code = 6


class Offline(NetworkError):
    """The Hub was not to be reached: --offline."""


class IntegrityError(LoramergeError):
    """Bytes are not those that were promised."""

    exit_code = 7


class LockMismatch(IntegrityError):
    """The lock pins something else."""


def first_line(error: Exception) -> str:
    """What another library's error says first, to be said as part of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")[:300]
