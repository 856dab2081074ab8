"""Routes for large files: the git-lfs batch protocol, and the origin that the bytes go to and come from.

That origin takes links signed by the API and no tokens: a request with one is refused, so that a
client that carries its token along is found out.

Source: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md; the multipart transfer is the Hub's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from loramerge.hub.server import accounts, history, repos
from loramerge.hub.server.blobs import Incoming
from loramerge.hub.server.call import Call, Hub, receive
from loramerge.hub.server.refusal import Refusal, field, objects
from loramerge.hub.server.repos import Repo

_MOST_PARTS = 10_000
_MEDIA = "application/vnd.git-lfs+json"


class Content(FileResponse):
    """A file, or the ranges of it that were asked for, in pieces large enough to be fast."""

    chunk_size = 1 << 20


def batch(call: Call) -> Response:
    """What to do for each object: nothing where it is here already, else where to send it or get it from."""
    repo, body = call.downloadable(call.repo()), call.json()
    if upload := field(body, "operation", str) == "upload":
        call.login()
    parts = "multipart" in field(body, "transfers", list, [])
    answers: dict[str, dict[str, Any]] = {}  # two files of one content are one object, to be sent once
    for value in objects(body, "objects"):
        oid, size = field(value, "oid", str), field(value, "size", int)
        call.hub.blobs.path(oid)
        action = _upload(call, repo, oid, size, parts) if upload else _download(call, repo, oid, size)
        answers[oid] = {"oid": oid, "size": size, **action}
    found = list(answers.values())
    transfer = "multipart" if any("chunk_size" in _header(item) for item in found) else "basic"
    return JSONResponse({"transfer": transfer, "objects": found, "hash_algo": "sha256"}, media_type=_MEDIA)


def _header(item: dict[str, Any]) -> dict[str, str]:
    return dict(item.get("actions", {}).get("upload", {}).get("header", {}))


def _upload(call: Call, repo: Repo, oid: str, size: int, parts: bool) -> dict[str, Any]:
    """Large ones in parts, each with its own link, if the client can."""
    if stored_size(call, oid) == size:
        return {}
    sign, origin = call.hub.signer.sign, call.storage()
    cut = max(call.hub.part_size, -(-size // _MOST_PARTS))
    to: dict[str, Any] = {"href": origin + sign("PUT", f"/lfs/{oid}", repo=repo.key, size=size)}
    if parts and size > cut:
        pieces = {
            f"{n:05d}": origin
            + sign("PUT", f"/lfs/{oid}/part/{n}", repo=repo.key, offset=start, size=min(cut, size - start))
            for n, start in enumerate(range(0, size, cut), 1)
        }
        header = {"chunk_size": str(cut), **pieces}
        to = {"href": origin + sign("POST", f"/lfs/{oid}/complete", repo=repo.key, size=size), "header": header}
    verify = {"href": f"{call.origin()}/{repo.id}.git/info/lfs/objects/verify"}
    return {"actions": {"upload": to, "verify": verify}}


def _download(call: Call, repo: Repo, oid: str, size: int) -> dict[str, Any]:
    if history.holders(call.hub.db, oid).get(repo.id) != size:
        return {"error": {"code": 404, "message": "The object is not in this repo."}}
    link = call.storage() + call.hub.signer.sign("GET", f"/lfs/{oid}")
    return {"actions": {"download": {"href": link}}}


def verify(call: Call) -> dict[str, Any]:
    """Whether an upload has arrived."""
    call.repo()
    body = call.json()
    if stored_size(call, field(body, "oid", str)) != field(body, "size", int):
        raise Refusal(404, "The object has not arrived.")
    return {}


def stored_size(call: Call, sha256: str) -> int | None:
    """The size of a content that the user may already download here; None for all others, there or not.

    To know a hash is not to own what it stands for: else anybody could have private contents by hash.
    """
    for repo_id, size in history.holders(call.hub.db, sha256).items():
        repo = repos.find(call.hub.db, repo_id)
        if repo and accounts.may_download(call.hub.db, call.user, repo):
            return size
    return None


_Signed = Callable[[Hub, Request, str, dict[str, int]], Awaitable[Response]]


def storage(hub: Hub) -> list[Route]:
    """The routes of the other origin."""
    return [
        Route("/lfs/{oid}", _linked(hub, _get), methods=["GET"]),
        Route("/lfs/{oid}", _linked(hub, _put), methods=["PUT"]),
        Route("/lfs/{oid}/part/{n}", _linked(hub, _put_part), methods=["PUT"]),
        Route("/lfs/{oid}/complete", _linked(hub, _complete), methods=["POST"]),
    ]


def _linked(hub: Hub, handler: _Signed) -> Callable[[Request], Awaitable[Response]]:
    """A handler that is handed the object and the values of a link once the link has proved right."""

    async def respond(request: Request) -> Response:
        if "authorization" in request.headers:
            raise Refusal(400, "Storage takes signed links and must not be sent a token.")
        values = hub.signer.check(request.method, request.scope["path"], request.url.query)
        return await handler(hub, request, request.path_params["oid"], values)

    return respond


async def _get(hub: Hub, request: Request, oid: str, values: dict[str, int]) -> Response:
    path = hub.blobs.path(oid)
    if not path.is_file():
        raise Refusal(404, "The object is gone.")
    return Content(path, headers={"ETag": f'"{oid}"'}, media_type="application/octet-stream")


async def _put(hub: Hub, request: Request, oid: str, values: dict[str, int]) -> Response:
    with Incoming(hub.blobs) as incoming:
        await _receive_exactly(request, incoming.write, values["size"])
        await run_in_threadpool(incoming.keep, oid)
    await run_in_threadpool(history.add_object, hub.db, values["repo"], oid, values["size"])
    return Response(headers={"ETag": f'"{oid}"'})


async def _put_part(hub: Hub, request: Request, oid: str, values: dict[str, int]) -> Response:
    at, digest = values["offset"], hashlib.md5(usedforsecurity=False)

    def write(chunk: bytes) -> None:
        nonlocal at
        hub.blobs.write_part(_upload_name(oid, values), at, chunk)
        digest.update(chunk)
        at += len(chunk)

    await _receive_exactly(request, write, values["size"])
    return Response(headers={"ETag": f'"{digest.hexdigest()}"'})


async def _receive_exactly(request: Request, write: Callable[[bytes], object], size: int) -> None:
    length = await receive(request, write, limit=size)
    if length != size:
        raise Refusal(400, f"{size} bytes were announced and {length} received.")


async def _complete(hub: Hub, request: Request, oid: str, values: dict[str, int]) -> Response:
    await run_in_threadpool(_complete_once, hub, oid, values)
    return JSONResponse({"success": True}, media_type=_MEDIA)


def _complete_once(hub: Hub, oid: str, values: dict[str, int]) -> None:
    # A client that lost our answer asks again.
    if not history.has_object(hub.db, values["repo"], oid):
        hub.blobs.complete(_upload_name(oid, values), oid)
        history.add_object(hub.db, values["repo"], oid, values["size"])


def _upload_name(oid: str, values: dict[str, int]) -> str:
    return f"{values['repo']}-{oid}"
