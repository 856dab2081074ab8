"""How adapters are named on the command line and in recipes: a path, a name of the workspace, or a Hub repo."""

from __future__ import annotations

from pathlib import Path

from loramerge.errors import NotFound, UnknownName
from loramerge.hub.reference import HubRef, parse
from loramerge.registry import near
from loramerge.workspace.lock import Entry
from loramerge.workspace.workspace import Workspace

_PATHS = ("./", "../", "/", "~")
_HUB = "USER/ADAPTER, without ./, names an adapter on the Hub"


def is_path(text: str) -> bool:
    """Whether a reference reads as a path."""
    return text.startswith(_PATHS) or text in (".", "..")


def resolve(text: str, workspace: Workspace) -> Path | Entry | HubRef:
    """What a reference names.

    What begins with `./ ../ / ~` is a path (absolute in the result, and there); then a name of the
    workspace; then a Hub repo. Raises NotFound, UnknownName (with near names) or UsageError.
    """
    if is_path(text):
        return _path(text, workspace)
    if not text.startswith("hf://") and "/" not in text:
        return _name(text, workspace)
    return parse(text)


def _path(text: str, workspace: Workspace) -> Path:
    try:
        path = (workspace.root / Path(text).expanduser()).resolve()
    except RuntimeError:  # Python's word for a user who has no home
        raise NotFound("There is no such user.", where=text, hint=_HUB) from None
    if not path.exists():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = ", ".join(str(path.with_name(name)) for name in near(path.name, beside))
        raise NotFound("There is no such folder or file.", where=str(path), hint=hint or _HUB)
    return path


def _name(text: str, workspace: Workspace) -> Entry:
    try:
        return workspace.get(text)
    except UnknownName as error:
        if (workspace.root / text).exists():
            raise UnknownName(error.message, where=error.where, hint=f"./{text}, for the path") from None
        raise
