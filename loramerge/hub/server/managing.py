"""Routes about repos as a whole: users, making and changing repos, finding and describing them."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from loramerge.hub.server import accounts, history, repos, views
from loramerge.hub.server.call import Call, is_true
from loramerge.hub.server.history import Note
from loramerge.hub.server.preupload import GITATTRIBUTES
from loramerge.hub.server.pushing import read_file
from loramerge.hub.server.refusal import Refusal, field, objects
from loramerge.hub.server.repos import MAIN, Repo

_GATES = {"auto": "auto", "manual": "manual", False: ""}
_SORTS = {"lastModified", "createdAt", "downloads", "likes", "trendingScore"}
_FILTERS = {"filter", "author", "search", "pipeline_tag", "gated"}
_QUERY = _FILTERS | {"sort", "direction", "limit", "cursor", "full", "cardData", "expand"}
_SHORT = {"private", "likes", "downloads", "tags", "library_name", "pipeline_tag", "createdAt"}
_FULL = _SHORT | {"author", "sha", "lastModified", "gated", "disabled", "siblings"}


def whoami(call: Call) -> dict[str, Any]:
    """The user whose token it is."""
    user = call.login()
    names = accounts.organisations(call.hub.db)
    orgs = [{"type": "org", "name": name, "fullname": name, "roleInOrg": "write"} for name in names]
    token = {"displayName": "token", "role": "write"}
    return {
        "type": "user",
        "id": user,
        "name": user,
        "fullname": user,
        "email": None,
        "isPro": False,
        "canPay": False,
        "periodEnd": None,
        "avatarUrl": "",
        "orgs": orgs,
        "auth": {"type": "access_token", "accessToken": token},
    }


def create(call: Call) -> dict[str, str]:
    """A repo with .gitattributes, and the files that came with the request, as its first commit."""
    body, user = call.json(), call.login()
    repo_id = _id_in(body, user)
    if not accounts.owns(call.hub.db, user, repo_id.partition("/")[0]):
        raise Refusal(403, f"You don't have the rights to create a model under the namespace {repo_id.split('/')[0]}")
    files = [{"path": ".gitattributes", "content": GITATTRIBUTES, "encoding": "utf-8"}, *objects(body, "files")]
    changes, url = [read_file(call.hub.blobs, value) for value in files], f"{call.origin()}/{repo_id}"
    with call.hub.db.transaction():
        repo = repos.create(call.hub.db, repo_id, url, private=_private(body, default=False))
        history.commit(call.hub.db, call.hub.blobs, repo, MAIN, changes, Note(user, "initial commit"))
    return {"url": url, "name": repo_id, "id": repo_id}


def _id_in(body: dict[str, Any], user: str) -> str:
    if field(body, "type", str, "model") != "model":
        raise Refusal(400, "This Hub stores models only.")
    return f"{field(body, 'organization', str, user)}/{field(body, 'name', str)}"


def _private(body: dict[str, Any], *, default: bool) -> bool:
    if "visibility" in body and body["visibility"] not in ("public", "private", None):
        raise Refusal(400, "A repo is public or private.")
    visibility = {"public": False, "private": True}.get(body.get("visibility") or "", default)
    return field(body, "private", bool, visibility)


def delete(call: Call) -> Response:
    """Delete a repo."""
    repos.delete(call.hub.db, call.owned(_exactly(call, _id_in(call.json(), call.login()))))
    return Response()


def move(call: Call) -> Response:
    """Rename a repo, into another namespace too."""
    body, user = call.json(), call.login()
    repo = call.owned(_exactly(call, field(body, "fromRepo", str)))
    to = field(body, "toRepo", str)
    if not accounts.owns(call.hub.db, user, to.partition("/")[0]):
        raise Refusal(403, f"You don't have the rights to move a model to {to!a}")
    repos.move(call.hub.db, repo, to, f"{call.origin()}/{to}")
    return Response()


def _exactly(call: Call, repo_id: str) -> Repo:
    """Deleting and moving take the present name only: a former one may be a mistake."""
    repo = call.find(repo_id)
    if repo.id.lower() != repo_id.lower():
        raise Refusal(404, "Repository not found", code="RepoNotFound")
    return repo


def settings(call: Call) -> dict[str, Any]:
    """Set who may see a repo and whether its files are gated."""
    repo, body = call.owned(call.repo()), call.json()
    gate = body.get("gated", repo.gated or False)
    if not isinstance(gate, str | bool) or gate not in _GATES:
        raise Refusal(400, '"gated" must be "auto", "manual" or false')
    private = _private(body, default=repo.private)
    repos.change(call.hub.db, repo, private=private, gated=_GATES[gate])
    return {"private": private, "gated": gate}


def grant(call: Call) -> Response:
    """Give a user access to a gated repo."""
    repo, user = call.owned(call.repo()), field(call.json(), "user", str)
    if not accounts.is_user(call.hub.db, user):
        raise Refusal(404, "There is no such user.")
    accounts.grant(call.hub.db, repo, user)
    return JSONResponse({})


def auth_check(call: Call) -> dict[str, Any]:
    """Whether the user may download."""
    call.downloadable(call.repo())
    return {}


def write_check(call: Call) -> dict[str, Any]:
    """Whether the user may push."""
    call.owned(call.repo())
    return {}


def info(call: Call) -> dict[str, Any]:
    """A repo at a revision."""
    repo = call.repo()
    oid = repos.commit_of(call.hub.db, repo, call.part("rev") or "main")
    fields = set(call.asked("expand")) or None
    return views.model(call.hub.db, repo, oid, fields=fields, blobs=call.flag("blobs"))


def search(call: Call) -> Response:
    """Repos that the user may see and that pass every filter, newest first unless sorted otherwise."""
    query = call.request.query_params
    if unknown := {name.removesuffix("[]") for name in query} - _QUERY:
        raise Refusal(400, f"This Hub cannot search by {', '.join(map(ascii, sorted(unknown)))}.")
    if (sort := query.get("sort", "lastModified")) not in _SORTS:
        raise Refusal(400, f"Models cannot be sorted by {sort!a}.")
    db = call.hub.db
    seen = [repo for repo in repos.every(db) if accounts.may_see(db, call.user, repo)]
    models = (views.model(db, repo, repos.commit_of(db, repo, "main")) for repo in seen)
    found = [model for model in models if _passes(call, model)]
    found.sort(key=lambda model: (model[sort], model["id"]), reverse=query.get("direction") != "1")
    page, headers = call.page(found)
    shown = _fields(call)
    return JSONResponse([{k: v for k, v in model.items() if k in shown} for model in page], headers=headers)


def _passes(call: Call, model: dict[str, Any]) -> bool:
    query = call.request.query_params
    words = query.get("search", "").lower().split()
    return (
        set(call.asked("filter")) <= set(model["tags"])
        and query.get("author", model["author"]).lower() == model["author"].lower()
        and query.get("pipeline_tag", model["pipeline_tag"]) == model["pipeline_tag"]
        and ("gated" not in query or is_true(query["gated"]) == bool(model["gated"]))
        and all(word in model["id"].lower() for word in words)
    )


def _fields(call: Call) -> set[str]:
    fields = set(call.asked("expand")) or (_FULL if call.flag("full") else _SHORT)
    return {"_id", "id", "modelId"} | fields | ({"cardData"} if call.flag("cardData") else set())
