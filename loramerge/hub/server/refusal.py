"""An answer other than success, as an exception; and typed reading of what a client sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

T = TypeVar("T")
# JSON can spell half a surrogate pair, which neither a database nor a response can hold.
_SURROGATE = re.compile("[\ud800-\udfff]")


class Refusal(Exception):
    """Status, the words for it, and the code by which clients tell one kind of error from another."""

    def __init__(
        self, status: int, message: str, *, code: str = "", headers: Mapping[str, str] | None = None, **body: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})
        self.body = {"error": message, **body}


def field(body: Mapping[str, Any], name: str, kind: type[T], default: T | None = None) -> T:
    """body[name] if it is of that kind, `default` where it is absent or null; Refusal 400 for anything else.

    A number is a size here: not negative, and no larger than JSON can carry.
    """
    value = body.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, kind) or not _sensible(value, kind):
        raise Refusal(400, f'"{name}" is missing or not of type {kind.__name__}')
    if isinstance(value, str) and _SURROGATE.search(value):
        raise Refusal(400, f'"{name}" is not valid Unicode')
    return value


def _sensible(value: Any, kind: type) -> bool:
    return kind is not int or (not isinstance(value, bool) and 0 <= value < 1 << 53)


def objects(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """body[name] as a list of JSON objects, empty where it is absent or null; Refusal 400 for anything else."""
    values = field(body, name, list, [])
    if not all(isinstance(value, dict) for value in values):
        raise Refusal(400, f'"{name}" must be a list of objects')
    return values
