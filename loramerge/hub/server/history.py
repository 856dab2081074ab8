"""Commits: the files of each, and the one way a new one comes to be."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from loramerge.hub.server import repos
from loramerge.hub.server.blobs import Blobs
from loramerge.hub.server.database import Database
from loramerge.hub.server.gitobjects import ancestors, blob_id, commit_id, pointer, tree_ids
from loramerge.hub.server.refusal import Refusal
from loramerge.hub.server.repos import Repo
from loramerge.hub.server.tags import derive, read_card

# Nothing happens where the repo was deleted meanwhile.
_ADD_OBJECT = "INSERT OR IGNORE INTO objects SELECT ?, key, ? FROM repos WHERE key = ?"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a commit: `oid` is git's id (of the pointer, for LFS), `changed` the commit that last changed it."""

    path: str
    oid: str
    size: int
    sha256: str
    lfs: bool
    changed: str = ""


@dataclass(frozen=True, slots=True)
class Removal:
    """A file, or a folder with everything below it, to be taken out."""

    path: str
    folder: bool


@dataclass(frozen=True, slots=True)
class Note:
    """What a commit says about itself."""

    author: str
    title: str
    description: str = ""

    @property
    def message(self) -> str:
        """Title and description as git holds them."""
        return f"{self.title}\n\n{self.description}".rstrip()


def regular_file(blobs: Blobs, path: str, content: bytes) -> File:
    """A file stored as it is; its content is saved."""
    return File(path, blob_id(content), len(content), blobs.add(content), lfs=False)


def lfs_file(path: str, sha256: str, size: int) -> File:
    """A file whose content came through LFS."""
    return File(path, blob_id(pointer(sha256, size)), size, sha256, lfs=True)


def files(db: Database, repo: Repo, oid: str) -> dict[str, File]:
    """The files of a commit by path, in order of path."""
    columns = "path, oid, size, sha256, lfs = 1, changed"
    rows = db.rows(f"SELECT {columns} FROM files WHERE repo = ? AND at = ? ORDER BY path", repo.key, oid)
    return {row["path"]: File(*row) for row in rows}


def commit(
    db: Database, blobs: Blobs, repo: Repo, ref: str, changes: Sequence[File | Removal], note: Note, parent: str = ""
) -> str:
    """Apply changes to a ref as one commit and return its id; to be called in a transaction.

    Where nothing changes, there is no commit and the head is returned. Refusal 412 where `parent`
    is given and is not the head, 404 for removing what is not there, 400 for a tree or a card that
    cannot be.
    """
    head = repos.refs(db, repo).get(ref)
    if parent and parent != head:
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    before = files(db, repo, head) if head else {}
    after = _applied(before, changes)
    if head and after == before:
        return head
    moment = datetime.now(UTC)
    trees = tree_ids({path: file.oid for path, file in after.items()})
    oid = commit_id(trees[""], head, note.author, int(moment.timestamp()), note.message)
    card = _card(db, blobs, repo, head, before, after)
    row = (repo.key, oid, head, note.title, note.message, note.author, repos.timestamp(moment), json.dumps(card))
    db.rows("INSERT OR REPLACE INTO commits VALUES (?,?,?,?,?,?,?,?,?)", *row, json.dumps(derive(card, after)))
    _record(db, repo, oid, [replace(file, changed=file.changed or oid) for file in after.values()])
    repos.set_ref(db, repo, ref, oid)
    return oid


def _applied(before: Mapping[str, File], changes: Iterable[File | Removal]) -> dict[str, File]:
    after = dict(before)
    for change in changes:
        if isinstance(change, Removal):
            _remove(after, change)
        else:
            _put(after, change)
    for path in after:
        if clash := next((folder for folder in ancestors(path) if folder in after), None):
            raise Refusal(400, f"{clash!a} cannot be both a file and a folder")
    return after


def _put(after: dict[str, File], file: File) -> None:
    old = after.get(file.path)
    if old is None or replace(old, changed="") != file:
        after[file.path] = file


def _remove(after: dict[str, File], removal: Removal) -> None:
    below = removal.path + "/"
    doomed = [path for path in after if path.startswith(below)] if removal.folder else [removal.path]
    if not doomed or doomed[0] not in after:
        kind = "folder" if removal.folder else "file"
        raise Refusal(404, f"A {kind} with this name doesn't exist: {removal.path!a}", code="EntryNotFound")
    for path in doomed:
        del after[path]


def _card(
    db: Database, blobs: Blobs, repo: Repo, head: str | None, before: Mapping[str, File], after: Mapping[str, File]
) -> dict[str, object]:
    readme = after.get("README.md")
    if readme is None:
        return {}
    if head and readme == before.get("README.md"):
        return dict(json.loads(row_of(db, repo, head)["card"]))
    if readme.lfs:
        return {}
    card, mistakes = read_card(blobs.path(readme.sha256).read_bytes().decode(errors="replace"))
    if mistakes:
        raise Refusal(400, f"Invalid metadata in README.md: {'; '.join(mistakes)}")
    return card


def _record(db: Database, repo: Repo, oid: str, after: Sequence[File]) -> None:
    db.rows("DELETE FROM files WHERE repo = ? AND at = ?", repo.key, oid)
    rows = ((repo.key, oid, f.path, f.oid, f.size, f.sha256, f.lfs, f.changed) for f in after)
    db.many("INSERT INTO files VALUES (?,?,?,?,?,?,?,?)", rows)
    db.many(_ADD_OBJECT, ((f.sha256, f.size, repo.key) for f in after))


def row_of(db: Database, repo: Repo, oid: str) -> sqlite3.Row:
    """A commit's row: parent, title, message, author, date, card and tags (JSON)."""
    return db.rows("SELECT * FROM commits WHERE repo = ? AND oid = ?", repo.key, oid)[0]


def log(db: Database, repo: Repo, oid: str) -> list[sqlite3.Row]:
    """A commit and all before it, newest first."""
    sql = """WITH RECURSIVE line (oid, n) AS (
        SELECT ?, 0 UNION ALL
        SELECT commits.parent, n + 1 FROM line JOIN commits ON commits.oid = line.oid
        WHERE commits.repo = ? AND commits.parent IS NOT NULL)
    SELECT commits.* FROM line JOIN commits ON commits.oid = line.oid WHERE commits.repo = ? ORDER BY n"""
    return db.rows(sql, oid, repo.key, repo.key)


def add_object(db: Database, repo: int, sha256: str, size: int) -> None:
    """Record that a repo holds this content: who may download from the repo may commit the content elsewhere."""
    db.rows(_ADD_OBJECT, sha256, size, repo)


def has_object(db: Database, repo: int, sha256: str) -> bool:
    """Whether a repo holds a content."""
    return bool(db.rows("SELECT 1 FROM objects WHERE sha256 = ? AND repo = ?", sha256, repo))


def holders(db: Database, sha256: str) -> dict[str, int]:
    """Ids of the repos that hold this content, with its size."""
    rows = db.rows("SELECT id, size FROM objects JOIN repos ON repo = key WHERE sha256 = ?", sha256)
    return {row["id"]: row["size"] for row in rows}


def known_blobs(db: Database) -> set[str]:
    """What all repos hold together."""
    return {row["sha256"] for row in db.rows("SELECT DISTINCT sha256 FROM objects")}
