"""Faults between a client and the Hub, as ASGI middleware: `running(root, wrap=faults.wrap)`.

Each fault strikes the first `times` requests whose "METHOD /path" its pattern is found in. What
passed is in `requests`, so that a test can say what was asked and with which headers.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote

Send = Callable[[dict[str, Any]], Awaitable[None]]
Strike = Callable[..., Awaitable[None]]


@dataclass
class Request:
    line: str  # "GET /me/adapter/resolve/main/README.md"
    headers: dict[str, str]
    port: int


@dataclass
class _Rule:
    pattern: re.Pattern[str]
    times: int
    strike: Strike


@dataclass
class Faults:
    requests: list[Request] = field(default_factory=list)
    _rules: list[_Rule] = field(default_factory=list)

    def refuse(self, pattern: str, status: int = 503, times: int = 1, **headers: str) -> None:
        """An error in place of the answer; retry_after="1" becomes the header Retry-After."""
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self._add(pattern, times, partial(_refuse, status, pairs))

    def truncate(self, pattern: str, times: int = 1) -> None:
        """The first half of the body, in a response that looks whole."""
        self._add(pattern, times, partial(_rewrite, lambda body: body[: len(body) // 2]))

    def flip(self, pattern: str, times: int = 1) -> None:
        """One bit in the middle of the body."""
        self._add(pattern, times, partial(_rewrite, _flipped))

    def reset(self, pattern: str, times: int = 1) -> None:
        """Headers and half of the body, then the connection is closed."""
        self._add(pattern, times, _reset)

    def drop(self, pattern: str, times: int = 1) -> None:
        """The request is carried out, and its answer lost."""
        self._add(pattern, times, _drop)

    def cut(self, pattern: str, times: int = 1) -> None:
        """The connection is closed while the request is being sent; nothing is carried out."""
        self._add(pattern, times, _cut)

    def slow(self, pattern: str, seconds: float, times: int = 1) -> None:
        """The answer comes late."""
        self._add(pattern, times, partial(_slow, seconds))

    def rewrite(self, pattern: str, change: Callable[[bytes], bytes], times: int = 1) -> None:
        """Any other body."""
        self._add(pattern, times, partial(_rewrite, change))

    def count(self, pattern: str) -> int:
        """Requests seen so far."""
        return sum(bool(re.search(pattern, request.line)) for request in self.requests)

    def _add(self, pattern: str, times: int, strike: Strike) -> None:
        self._rules.append(_Rule(re.compile(pattern), times, strike))

    def wrap(self, app: Any) -> Any:
        async def faulty(scope: dict[str, Any], receive: Any, send: Send) -> None:
            line = f"{scope['method']} {unquote(scope['path'])}"
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            self.requests.append(Request(line, headers, scope["server"][1]))
            for rule in self._rules:
                if rule.times and rule.pattern.search(line):
                    rule.times -= 1
                    return await rule.strike(app, scope, receive, send)
            return await app(scope, receive, send)

        return faulty


async def _refuse(status: int, headers: list[tuple[bytes, bytes]], app: Any, scope: Any, receive: Any, send: Send):
    while (await receive()).get("more_body"):
        pass  # the whole request is read, so that the client gets to see the answer
    body = b'{"error": "out of order"}'
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _answer(app: Any, scope: Any, receive: Any) -> tuple[dict[str, Any], bytes]:
    messages: list[dict[str, Any]] = []

    async def keep(message: dict[str, Any]) -> None:
        messages.append(message)

    await app(scope, receive, keep)
    return messages[0], b"".join(message.get("body", b"") for message in messages[1:])


async def _rewrite(change: Callable[[bytes], bytes], app: Any, scope: Any, receive: Any, send: Send) -> None:
    start, body = await _answer(app, scope, receive)
    body = change(body)
    headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
    length = (b"content-length", str(len(body)).encode())
    await send({**start, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


def _flipped(body: bytes) -> bytes:
    at = len(body) // 2
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


async def _reset(app: Any, scope: Any, receive: Any, send: Send) -> None:
    start, body = await _answer(app, scope, receive)
    await send(start)
    # More is announced and never comes: the server closes the connection.
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})


async def _drop(app: Any, scope: Any, receive: Any, send: Send) -> None:
    start, _ = await _answer(app, scope, receive)
    await send({**start, "headers": [(b"content-length", b"1000")]})


async def _cut(app: Any, scope: Any, receive: Any, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})


async def _slow(seconds: float, app: Any, scope: Any, receive: Any, send: Send) -> None:
    await asyncio.sleep(seconds)
    await app(scope, receive, send)
