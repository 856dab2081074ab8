"""A folder to the Hub in one atomic commit on top of a known parent, and the hashes compared afterwards."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from loramerge.core.provenance import FilePin, git_blob_sha1, pin
from loramerge.errors import IntegrityError, NotAllowed, NotFound, UnknownFormat, UsageError
from loramerge.formats.peft import CONFIG, PICKLE
from loramerge.hub.download import Progress
from loramerge.hub.pull import matches, wanted
from loramerge.hub.reference import parse
from loramerge.hub.session import quiet
from loramerge.hub.text import plain
from loramerge.hub.upload import Commit, Unanswered, send

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

    from loramerge.hub.session import Hub

_TRIES = 3
_OUTDATED = ("heads/*.safetensors", PICKLE, "loramerge.json")  # what a pull would take for the new result's own


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is on the Hub now, or would be (`commit` is None for a dry run).

    `changed` names the files that the commit brought or removed; it is empty where all was so already.
    """

    repo: str
    commit: str | None
    url: str
    files: tuple[FilePin, ...]
    changed: tuple[str, ...]
    pr_url: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def unchanged(self) -> bool:
        """Whether the Hub had every file already, and none of an older result."""
        return not self.changed


def push(
    hub: Hub,
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    pr: bool = False,
    dry_run: bool = False,
    message: str | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Send an adapter's files to `repo` (made when it is not there) in one commit: all appear, or none does.

    Only the files of an adapter are sent (`wanted`), never a pickle. The same commit removes an older
    result's heads, pickle and lineage that the folder does not have; all else in the repo stays.
    Raises UsageError for what is no repo, UnknownFormat for a folder that is no adapter, AccessError,
    NetworkError (nothing is visible then), LoramergeError where somebody else pushed meanwhile,
    IntegrityError where the Hub ends up with other bytes. Pushing again what is there changes nothing.
    """
    name = _repo_name(repo)
    files = _files(folder)
    info = _info(hub, name, private)
    outdated = _outdated(info, folder) if info else ()
    changed = _changed(hub, name, folder, files, outdated, info.sha) if info else [file.path for file in files]
    planned = Pushed(name, None, f"{hub.url}/{name}", files, tuple(changed), notes=_removal(outdated))
    if dry_run:
        return planned
    if info and not changed:
        return replace(planned, commit=info.sha)
    parent = (info or _create(hub, name, private)).sha
    sizes = {file.path: file.size for file in files if file.path in changed}
    commit = Commit(folder, name, sizes, parent, message or f"Upload {folder.resolve().name}", pr, outdated)
    oid, pr_url, notes = _commit(hub, commit, files, progress)
    if wrong := _changed(hub, name, folder, files, outdated, oid):
        raise IntegrityError(
            f"Commit {oid[:12]} of {name} does not hold what was sent.",
            where=plain(", ".join(wrong)),
            hint="push again; if it stays so, something between here and the Hub changes files",
        )
    return replace(planned, commit=oid, pr_url=pr_url, notes=(*planned.notes, *notes))


def _repo_name(text: str) -> str:
    ref = parse(text)
    if ref.revision or ref.subfolder:
        raise UsageError("A push goes to the default branch of a whole repo.", where=text, hint=f"{ref.repo}, or --pr")
    return ref.repo


def _files(folder: Path) -> tuple[FilePin, ...]:
    inside = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    names = wanted(inside, allow_pickle=False)
    if CONFIG not in names:
        raise UnknownFormat(f"There is no adapter here: no {CONFIG} with weights.", where=str(folder))
    return pin(folder, names)


def _info(hub: Hub, repo: str, private: bool) -> ModelInfo | None:
    """The repo as it is; None where there is none that the token may see."""
    try:
        info = hub.ask(repo, lambda api: api.model_info(repo))
    except NotFound:
        return None
    if private and not info.private:
        raise NotAllowed(f"{repo} is there and public.", where=hub.url, hint="another name, or without --private")
    return info


def _create(hub: Hub, repo: str, private: bool) -> ModelInfo:
    with hub.translated(repo), quiet():
        hub.api.create_repo(repo, private=private, exist_ok=True)
    info = _info(hub, repo, private)
    if info is None:
        raise NotAllowed(f"{repo} is there, and this token may not see it.", where=hub.url, hint="another name")
    return info


def _outdated(info: ModelInfo, folder: Path) -> tuple[str, ...]:
    """The files of an older result at the repo's head that the folder does not have."""
    there = [sibling.rfilename for sibling in info.siblings or ()]
    return tuple(path for path in there if matches(path, _OUTDATED) and not (folder / path).is_file())


def _removal(outdated: tuple[str, ...]) -> tuple[str, ...]:
    return (f"removes what an older result left: {plain(', '.join(outdated))}",) if outdated else ()


def _changed(
    hub: Hub, repo: str, folder: Path, files: tuple[FilePin, ...], outdated: tuple[str, ...], commit: str | None
) -> list[str]:
    """The files that a commit does not hold with these bytes, and the outdated ones that it holds.

    LFS files are compared by sha256, regular ones by git's blob id.
    """
    paths = [*(file.path for file in files), *outdated]
    infos = hub.ask(repo, lambda api: api.get_paths_info(repo, paths, revision=commit))
    there = {info.path: info.lfs.sha256 if getattr(info, "lfs", None) else info.blob_id for info in infos}
    other = [f.path for f in files if there.get(f.path) not in (f.sha256, git_blob_sha1(folder / f.path))]
    return [*other, *(path for path in outdated if path in there)]


def _commit(
    hub: Hub, commit: Commit, files: tuple[FilePin, ...], progress: Progress | None
) -> tuple[str, str | None, tuple[str, ...]]:
    """The commit's id, its pull request and notes; asked for again where the Hub could not answer.

    Uploads are tried again by the client. It does not try the commit again, whose answer may have been
    lost after it was made: it must not be made twice.
    """
    for attempt in range(_TRIES):
        try:
            return send(hub, commit, progress)
        except Unanswered:
            if commit.pr or attempt == _TRIES - 1:
                raise
        head = str(hub.ask(commit.repo, lambda api: api.model_info(commit.repo)).sha)
        if head != commit.parent and not _changed(hub, commit.repo, commit.folder, files, commit.removed, head):
            return head, None, ("the connection broke after the commit was made",)
        time.sleep(0.5 * 2**attempt)
    raise AssertionError("the last attempt returns or raises")
