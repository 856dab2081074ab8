"""Where huggingface_hub keeps what was downloaded, seen one commit at a time; works without a network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loramerge.hub.session import Hub


def find(hub: Hub, repo: str, commit: str, subfolder: str, paths: Iterable[str]) -> Path | None:
    """The folder of a pinned adapter, if all of its files are there (whatever their bytes)."""
    from huggingface_hub import try_to_load_from_cache

    folder = None
    for path in paths:
        in_repo = f"{subfolder}/{path}" if subfolder else path
        found = try_to_load_from_cache(repo, in_repo, cache_dir=hub.cache_dir, revision=commit)
        if not isinstance(found, str):
            return None
        folder = Path(found.removesuffix(path))
    return folder


def drop(path: Path) -> None:
    """Remove one cached file with the bytes behind its links, so that the next pull fetches it anew."""
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(chain[-1].parent / chain[-1].readlink())
    for link in chain:
        link.unlink(missing_ok=True)


def purge(hub: Hub, repo: str, commit: str) -> int:
    """Remove one commit of a repo from the cache; returns the bytes freed (0 where it is not there)."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = scan_cache_dir(hub.cache_dir)
    except CacheNotFound:
        return 0
    ours = [item for item in found.repos if item.repo_type == "model" and item.repo_id == repo]
    if commit not in {revision.commit_hash for item in ours for revision in item.revisions}:
        return 0
    # Only this repo: another one (a copy, a rename) may have the same commit.
    strategy = replace(found, repos=frozenset(ours)).delete_revisions(commit)
    strategy.execute()
    return int(strategy.expected_freed_size)
