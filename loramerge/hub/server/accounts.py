"""Users, their tokens, and who may do what.

A namespace that carries a user's name is that user's. Any other namespace is an organisation's: it
comes into being with its first repo, and everybody who has a token on this server belongs to it. So
a private repo of a user is seen by that user alone, one of an organisation by everybody with a token.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string

from loramerge.errors import BadOption
from loramerge.hub.server.database import Database
from loramerge.hub.server.repos import Repo, check_id

_ALPHABET = string.ascii_letters + string.digits
_TOKEN = re.compile(r"hf_[A-Za-z0-9_\-]{8,200}")


def user_of(db: Database, token: str) -> str | None:
    """Whose token it is. The table holds hashes only, so neither a copy of it nor timing gives tokens away."""
    hashed = _hash(token)
    row = db.row("SELECT hash, user FROM tokens WHERE hash = ?", hashed)
    return row["user"] if row and hmac.compare_digest(row["hash"], hashed) else None


def add_user(db: Database, name: str, token: str | None = None) -> str:
    """A token of that user, who is made if not there; a new one unless given. BadOption for what cannot be."""
    _check(db, name, token)
    token = token or "hf_" + "".join(secrets.choice(_ALPHABET) for _ in range(34))
    with db.transaction():
        db.rows("INSERT OR IGNORE INTO users VALUES (?)", name)
        canonical = db.rows("SELECT name FROM users WHERE name = ?", name)[0]["name"]
        db.rows("INSERT OR IGNORE INTO tokens VALUES (?, ?)", _hash(token), canonical)
    return token


def _check(db: Database, name: str, token: str | None) -> None:
    if not check_id(f"{name}/x"):
        raise BadOption(f"{name!a} cannot be the name of a user.", hint="letters, digits and - _ . between them")
    if name.lower() in (organisation.lower() for organisation in organisations(db)):
        raise BadOption(f"{name} is an organisation on this server.", hint="another name for the user")
    if token is None:
        return
    if not _TOKEN.fullmatch(token):
        raise BadOption("That is not a token.", hint="hf_ and at least 8 letters or digits")
    if (user_of(db, token) or name).lower() != name.lower():
        raise BadOption("That token belongs to another user.", hint="a token of its own for each user")


def has_token(db: Database, name: str) -> bool:
    """Whether a user has one already."""
    return bool(db.rows("SELECT 1 FROM tokens JOIN users ON user = name WHERE name = ? LIMIT 1", name))


def is_user(db: Database, name: str) -> bool:
    """Whether a namespace is a user's."""
    return bool(db.rows("SELECT 1 FROM users WHERE name = ?", name))


def organisations(db: Database) -> list[str]:
    """Namespaces in use that are no user's."""
    sql = "SELECT DISTINCT substr(id, 1, instr(id, '/') - 1) AS name FROM repos ORDER BY name"
    return [row["name"] for row in db.rows(sql) if not is_user(db, row["name"])]


def owns(db: Database, user: str | None, namespace: str) -> bool:
    """Whether a user may write to what is in a namespace."""
    return user is not None and (user.lower() == namespace.lower() or not is_user(db, namespace))


def may_see(db: Database, user: str | None, repo: Repo) -> bool:
    """Whether a user may know that a repo is there."""
    return not repo.private or owns(db, user, repo.namespace)


def may_download(db: Database, user: str | None, repo: Repo) -> bool:
    """A gated repo shows everything but file contents to those who have no access to it."""
    granted = db.rows("SELECT 1 FROM grants WHERE repo = ? AND user = ?", repo.key, user or "")
    return may_see(db, user, repo) and (not repo.gated or bool(granted) or owns(db, user, repo.namespace))


def grant(db: Database, repo: Repo, user: str) -> None:
    """Give a user access to a gated repo."""
    db.rows("INSERT OR IGNORE INTO grants SELECT ?, name FROM users WHERE name = ?", repo.key, user)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
