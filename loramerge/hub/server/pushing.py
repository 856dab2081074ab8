"""Routes by which content enters: checking a card, asking how to send files, committing, pull requests."""

from __future__ import annotations

import base64
import binascii
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO, Any

from loramerge.hub.server import history, repos, views
from loramerge.hub.server.blobs import Blobs
from loramerge.hub.server.call import Call, parse_object
from loramerge.hub.server.gitobjects import check_path
from loramerge.hub.server.history import File, Note, Removal
from loramerge.hub.server.lfs import stored_size
from loramerge.hub.server.preupload import LARGEST_REGULAR, is_ignored, upload_mode
from loramerge.hub.server.refusal import Refusal, field, objects
from loramerge.hub.server.repos import MAIN, Repo
from loramerge.hub.server.tags import read_card

_LONGEST_LINE = LARGEST_REGULAR * 4 // 3 + (1 << 16)


def validate_yaml(call: Call) -> dict[str, Any]:
    """What is wrong with the metadata of a README: 400 with the errors, or 200 with warnings."""
    card, mistakes = read_card(field(call.json(), "content", str))
    if mistakes:
        errors = [{"message": mistake} for mistake in mistakes]
        raise Refusal(400, "Invalid metadata", errors=errors, warnings=[])
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return {"errors": [], "warnings": warnings}


def preupload(call: Call) -> dict[str, Any]:
    """For each file: through LFS or not, to be sent or not, and the id of what is there under its name now."""
    repo, ref = _target(call)
    body = call.json()
    files = history.files(call.hub.db, repo, repos.refs(call.hub.db, repo)[ref])
    hosted = files.get(".gitignore")
    gitignore = body.get("gitIgnore")
    if gitignore is None and hosted and not hosted.lfs:
        gitignore = call.hub.blobs.path(hosted.sha256).read_bytes().decode(errors="replace")
    return {"files": [_how(value, files, str(gitignore or "")) for value in objects(body, "files")]}


def _how(value: dict[str, Any], files: dict[str, File], gitignore: str) -> dict[str, Any]:
    path = check_path(field(value, "path", str))
    mode = upload_mode(path, field(value, "size", int), _decoded(field(value, "sample", str, "")))
    how = {"path": path, "uploadMode": mode, "shouldIgnore": is_ignored(path, gitignore)}
    if there := files.get(path):
        how["oid"] = there.sha256 if there.lfs else there.oid
    return how


def _target(call: Call) -> tuple[Repo, str]:
    """The repo and the ref that a push goes to; with create_pr, the ref that the request starts from.

    Everybody who may download from a repo may open a pull request and push to their own; Refusal for
    anything else that is not theirs, and 404 for what is not a branch or a pull request.
    """
    repo, rev, user = call.downloadable(call.repo()), call.part("rev"), call.login()
    ref = repos.ref_named(call.hub.db, repo, rev)
    if ref is None or ref.startswith("refs/tags/"):
        raise Refusal(404, f"Invalid rev id: {rev[:200]!a}", code="RevisionNotFound")
    row = _discussion(call, repo, ref.rpartition("/")[2]) if ref.startswith("refs/pr/") else None
    if not call.flag("create_pr") and (row is None or row["author"] != user):
        call.owned(repo)
    return repo, ref


def commit(call: Call) -> dict[str, Any]:
    """One commit of everything in the body, or nothing: contents are saved first, the rest is one transaction."""
    repo, ref = _target(call)
    lines = _lines(call.body)
    key, header = next(lines, ("", {}))
    if key != "header":
        raise Refusal(400, "A commit starts with its header.")
    note = Note(call.login(), field(header, "summary", str), field(header, "description", str, ""))
    parent = field(header, "parentCommit", str, "")
    changes = [_change(call, key, value) for key, value in lines]
    pull = None
    with call.hub.db.transaction():
        if call.flag("create_pr"):
            pull = _open_pull_request(call, repo, ref, note.title, note.description)
            ref = f"refs/pr/{pull}"
        oid = history.commit(call.hub.db, call.hub.blobs, repo, ref, changes, note, parent)
    url = f"{call.origin()}/{repo.id}"
    return {
        "success": True,
        "commitOid": oid,
        "commitUrl": f"{url}/commit/{oid}",
        "hookOutput": "",
        "pullRequestUrl": f"{url}/discussions/{pull}" if pull else None,
    }


def _lines(body: IO[bytes]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and value of each line; a line is at most one regular file long, so memory is bounded."""
    while line := body.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise Refusal(400, f"Files above {LARGEST_REGULAR} bytes must be sent through LFS.")
        if line.strip():
            item = parse_object(line)
            yield field(item, "key", str), field(item, "value", dict)


def _change(call: Call, key: str, value: dict[str, Any]) -> File | Removal:
    path = field(value, "path", str).rstrip("/")
    if key == "file":
        return read_file(call.hub.blobs, value)
    if key == "lfsFile":
        sha256 = field(value, "oid", str)
        size = stored_size(call, sha256)
        if size is None or field(value, "size", int, size) != size:
            raise Refusal(400, f"The LFS object {sha256[:64]!a} has not been uploaded to this Hub.")
        return history.lfs_file(check_path(path), sha256, size)
    if key in ("deletedFile", "deletedFolder"):
        return Removal(check_path(path), folder=key == "deletedFolder")
    raise Refusal(400, f"Unknown operation in a commit: {key[:100]!a}")


def read_file(blobs: Blobs, value: dict[str, Any]) -> File:
    """The regular file that a client sent, stored."""
    path, content = check_path(field(value, "path", str)), field(value, "content", str)
    decoded = _decoded(content) if value.get("encoding") == "base64" else content.encode()
    if len(decoded) > LARGEST_REGULAR:
        raise Refusal(400, f"Files above {LARGEST_REGULAR} bytes must be sent through LFS.")
    return history.regular_file(blobs, path, decoded)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, "Content is not valid base64.") from None


def discuss(call: Call) -> dict[str, int]:
    """Open a discussion, or a pull request with nothing in it yet."""
    repo, body = call.repo(), call.json()
    title, description = field(body, "title", str), field(body, "description", str, "")
    with call.hub.db.transaction():
        if field(body, "pullRequest", bool, False):
            return {"num": _open_pull_request(call, repo, MAIN, title, description)}
        return {"num": _open(call, repo, title, description, pull=False)}


def _open_pull_request(call: Call, repo: Repo, base: str, title: str, description: str) -> int:
    num = _open(call, repo, title, description, pull=True)
    repos.set_ref(call.hub.db, repo, f"refs/pr/{num}", repos.refs(call.hub.db, repo)[base])
    return num


def _open(call: Call, repo: Repo, title: str, description: str, *, pull: bool) -> int:
    count = "SELECT coalesce(max(num), 0) + 1 AS num FROM discussions WHERE repo = ?"
    num = int(call.hub.db.rows(count, repo.key)[0]["num"])
    row = (repo.key, num, title, description, call.login(), pull, "open", repos.timestamp(datetime.now(UTC)))
    call.hub.db.rows("INSERT INTO discussions VALUES (?,?,?,?,?,?,?,?)", *row)
    return num


def discussions(call: Call) -> dict[str, Any]:
    """All discussions of a repo, the newest first, on one page."""
    repo = call.repo()
    rows = call.hub.db.rows("SELECT * FROM discussions WHERE repo = ? ORDER BY num DESC", repo.key)
    shown = [views.discussion(row, repo) for row in rows]
    return {"discussions": shown, "count": len(shown), "start": 0}


def discussion(call: Call) -> dict[str, Any]:
    """A discussion with its one event, the comment that opened it."""
    repo = call.repo()
    row = _discussion(call, repo, call.part("num"))
    data = {"edited": False, "hidden": False, "latest": {"raw": row["description"]}}
    shown = views.discussion(row, repo)
    comment = {"id": f"{row['num']:024x}", "type": "comment", "createdAt": row["created"], "author": shown["author"]}
    pull = {"changes": {"base": MAIN}, "filesWithConflicts": []} if row["pull"] else {}
    return {**shown, **pull, "events": [{**comment, "data": data}]}


def _discussion(call: Call, repo: Repo, num: str) -> sqlite3.Row:
    row = call.hub.db.row("SELECT * FROM discussions WHERE repo = ? AND num = ?", repo.key, num)
    if row is None:
        raise Refusal(404, "There is no such discussion.")
    return row
