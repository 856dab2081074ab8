"""One request to the API: who asks, what was sent, and the repo it is about."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote, urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from loramerge.hub.server import accounts, repos
from loramerge.hub.server.blobs import Blobs
from loramerge.hub.server.database import Database
from loramerge.hub.server.links import Signer
from loramerge.hub.server.refusal import Refusal
from loramerge.hub.server.repos import Repo

_IN_MEMORY = 1 << 20
_LONGEST_JSON = 16 << 20
_PAGE = 1000
_UNPRINTABLE = re.compile("[^ -~]")

_OTHER_NAME = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}


@dataclass(frozen=True)
class Hub:
    """What the server works on; `part_size` is the size above which uploads are cut in parts."""

    db: Database
    blobs: Blobs
    signer: Signer
    part_size: int
    cdn_port: int


@dataclass(frozen=True)
class Call:
    """A request, read to its end; `user` is None without a token."""

    hub: Hub
    request: Request
    user: str | None
    body: IO[bytes]

    def part(self, name: str) -> str:
        """A part of the path."""
        return unquote(self.request.path_params.get(name, ""))

    def asked(self, name: str) -> list[str]:
        """All values of a name in the query, `name[]` being another way to write it."""
        return [value for key, value in self.request.query_params.multi_items() if key.removesuffix("[]") == name]

    def flag(self, name: str) -> bool:
        """A switch in the query."""
        return is_true(self.request.query_params.get(name, ""))

    def number(self, name: str, default: int, largest: int) -> int:
        """A whole number in the query, no larger than `largest`; `default` where it is none."""
        text = self.request.query_params.get(name, "")
        return min(int(text), largest) if re.fullmatch("[0-9]{1,9}", text) else default

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; Refusal 400 for anything else."""
        text = self.body.read(_LONGEST_JSON + 1)
        if len(text) > _LONGEST_JSON:
            raise Refusal(413, "The request is too large.")
        return parse_object(text)

    def origin(self) -> str:
        """The server as the client names it."""
        url = self.request.url
        return self._at(url.hostname or "", url.port or (443 if url.scheme == "https" else 80))

    def storage(self) -> str:
        """The other origin, which serves bytes.

        On loopback it has another name too: to huggingface_hub 1.x two ports of one name are one host,
        and it would send its token along.
        """
        host = self.request.url.hostname or ""
        return self._at(_OTHER_NAME.get(host, host), self.hub.cdn_port)

    def _at(self, host: str, port: int) -> str:
        return f"{self.request.url.scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    def login(self) -> str:
        """The user; Refusal 401 where there is none."""
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        return self.user

    def repo(self) -> Repo:
        """The repo that the path names. A Refusal for one that the user may not see, and 307 for a former name."""
        asked = f"{self.part('namespace')}/{self.part('name')}"
        repo = self.find(asked)
        if repo.id == asked:
            return repo
        path, query = self.request.scope["path"], self.request.url.query
        as_sent = "/{namespace}/{name}".format(**self.request.path_params)
        location = path.replace(as_sent, f"/{repo.id}", 1) + (f"?{query}" if query else "")
        raise Refusal(307, "This repo has moved.", headers={"Location": location})

    def find(self, repo_id: str) -> Repo:
        """A repo by its id. What is private and what is not there look alike to those who may not see it."""
        repo = repos.find(self.hub.db, repo_id)
        if repo and accounts.may_see(self.hub.db, self.user, repo):
            return repo
        if self.user is None:
            raise Refusal(401, "Invalid username or password.", code="RepoNotFound")
        raise Refusal(404, "Repository not found", code="RepoNotFound")

    def owned(self, repo: Repo) -> Repo:
        """The same repo; Refusal 401 or 403 for those who may not write to it."""
        if not accounts.owns(self.hub.db, self.login(), repo.namespace):
            raise Refusal(403, f"You don't have the rights to write to {repo.id}")
        return repo

    def downloadable(self, repo: Repo) -> Repo:
        """The same repo; Refusal 401 or 403 for those to whom its file contents are gated."""
        if not accounts.may_download(self.hub.db, self.user, repo):
            message = f"Access to model {repo.id} is restricted. Ask its owner for access, and be logged in."
            raise Refusal(401 if self.user is None else 403, message, code="GatedRepo")
        return repo

    def page(self, items: list[Any], *, path: str = "", size: int = _PAGE) -> tuple[list[Any], dict[str, str]]:
        """The items of the page asked for, and headers that tell where the next one is."""
        size, start = self.number("limit", size, size) or size, self.number("cursor", 0, len(items))
        headers = {"X-Total-Count": str(len(items))}
        if start + size < len(items):
            others = [pair for pair in self.request.query_params.multi_items() if pair[0] != "cursor"]
            query = urlencode([*others, ("cursor", start + size)])
            headers["Link"] = f'<{self.origin()}{path or self.request.scope["path"]}?{query}>; rel="next"'
        return items[start : start + size], headers


Handler = Callable[[Call], Any]


def is_true(text: str) -> bool:
    """How clients spell yes."""
    return text.lower() in ("true", "1")


def parse_object(text: bytes) -> dict[str, Any]:
    """A JSON object; Refusal 400 for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal(400, "The request is not valid JSON.") from None
    if not isinstance(value, dict):
        raise Refusal(400, "The request must be a JSON object.")
    return value


def endpoint(hub: Hub, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """A handler as Starlette wants it: signed in first, body read to disk, run in a thread, answered in JSON."""

    async def respond(request: Request) -> Response:
        user = await run_in_threadpool(_user, hub, request.headers.get("authorization", ""))
        with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(hub.blobs.incoming)) as body:
            # Whoever has no token cannot fill the disk either.
            await receive(request, body.write, limit=None if user else _IN_MEMORY)
            body.seek(0)
            answer = await run_in_threadpool(handler, Call(hub, request, user, body))
        return answer if isinstance(answer, Response) else JSONResponse(answer)

    return respond


def _user(hub: Hub, authorization: str) -> str | None:
    scheme, _, token = authorization.partition(" ")
    if not authorization:
        return None
    user = accounts.user_of(hub.db, token.strip()) if scheme.lower() == "bearer" else None
    if user is None:
        raise Refusal(401, "Invalid credentials in Authorization header")
    return user


async def receive(request: Request, write: Callable[[bytes], object], limit: int | None) -> int:
    """Hand the body of a request to `write`, in large pieces and outside the event loop; its length.

    Refusal 413 as soon as it is longer than `limit`.
    """
    waiting, length = bytearray(), 0
    async for chunk in request.stream():
        length += len(chunk)
        if limit is not None and length > limit:
            raise Refusal(413, "The request is larger than was announced or is allowed.")
        waiting += chunk
        if len(waiting) >= _IN_MEMORY:
            await run_in_threadpool(write, bytes(waiting))
            waiting.clear()
    if waiting:
        await run_in_threadpool(write, bytes(waiting))
    return length


def refused(_: Request, refusal: Exception) -> Response:
    """The answer that a Refusal stands for."""
    assert isinstance(refusal, Refusal)
    headers = {"X-Error-Message": _UNPRINTABLE.sub("?", refusal.message), **refusal.headers}
    if refusal.code:
        headers["X-Error-Code"] = refusal.code
    return JSONResponse(refusal.body, refusal.status, headers)
