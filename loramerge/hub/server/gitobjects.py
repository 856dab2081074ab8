r"""Object ids as git computes them, and which names git and every client can hold.

    blob    sha1("blob <size>\0" content)            LFS files: of the pointer, not of the content
    tree    sha1("tree <size>\0" (mode name \\0 oid)…)  entries in git's order
    commit  sha1("commit <size>\\0" tree, parent, author and time, message)

Source: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from loramerge.hub.paths import escapes
from loramerge.hub.server.refusal import Refusal

_COMMIT = re.compile(r"[0-9a-f]{40}")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\-]*(/[A-Za-z0-9_][A-Za-z0-9._\-]*)*")


def _oid(kind: str, content: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content, usedforsecurity=False).hexdigest()


def blob_id(content: bytes) -> str:
    """The id of a file with this content."""
    return _oid("blob", content)


def pointer(sha256: str, size: int) -> bytes:
    """What git stores in place of an LFS file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_ids(blobs: Mapping[str, str]) -> dict[str, str]:
    """Path -> blob id of every file, to path -> tree id of every folder; the root is ""."""
    folders: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, oid in blobs.items():
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, {})[name] = ("100644", oid)
    for folder in list(folders):
        for above in ancestors(folder):
            folders.setdefault(above, {})
    ids = {}
    for folder in sorted(folders, key=lambda path: (path != "") + path.count("/"), reverse=True):
        ids[folder] = _oid("tree", _tree(folders[folder]))
        above, _, name = folder.rpartition("/")
        if folder:
            folders[above][name] = ("40000", ids[folder])
    return ids


def _tree(entries: Mapping[str, tuple[str, str]]) -> bytes:
    # git sorts a folder as if its name ended with a slash.
    order = sorted(entries.items(), key=lambda entry: (entry[0] + "/" * (entry[1][0] == "40000")).encode())
    return b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for name, (mode, oid) in order)


def ancestors(path: str) -> list[str]:
    """The folders above a path, without the root."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def commit_id(tree: str, parent: str | None, author: str, seconds: int, message: str) -> str:
    """The id of a commit: the same for the same tree, parent, author, second and message."""
    who = f"{author} <{author}@localhost> {seconds} +0000"
    lines = [f"tree {tree}", *([f"parent {parent}"] if parent else []), f"author {who}", f"committer {who}"]
    return _oid("commit", "\n".join([*lines, "", message]).encode())


def is_commit_id(text: str) -> bool:
    """Whether a revision has the form of a full commit id."""
    return _COMMIT.fullmatch(text) is not None


def check_path(path: str) -> str:
    """The path itself; Refusal 400 where writing it could hurt somebody who clones or downloads it."""
    parts = path.split("/")
    inside_git = any(part.rstrip(" .").lower() in (".git", "git~1") for part in parts)
    if escapes(path) or inside_git or len(path) > 4096 or any(len(part.encode()) > 255 for part in parts):
        raise Refusal(400, f"Invalid path in repo: {path[:300]!a}")
    return path


def check_ref(name: str) -> str:
    """The name of a branch or tag itself; Refusal 400 for what could be taken for something else."""
    taken = name == "HEAD" or name.startswith("refs/") or is_commit_id(name)
    if not _REF.fullmatch(name) or taken or ".." in name or name.endswith((".", ".lock")) or len(name) > 255:
        raise Refusal(400, f"Invalid name of a branch or tag: {name[:300]!a}")
    return name
