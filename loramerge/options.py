"""Text to typed values and back: option dataclasses, sizes, `NAME=VALUE` pairs.

Only this module converts text. A plugin declares its options as a frozen dataclass; `parse` fills it
from `key=value` strings (or a recipe's mapping) and names near misses.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from loramerge.errors import BadOption

O = TypeVar("O")  # noqa: E741

_UNITS = {"": 1, "B": 1, "K": 2**10, "KB": 10**3, "KIB": 2**10, "M": 2**20, "MB": 10**6, "MIB": 2**20}
_UNITS |= {"G": 2**30, "GB": 10**9, "GIB": 2**30, "T": 2**40, "TB": 10**12, "TIB": 2**40}
_NOUNS = {int: ("a whole number", "8"), float: ("a number", "0.5"), str: ("a text", '"max"')}
_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def pairs(items: Iterable[str], example: str = "-O k=8") -> dict[str, str]:
    """`key=value` strings as a mapping; raises BadOption where the '=' is missing or a key repeats."""
    found: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        key = key.strip()
        if not equals or not key:
            raise BadOption(f"{item!r} is not KEY=VALUE.", hint=example)
        if key in found:
            raise BadOption(f"{key!r} is given twice.")
        found[key] = value
    return found


def parse(kind: type[O], values: Mapping[str, Any]) -> O:
    """An option dataclass from texts or plain values; raises BadOption with near names."""
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    given = {str(key).replace("-", "_"): value for key, value in values.items()}
    if len(given) < len(values):
        raise BadOption("An option is given twice, once with - and once with _.", where=", ".join(map(str, values)))
    for key in given:
        if key not in names:
            close = difflib.get_close_matches(key, names, n=3, cutoff=0.5)
            raise BadOption(f"There is no option {key!r}.", hint=", ".join(close or names) or "no -O at all")
    if missing := [field.name for field in dataclasses.fields(kind) if _required(field) and field.name not in given]:  # type: ignore[arg-type]
        raise BadOption(f"{missing[0]} is missing.", hint=", ".join(names))
    return kind(**{key: convert(value, hints[key], key) for key, value in given.items()})


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def convert(value: Any, hint: Any, name: str) -> Any:
    """One value as the annotated type; texts are read, other values are checked."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        return _union(value, get_args(hint), name)
    if get_origin(hint) is Literal:
        return _literal(value, get_args(hint), name)
    if get_origin(hint) in (tuple, Mapping):
        return _plain(value, get_origin(hint), name)
    if hint is bool:
        return _bool(value, name)
    try:
        # What would convert, but was never meant so: true as 1, a list as its text, 8.5 as 8.
        if isinstance(value, bool | list | dict) or (hint is int and isinstance(value, float) and value % 1):
            raise ValueError
        return hint(value)
    except (TypeError, ValueError, OverflowError):
        what, example = _NOUNS[hint]
        raise BadOption(f"{name} is {value!r:.80}, which is not {what}.", hint=f"for example {example}") from None


def _plain(value: Any, kind: type, name: str) -> Any:
    """What is not read from text: a tuple or a table, as it is."""
    if not isinstance(value, kind):
        raise BadOption(f"{name} is {value!r:.80}, which is not a table.")
    return value


def _union(value: Any, members: tuple[Any, ...], name: str) -> Any:
    if type(None) in members and (value is None or (isinstance(value, str) and value.lower() in ("none", ""))):
        return None
    last: BadOption | None = None
    for member in members:
        if member is not type(None):
            try:
                return convert(value, member, name)
            except BadOption as error:
                last = error
    assert last is not None
    raise last


def _literal(value: Any, choices: tuple[Any, ...], name: str) -> Any:
    # Compared as texts: 2 stands for "2", which YAML reads as a number.
    for choice in choices:
        if str(choice) == str(value):
            return choice
    raise BadOption(f"{name} is {value!r:.80}.", hint=", ".join(map(str, choices)))


def _bool(value: Any, name: str) -> bool:
    text = str(value).lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise BadOption(f"{name} is {value!r:.80}.", hint="true or false")


def size(text: str) -> int:
    """Bytes from "512MB", "4G", "1.5GiB"; raises BadOption."""
    stripped = text.strip().upper()
    digits = stripped.rstrip("BKMGTI")
    unit = stripped[len(digits) :]
    try:
        amount = float(digits) * _UNITS[unit]
    except (ValueError, KeyError):
        raise BadOption(f"{text!r} is not a size.", hint="512MB, 4GB, 1.5GiB") from None
    if not 1 <= amount < 2**63:
        raise BadOption(f"{text!r} is not a possible size.", hint="512MB, 4GB, 1.5GiB")
    return int(amount)


def dump(options: Any) -> dict[str, Any]:
    """An option dataclass as a plain mapping of all its values, in field order."""
    return dataclasses.asdict(options)
