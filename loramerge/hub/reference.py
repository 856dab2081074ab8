"""How an adapter on the Hub is named: `user/name[@revision][:subfolder]`, or `hf://user/name[@revision][/subfolder]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from loramerge.errors import UsageError
from loramerge.hub.paths import unsafe
from loramerge.hub.text import plain

_REFERENCE = re.compile(r"(?P<repo>[^@:]+)(?:@(?P<revision>[^:]+))?(?::(?P<subfolder>.+))?", re.DOTALL)
# What git forbids in the name of a ref, and what would change the meaning of a URL.
_REVISION = re.compile(r"(?!.*(\.\.|//|@\{))[^\s\\~^:?*\[\]#%&\x00-\x1f\x7f]{1,255}")


@dataclass(frozen=True, slots=True)
class HubRef:
    """A repo, the revision asked for (None: its default branch), and the adapter's folder in it ("": the root)."""

    repo: str
    revision: str | None = None
    subfolder: str = ""

    @property
    def name(self) -> str:
        """The short name an adapter gets when nobody names it: the last part of its folder or repo."""
        return (self.subfolder or self.repo).rsplit("/", 1)[-1]

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{revision}{':' if self.subfolder else ''}{self.subfolder}"


def parse(text: str) -> HubRef:
    """A reference from text. Raises UsageError where it names no repo, revision or folder that could be."""
    if not text.isprintable():
        raise _refused(text, "it has characters that cannot be seen")
    if text.startswith("hf://"):
        return _uri(text)
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise _refused(text, "it has an empty part")
    return _checked(text, HubRef(match["repo"], match["revision"], (match["subfolder"] or "").rstrip("/")))


def _uri(text: str) -> HubRef:
    from huggingface_hub.errors import HfUriError
    from huggingface_hub.utils import parse_hf_uri

    try:
        uri = parse_hf_uri(text)
    except HfUriError as error:
        raise _refused(text, str(error)) from None
    if uri.type != "model":
        raise _refused(text, f"it is a {uri.type}")
    return _checked(text, HubRef(uri.id, uri.revision, uri.path_in_repo.rstrip("/")))


def _checked(text: str, found: HubRef) -> HubRef:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(found.repo)
    except HFValidationError as error:
        raise _refused(text, str(error)) from None
    if "/" not in found.repo:
        raise _refused(text, "its user is missing")
    if found.revision is not None and not _REVISION.fullmatch(found.revision):
        raise _refused(text, "no branch, tag or commit can have that revision's name")
    if found.subfolder and (why := unsafe(found.subfolder)):
        raise _refused(text, f"of its folder: {why}")
    return found


def _refused(text: str, why: str) -> UsageError:
    return UsageError(
        f"{plain(text, 120)!r} is not a repo of the Hub: {plain(why).rstrip('.')}.",
        hint="user/name, user/name@revision or user/name:folder; a local adapter begins with ./",
    )
