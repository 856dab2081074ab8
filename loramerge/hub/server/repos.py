"""Repos and the names in them: creating, finding, moving, and what a revision stands for."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from loramerge.hub.server.database import Database
from loramerge.hub.server.gitobjects import check_ref, is_commit_id
from loramerge.hub.server.refusal import Refusal

MAIN = "refs/heads/main"
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9._\-]{0,94}[A-Za-z0-9_])?"
_ID = re.compile(f"{_PART}/{_PART}")
_RESERVED = {"api", "models", "datasets", "spaces", "kernels", "buckets", "lfs"}


@dataclass(frozen=True, slots=True)
class Repo:
    """A row of the repos table; `gated` is "", "auto" or "manual"."""

    key: int
    id: str
    private: bool
    gated: str
    created: str
    downloads: int

    @property
    def namespace(self) -> str:
        """What stands before the slash."""
        return self.id.partition("/")[0]


def timestamp(moment: datetime) -> str:
    """A time in UTC as the Hub writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def check_id(repo_id: str) -> bool:
    """Whether clients and URLs can name a repo so."""
    forbidden = "--" in repo_id or ".." in repo_id or repo_id.endswith((".git", ".ipynb"))
    return bool(_ID.fullmatch(repo_id)) and not forbidden and repo_id.split("/")[0].lower() not in _RESERVED


def _repo(row: sqlite3.Row) -> Repo:
    private, gated = bool(row["private"]), row["gated"]
    return Repo(row["key"], row["id"], private, gated, row["created"], row["downloads"])


def find(db: Database, repo_id: str) -> Repo | None:
    """The repo that has this id, in any case of letters, or had it before it was renamed."""
    row = db.row("SELECT * FROM repos WHERE id = ?", repo_id) or db.row(
        "SELECT repos.* FROM repos JOIN renames ON repo = key WHERE old = ?", repo_id
    )
    return _repo(row) if row else None


def every(db: Database) -> list[Repo]:
    """All repos, in the order they were made."""
    return [_repo(row) for row in db.rows("SELECT * FROM repos ORDER BY key")]


def create(db: Database, repo_id: str, url: str, *, private: bool) -> Repo:
    """An empty repo; to be called in a transaction. Refusal 400 or 409 where the id cannot be or is taken."""
    _claim(db, repo_id, url)
    db.rows("INSERT INTO repos (id, private, created) VALUES (?, ?, ?)", repo_id, private, timestamp(datetime.now(UTC)))
    return _repo(db.rows("SELECT * FROM repos WHERE id = ?", repo_id)[0])


def move(db: Database, repo: Repo, repo_id: str, url: str) -> None:
    """Rename, with the same Refusals; the old id goes on leading here until a new repo takes it."""
    with db.transaction():
        if repo_id.lower() != repo.id.lower():
            _claim(db, repo_id, url)
            db.rows("INSERT OR REPLACE INTO renames VALUES (?, ?)", repo.id, repo.key)
        db.rows("UPDATE repos SET id = ? WHERE key = ?", repo_id, repo.key)


def _claim(db: Database, repo_id: str, url: str) -> None:
    if not check_id(repo_id):
        raise Refusal(400, f"Invalid repo id: {repo_id[:200]!a}")
    if db.rows("SELECT 1 FROM repos WHERE id = ?", repo_id):
        raise Refusal(409, "There is already a model repo with this name", url=url)
    db.rows("DELETE FROM renames WHERE old = ?", repo_id)


def delete(db: Database, repo: Repo) -> None:
    """Forget a repo and everything in it; its blobs go when the server next sweeps."""
    db.rows("DELETE FROM repos WHERE key = ?", repo.key)


def change(db: Database, repo: Repo, *, private: bool, gated: str) -> None:
    """Set who may see a repo and who may download from it."""
    db.rows("UPDATE repos SET private = ?, gated = ? WHERE key = ?", private, gated, repo.key)


def count_download(db: Database, repo: Repo) -> None:
    """One more."""
    db.rows("UPDATE repos SET downloads = downloads + 1 WHERE key = ?", repo.key)


def refs(db: Database, repo: Repo) -> dict[str, str]:
    """Full name -> commit: refs/heads/…, refs/tags/…, refs/pr/…."""
    rows = db.rows("SELECT name, oid FROM refs WHERE repo = ? ORDER BY name", repo.key)
    return {row["name"]: row["oid"] for row in rows}


def ref_named(db: Database, repo: Repo, revision: str) -> str | None:
    """The full name of the branch, tag or pull request that a revision names."""
    names = refs(db, repo)
    asked = "main" if revision == "HEAD" else revision
    wanted = (f"refs/heads/{asked}", f"refs/tags/{asked}", asked)
    return next((name for name in wanted if name in names), None)


def commit_of(db: Database, repo: Repo, revision: str) -> str:
    """The commit that a branch, tag, pull request or 40-digit id stands for; Refusal 404 where none does."""
    if name := ref_named(db, repo, revision):
        return refs(db, repo)[name]
    if is_commit_id(revision) and db.rows("SELECT 1 FROM commits WHERE repo = ? AND oid = ?", repo.key, revision):
        return revision
    raise Refusal(404, f"Invalid rev id: {revision[:200]!a}", code="RevisionNotFound")


def add_ref(db: Database, repo: Repo, kind: str, name: str, oid: str) -> None:
    """A branch ("heads") or tag ("tags"); Refusal 409 where there is one."""
    with db.transaction():
        if f"refs/{kind}/{check_ref(name)}" in refs(db, repo):
            raise Refusal(409, f"Reference already exists: refs/{kind}/{name}")
        set_ref(db, repo, f"refs/{kind}/{name}", oid)


def set_ref(db: Database, repo: Repo, name: str, oid: str) -> None:
    """Make a ref point to a commit, whatever it pointed to."""
    db.rows("INSERT OR REPLACE INTO refs VALUES (?, ?, ?)", repo.key, name, oid)


def remove_ref(db: Database, repo: Repo, kind: str, name: str) -> None:
    """Refusal 404 where there is none, 403 for the main branch."""
    full = f"refs/{kind}/{name}"
    if full == MAIN:
        raise Refusal(403, "The main branch cannot be deleted")
    if full not in refs(db, repo):
        raise Refusal(404, f"Reference does not exist: {full[:200]!a}", code="RevisionNotFound")
    db.rows("DELETE FROM refs WHERE repo = ? AND name = ?", repo.key, full)
