"""How repos, files and commits look in JSON."""

from __future__ import annotations

import html
import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from loramerge.hub.server import history, repos
from loramerge.hub.server.database import Database
from loramerge.hub.server.gitobjects import ancestors, pointer, tree_ids
from loramerge.hub.server.history import File
from loramerge.hub.server.repos import Repo
from loramerge.hub.server.tags import library

Json = dict[str, Any]


def model(db: Database, repo: Repo, oid: str, *, fields: Collection[str] | None = None, blobs: bool = False) -> Json:
    """A repo at a commit; only the fields named, where some are. `blobs` adds size and hashes to the siblings."""
    row, files = history.row_of(db, repo, oid), history.files(db, repo, oid)
    card, namespace = json.loads(row["card"]), repo.namespace
    names = {"_id": f"{repo.key:024x}", "id": repo.id, "modelId": repo.id}
    rest = {
        "author": namespace,
        "sha": oid,
        "lastModified": row["date"],
        "createdAt": repo.created,
        "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False,
        "downloads": repo.downloads,
        "likes": 0,
        "trendingScore": 0,
        "tags": json.loads(row["tags"]),
        "library_name": library(card, files),
        "pipeline_tag": card.get("pipeline_tag"),
        "model-index": card.get("model-index"),
        "cardData": card,
        "siblings": [_sibling(file, blobs) for file in files.values()],
    }
    return names | {name: value for name, value in rest.items() if fields is None or name in fields}


def _sibling(file: File, blobs: bool) -> Json:
    if not blobs:
        return {"rfilename": file.path}
    lfs = {"lfs": {"sha256": file.sha256, **_lfs_sizes(file)}} if file.lfs else {}
    return {"rfilename": file.path, "blobId": file.oid, "size": file.size, **lfs}


def _lfs_sizes(file: File) -> Json:
    return {"size": file.size, "pointerSize": len(pointer(file.sha256, file.size))}


def tree(files: Mapping[str, File]) -> dict[str, Json]:
    """Every file and every folder of a commit by path, in order of path."""
    folders = tree_ids({path: file.oid for path, file in files.items()})
    found = {path: {"type": "directory", "oid": oid, "size": 0, "path": path} for path, oid in folders.items() if path}
    found |= {path: _entry(file) for path, file in files.items()}
    return dict(sorted(found.items()))


def _entry(file: File) -> Json:
    lfs = {"lfs": {"oid": file.sha256, **_lfs_sizes(file)}} if file.lfs else {}
    return {"type": "file", "oid": file.oid, "size": file.size, "path": file.path, **lfs}


def with_last_commits(db: Database, repo: Repo, files: Iterable[File], entries: Iterable[Json]) -> list[Json]:
    """Entries with the commit that last touched each, a folder's being the newest below it."""
    newest: dict[str, sqlite3.Row] = {}
    rows: dict[str, sqlite3.Row] = {}
    for file in files:
        if file.changed not in rows:
            rows[file.changed] = history.row_of(db, repo, file.changed)
        for path in (file.path, *ancestors(file.path)):
            candidates = (newest.get(path, rows[file.changed]), rows[file.changed])
            newest[path] = max(candidates, key=lambda row: str(row["date"]))
    return [{**entry, "lastCommit": _last_commit(newest[entry["path"]])} for entry in entries]


def _last_commit(row: sqlite3.Row) -> Json:
    return {"id": row["oid"], "title": row["title"], "date": row["date"]}


def commit(row: sqlite3.Row, *, formatted: bool = False) -> Json:
    """A commit; `formatted` adds title and message as HTML."""
    title, message = row["title"], row["message"].partition("\n\n")[2]
    extra = {"formatted": {"title": html.escape(title), "message": html.escape(message)}} if formatted else {}
    authors = [{"user": row["author"], "avatar": ""}]
    return {"id": row["oid"], "title": title, "message": message, "authors": authors, "date": row["date"], **extra}


def refs(db: Database, repo: Repo, *, pull_requests: bool) -> Json:
    """The refs of a repo by kind."""
    kinds: dict[str, list[Json]] = {"heads": [], "tags": [], "pr": []}
    for ref, oid in repos.refs(db, repo).items():
        _, kind, name = ref.split("/", 2)
        kinds[kind].append({"name": ref if kind == "pr" else name, "ref": ref, "targetCommit": oid})
    pulls = {"pullRequests": kinds["pr"]} if pull_requests else {}
    return {"branches": kinds["heads"], "converts": [], "tags": kinds["tags"], **pulls}


def discussion(row: sqlite3.Row, repo: Repo) -> Json:
    """A discussion without its events."""
    return {
        "num": row["num"],
        "title": row["title"],
        "status": row["status"],
        "author": {"name": row["author"]},
        "createdAt": row["created"],
        "isPullRequest": bool(row["pull"]),
        "repo": {"name": repo.id, "type": "model"},
    }
