"""From a reference to exactly what would be downloaded: pinned, chosen and checked before any weight moves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from loramerge.errors import BadConfig, FormatError, IntegrityError, NotFound, UnknownFormat, UnsafePickle, UsageError
from loramerge.formats import _json
from loramerge.formats._tensors import Header, header_length, parse_header
from loramerge.formats.peft import CONFIG, PICKLE, WEIGHTS, outline
from loramerge.hub.paths import collisions, escapes, unsafe
from loramerge.hub.reference import HubRef, parse
from loramerge.hub.text import plain
from loramerge.registry import near

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

    from loramerge.core.adapter import Adapter
    from loramerge.hub.session import Hub

TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja"),
)
COMPANIONS = (
    "README.md",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "loramerge.json",
    "*.sig",
    "heads/*.safetensors",
    *TOKENIZER,
)
"""What an adapter may bring along besides its weights and config; nothing else is pulled or pushed."""

_MAX_FILES = 200
_MAX_CONFIG = 1 << 20
_FIRST_READ = 100_000  # nearly all headers are shorter, so one request is enough


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file the Hub promises: path in the adapter's folder, size, and sha256 (LFS) or git blob id (regular)."""

    path: str
    size: int
    sha256: str | None = None
    blob: str | None = None


@dataclass(frozen=True, slots=True)
class Pinned:
    """Some files of one commit: all that a download needs, and all that it is checked against."""

    repo: str
    commit: str
    subfolder: str
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    def in_repo(self, path: str) -> str:
        """A file's path from the root of the repo."""
        return f"{self.subfolder}/{path}" if self.subfolder else path


@dataclass(frozen=True)
class Remote:
    """An adapter on the Hub as its commit, listing and header describe it; no tensor was read.

    `adapter` is None for a pickle, which has no header.
    """

    pinned: Pinned
    revision: str | None
    adapter: Adapter | None
    base: str | None
    licence: str | None
    gated: bool
    private: bool
    notes: tuple[str, ...] = ()

    @property
    def repo(self) -> str:
        """The repo's present name."""
        return self.pinned.repo

    @property
    def commit(self) -> str:
        """The full id of the commit that `revision` means now."""
        return self.pinned.commit


def plan_pull(hub: Hub, ref: HubRef, *, allow_pickle: bool = False, max_size: int = 4 << 30) -> Remote:
    """What a pull of `ref` would bring. The commit is pinned first, so all that follows is about one state.

    Raises AccessError (not there, gated, not allowed), NetworkError, FormatError (no adapter, hostile
    names, too large, a bad config or header) or UnsafePickle.
    """
    info: ModelInfo = hub.ask(
        ref.repo, lambda api: api.model_info(ref.repo, revision=ref.revision, files_metadata=True)
    )
    listing = _listing(ref.repo, info)
    repo = _present_name(ref.repo, info)
    chosen = _chosen(listing, HubRef(repo, ref.revision, ref.subfolder), allow_pickle)
    pinned = Pinned(repo, str(info.sha), ref.subfolder, tuple(chosen))
    _limits(pinned, max_size)
    adapter = _outline(hub, pinned, ref.name)
    return Remote(
        pinned=pinned,
        revision=ref.revision,
        adapter=adapter,
        base=adapter.base if adapter else None,
        licence=_licence(info),
        gated=bool(info.gated),
        private=bool(info.private),
        notes=(f"{ref.repo} is now called {repo}",) if repo != ref.repo else (),
    )


def wanted(paths: Iterable[str], *, allow_pickle: bool) -> list[str]:
    """The files of an adapter's folder that belong to it, weights first, then its config."""
    found = set(paths)
    weights = next((name for name in (WEIGHTS, PICKLE) if name in found), None)
    if weights == PICKLE and not allow_pickle:
        raise UnsafePickle(
            f"The weights are a pickle ({PICKLE}), which can run code when it is opened.",
            hint="--allow-pickle, if you trust its author",
        )
    companions = [path for path in sorted(found) if matches(path, COMPANIONS)]
    return [*((weights, CONFIG) if weights and CONFIG in found else ()), *companions]


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path is of one of these patterns, whose stars stay within a folder."""
    return any(fnmatchcase(path, pattern) and path.count("/") == pattern.count("/") for pattern in patterns)


def _present_name(repo: str, info: ModelInfo) -> str:
    """The repo's id, which is another one than was asked for where it was renamed."""
    try:
        return parse(str(info.id)).repo
    except UsageError as error:
        raise IntegrityError(f"The Hub gives {repo} an impossible name: {error.message}", where=plain(repo)) from None


def _listing(repo: str, info: ModelInfo) -> dict[str, Any]:
    """The repo's files by path, all of them at the pinned commit."""
    if len(info.sha or "") != 40 or not set(info.sha or "") <= set("0123456789abcdef"):
        raise IntegrityError(f"The Hub names no commit of {repo}.", where=plain(str(info.sha)))
    listing = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    for path in listing:
        if escapes(path):
            raise FormatError(f"{repo} lists a file whose name could leave its folder.", where=plain(path))
    return listing


def _chosen(listing: Mapping[str, Any], ref: HubRef, allow_pickle: bool) -> list[RemoteFile]:
    prefix = f"{ref.subfolder}/" if ref.subfolder else ""
    inside = [path.removeprefix(prefix) for path in listing if path.startswith(prefix)]
    if not inside and ref.subfolder:
        folders = {path.rpartition("/")[0] for path in listing if "/" in path}
        hint = ", ".join(near(ref.subfolder, folders) or sorted(folders)[:5]) or f"{ref.repo}, which has no folders"
        raise NotFound(f"{ref.repo} has no folder {ref.subfolder!r}.", hint=hint)
    names = wanted(inside, allow_pickle=allow_pickle)
    if CONFIG not in names:
        raise _no_adapter(listing, ref)
    for name in (*names, *collisions(names)):
        if why := unsafe(name) or ("it differs from another in case only" if name in collisions(names) else ""):
            raise FormatError(f"A file of {ref.repo} cannot be stored: {why}.", where=plain(name))
    return [_promised(ref.repo, name, listing[prefix + name]) for name in names]


def _no_adapter(listing: Mapping[str, Any], ref: HubRef) -> FormatError:
    elsewhere = [path.rpartition("/")[0] for path in sorted(listing) if path.endswith(f"/{CONFIG}")]
    return UnknownFormat(
        f"{ref} is not a PEFT adapter: it has no {CONFIG} with {WEIGHTS}.",
        where=plain(", ".join(sorted(listing)[:5])),
        hint=" or ".join(str(HubRef(ref.repo, ref.revision, folder)) for folder in elsewhere[:3]),
    )


def _promised(repo: str, name: str, sibling: Any) -> RemoteFile:
    file = RemoteFile(
        name, sibling.size, sibling.lfs.sha256 if sibling.lfs else None, None if sibling.lfs else sibling.blob_id
    )
    if not isinstance(file.size, int) or file.size < 0 or not (file.sha256 or file.blob):
        raise IntegrityError(f"The Hub promises neither size nor hash of a file of {repo}.", where=plain(name))
    return file


def _limits(pinned: Pinned, max_size: int) -> None:
    if len(pinned.files) > _MAX_FILES or pinned.size > max_size:
        raise FormatError(
            f"{pinned.repo} would bring {len(pinned.files)} files of {pinned.size:,} bytes,"
            f" more than the {_MAX_FILES} files or {max_size:,} bytes that are taken for an adapter.",
            hint="hf download, then pull the local folder",
        )


def _outline(hub: Hub, pinned: Pinned, name: str) -> Adapter | None:
    files = {file.path: file for file in pinned.files}
    config = _config(hub, pinned, files[CONFIG])
    return outline(config, _header(hub, pinned, files[WEIGHTS]), name) if WEIGHTS in files else None


def _config(hub: Hub, pinned: Pinned, file: RemoteFile) -> dict[str, Any]:
    """The adapter's config, checked against the hash the commit promises."""
    where = f"{pinned.repo}/{pinned.in_repo(file.path)}"
    if file.size > _MAX_CONFIG:
        raise BadConfig(f"A config of {file.size:,} bytes is not a config.", where=where)
    found = hub.read(pinned.repo, pinned.commit, pinned.in_repo(file.path), 0, file.size)
    blob = hashlib.sha1(f"blob {len(found)}\0".encode() + found, usedforsecurity=False).hexdigest()
    if file.sha256 != hashlib.sha256(found).hexdigest() and file.blob != blob:
        raise IntegrityError("The config is not what the commit promises.", where=where, hint="pull again")
    return _json.parse(found, where=where, error=BadConfig)


def _header(hub: Hub, pinned: Pinned, file: RemoteFile) -> Header:
    """The weights' header, by one range request or two."""
    path = pinned.in_repo(file.path)
    where = f"{pinned.repo}/{path}"
    found = hub.read(pinned.repo, pinned.commit, path, 0, min(file.size, _FIRST_READ))
    missing = 8 + header_length(found[:8], file.size, where) - len(found)
    if missing > 0:
        found += hub.read(pinned.repo, pinned.commit, path, len(found), missing)
    return parse_header(found, file.size, where)


def _licence(info: ModelInfo) -> str | None:
    """What the card declares; several are joined."""
    declared = getattr(info.card_data, "license", None)
    found = [declared] if isinstance(declared, str) else declared
    return plain(", ".join(map(str, found))) if found else None
