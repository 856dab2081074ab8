"""The server as an ASGI application: two origins, told apart by the port that a request came in on.

A path is matched as it was sent, percent signs and all, so that an encoded slash (refs%2Fpr%2F1)
stays inside its segment.
"""

from __future__ import annotations

import errno
import secrets
import sqlite3
from typing import Any

from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from loramerge.hub.server import browsing, lfs, managing, pushing
from loramerge.hub.server.call import Handler, Hub, endpoint, refused
from loramerge.hub.server.refusal import Refusal

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _Revision(Convertor[str]):
    """One segment, or the name of a pull request, which some clients send with its slashes."""

    regex = "refs/pr/[0-9]+|[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("revision", _Revision())

_MODEL = "/api/models/{namespace}/{name}"
_ROUTES: list[tuple[str, str, Handler]] = [
    ("GET", "/api/agent-harnesses", lambda call: {"standardEnvVars": [], "harnesses": {}}),
    ("GET", "/api/whoami-v2", managing.whoami),
    ("POST", "/api/validate-yaml", pushing.validate_yaml),
    ("POST", "/api/repos/create", managing.create),
    ("DELETE", "/api/repos/delete", managing.delete),
    ("POST", "/api/repos/move", managing.move),
    ("GET", "/api/models", managing.search),
    ("GET", _MODEL, managing.info),
    ("GET", f"{_MODEL}/revision/{{rev:revision}}", managing.info),
    ("PUT", f"{_MODEL}/settings", managing.settings),
    ("GET", f"{_MODEL}/auth-check", managing.auth_check),
    ("GET", f"{_MODEL}/auth-check/write", managing.write_check),
    ("POST", f"{_MODEL}/user-access-request/grant", managing.grant),
    ("GET", f"{_MODEL}/tree/{{rev:revision}}", browsing.tree),
    ("GET", f"{_MODEL}/tree/{{rev:revision}}/{{path:path}}", browsing.tree),
    ("POST", f"{_MODEL}/paths-info/{{rev:revision}}", browsing.paths_info),
    ("GET", f"{_MODEL}/commits/{{rev:revision}}", browsing.commits),
    ("GET", f"{_MODEL}/refs", browsing.refs),
    ("POST", f"{_MODEL}/branch/{{branch}}", browsing.add_branch),
    ("DELETE", f"{_MODEL}/branch/{{branch}}", browsing.remove_branch),
    ("POST", f"{_MODEL}/tag/{{rev:revision}}", browsing.add_tag),
    ("DELETE", f"{_MODEL}/tag/{{rev:revision}}", browsing.remove_tag),
    ("POST", f"{_MODEL}/preupload/{{rev:revision}}", pushing.preupload),
    ("POST", f"{_MODEL}/commit/{{rev:revision}}", pushing.commit),
    ("GET", f"{_MODEL}/discussions", pushing.discussions),
    ("POST", f"{_MODEL}/discussions", pushing.discuss),
    ("GET", f"{_MODEL}/discussions/{{num}}", pushing.discussion),
    ("POST", "/{namespace}/{name}.git/info/lfs/objects/batch", lfs.batch),
    ("POST", "/{namespace}/{name}.git/info/lfs/objects/verify", lfs.verify),
    ("GET", "/{namespace}/{name}/resolve/{rev:revision}/{path:path}", browsing.resolve),
]


def application(hub: Hub) -> ASGIApp:
    """Both origins of a server; `hub.cdn_port` is that of storage."""
    api = _starlette([Route(path, endpoint(hub, handler), methods=[method]) for method, path, handler in _ROUTES])
    storage = _starlette(lfs.storage(hub))

    async def origins(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("X-Request-Id", secrets.token_hex(8))
            await send(message)

        origin = storage if scope["server"][1] == hub.cdn_port else api
        await origin({**scope, "path": scope["raw_path"].decode("latin-1")}, receive, send_with_id)

    return origins


def _starlette(routes: list[Route]) -> Starlette:
    handlers: dict[Any, Any] = {
        Refusal: refused,
        HTTPException: _no_route,
        ClientDisconnect: _left,
        OSError: _full_disk,
        sqlite3.OperationalError: _full_disk,
    }
    return Starlette(routes=routes, exception_handlers=handlers)


def _no_route(request: Request, error: HTTPException) -> Response:
    return refused(request, Refusal(error.status_code, "Sorry, we can't find the page you are looking for."))


def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


def _full_disk(request: Request, error: OSError | sqlite3.OperationalError) -> Response:
    """507 for a full disk, which is for the operator to mend; anything else is a fault of ours and goes on up."""
    full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(error, "errno", 0) in _FULL_DISK
    if not full:
        raise error
    return refused(request, Refusal(507, "The disk of this Hub is full."))
