"""Routes that read one repo: its tree, its files, its commits and its refs; and those that name commits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, quote

from starlette.responses import JSONResponse, Response

from loramerge.hub.server import history, repos, views
from loramerge.hub.server.call import Call, is_true
from loramerge.hub.server.history import File
from loramerge.hub.server.lfs import Content
from loramerge.hub.server.refusal import Refusal, field
from loramerge.hub.server.repos import Repo

_COUNTED = {"adapter_config.json", "config.json"}  # one fetch of these is one download of the model
# A file is data: a browser must neither guess that it is a page nor run it as one.
_INERT = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}


def tree(call: Call) -> Response:
    """The entries of a folder, or of all below it; the next page is pinned to the same commit."""
    repo, oid, files = _at(call)
    folder = call.part("path").strip("/")
    entries = views.tree(files)
    if folder and entries.get(folder, {}).get("type") != "directory":
        raise Refusal(404, f"{folder[:300]!a} does not exist", code="EntryNotFound", headers=_commit(oid))
    below = [entry for path, entry in entries.items() if not folder or path.startswith(f"{folder}/")]
    if not call.flag("recursive"):
        below = [entry for entry in below if entry["path"].rpartition("/")[0] == folder]
    where = f"/api/models/{repo.id}/tree/{oid}/{quote(folder)}".rstrip("/")
    page, headers = call.page(below, path=where)
    return JSONResponse(_expanded(call, repo, files, page, call.flag("expand")), headers=headers)


def paths_info(call: Call) -> list[Any]:
    """The entries of some paths; those that are not there are left out."""
    repo, _, files = _at(call)
    if "json" in call.request.headers.get("content-type", ""):
        body = call.json()
        paths, expand = field(body, "paths", list), field(body, "expand", bool, False)
    else:
        form = parse_qs(call.body.read().decode(errors="replace"))
        paths, expand = form.get("paths", []), is_true(form.get("expand", [""])[0])
    entries = views.tree(files)
    asked = dict.fromkeys(path.strip("/") for path in paths if isinstance(path, str))
    found = [entries[path] for path in asked if path in entries]
    return _expanded(call, repo, files, found, expand)


def _at(call: Call) -> tuple[Repo, str, dict[str, File]]:
    """The repo, the commit and its files that a path is about."""
    repo = call.repo()
    oid = repos.commit_of(call.hub.db, repo, call.part("rev"))
    return repo, oid, history.files(call.hub.db, repo, oid)


def _expanded(
    call: Call, repo: Repo, files: dict[str, File], entries: Iterable[dict[str, Any]], expand: bool
) -> list[Any]:
    return views.with_last_commits(call.hub.db, repo, files.values(), entries) if expand else list(entries)


def _commit(oid: str) -> dict[str, str]:
    return {"X-Repo-Commit": oid}


def resolve(call: Call) -> Response:
    """A file: its bytes, or for LFS the way to them on the other origin."""
    repo, oid, files = _at(call)
    call.downloadable(repo)
    path = call.part("path")
    file = files.get(path)
    if file is None:
        raise Refusal(404, "Entry not found", code="EntryNotFound", headers=_commit(oid))
    if call.request.method == "GET" and path in _COUNTED:
        repos.count_download(call.hub.db, repo)
    name = quote(path.rpartition("/")[2])
    headers = {**_commit(oid), **_INERT, "Content-Disposition": f"inline; filename*=UTF-8''{name}"}
    if not file.lfs:
        headers["ETag"] = f'"{file.oid}"'
        media = "text/plain; charset=utf-8"
        return Content(call.hub.blobs.path(file.sha256), headers=headers, media_type=media)
    link = call.hub.signer.sign("GET", f"/lfs/{file.sha256}")
    linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    return Response(status_code=302, headers={**headers, **linked, "Location": call.storage() + link})


def commits(call: Call) -> Response:
    """The commits that led to a revision, newest first."""
    repo, oid, _ = _at(call)
    page, headers = call.page(history.log(call.hub.db, repo, oid))
    formatted = "formatted" in call.asked("expand")
    return JSONResponse([views.commit(row, formatted=formatted) for row in page], headers=headers)


def refs(call: Call) -> dict[str, Any]:
    """Branches, tags and, where asked for, pull requests."""
    return views.refs(call.hub.db, call.repo(), pull_requests=call.flag("include_prs"))


def add_branch(call: Call) -> Response:
    """A branch at a revision, main where none is named."""
    body = call.json()
    if body.get("emptyBranch"):
        raise Refusal(400, "This Hub makes no empty branches.")
    return _add(call, "heads", call.part("branch"), field(body, "startingPoint", str, "main"))


def add_tag(call: Call) -> Response:
    """A tag at a revision."""
    return _add(call, "tags", field(call.json(), "tag", str), call.part("rev"))


def _add(call: Call, kind: str, name: str, revision: str) -> Response:
    repo = call.owned(call.repo())
    repos.add_ref(call.hub.db, repo, kind, name, repos.commit_of(call.hub.db, repo, revision))
    return Response()


def remove_branch(call: Call) -> Response:
    """Forget a branch; its commits stay reachable by their ids."""
    repos.remove_ref(call.hub.db, call.owned(call.repo()), "heads", call.part("branch"))
    return Response()


def remove_tag(call: Call) -> Response:
    """Forget a tag."""
    repos.remove_ref(call.hub.db, call.owned(call.repo()), "tags", call.part("rev"))
    return Response()
