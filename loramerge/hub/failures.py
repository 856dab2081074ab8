"""From the exceptions of huggingface_hub and its HTTP library to our errors: one table, most specific first.

Nearly all of them are OSErrors, and GatedRepoError is a RepositoryNotFoundError, so the order matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from loramerge.errors import (
    BadConfig,
    Gated,
    IntegrityError,
    LoramergeError,
    NetworkError,
    NotAllowed,
    NotFound,
    Offline,
    UsageError,
)
from loramerge.hub.text import plain

_LOGIN = "hf auth login (or HF_TOKEN) with a token that may"
_MALFORMED = (ValueError, LookupError, TypeError, AttributeError)  # what an answer without its fields leads to
_NOT_A_HUB = "check --endpoint and HF_ENDPOINT"


def http_library() -> Any:
    """What huggingface_hub talks HTTP with: httpx up to its version 1, httpx2 from 2 on."""
    from huggingface_hub.errors import HTTPError

    return import_module(HTTPError.__module__.partition(".")[0])


@contextmanager
def translated(subject: str, url: str) -> Iterator[None]:
    """Errors of the client that leave the block are ours, about `subject` (a repo, say) at the Hub `url`."""
    try:
        yield
    except LoramergeError:
        raise
    except (*_MALFORMED, OSError, RuntimeError, http_library().HTTPError) as error:
        raise translate(error, subject, url) from error


def translate(error: BaseException, subject: str, url: str) -> LoramergeError:
    """The one of our errors that says what `error` means for a user."""
    for kinds, meaning in _table():
        if isinstance(error, kinds):
            return meaning(error, subject, url)
    return _no_protocol(error, subject, url)


def _table() -> list[tuple[Any, Callable[[Any, str, str], LoramergeError]]]:
    from huggingface_hub import errors as hf

    return [
        (hf.GatedRepoError, _gated),
        (hf.DisabledRepoError, _disabled),
        (hf.RepositoryNotFoundError, _no_repo),
        (hf.RevisionNotFoundError, _no_revision),
        (hf.LocalEntryNotFoundError, _not_cached),
        (hf.EntryNotFoundError, _no_file),
        (hf.OfflineModeIsEnabled, _offline),
        (hf.HfHubHTTPError, _status),
        (http_library().HTTPError, _transport),
        (hf.HFValidationError, _invalid),
        (hf.FileMetadataError, _metadata),
        (hf.LocalTokenNotFoundError, _no_token),
        ((ConnectionError, TimeoutError), _transport),
        (RuntimeError, _wrapped),
        (OSError, _local),
        (ValueError, _value),
    ]


def _no_protocol(error: BaseException, subject: str, url: str) -> LoramergeError:
    """What is left comes from an answer without the expected fields, headers or JSON."""
    message = f"The answer about {subject} is not the Hub's protocol: {type(error).__name__} {plain(str(error), 150)}."
    return NetworkError(message, where=url, hint=_NOT_A_HUB)


def _gated(error: Any, subject: str, url: str) -> LoramergeError:
    hint = f"ask for access at {url}/{subject}, then {_LOGIN} read it"
    return Gated(f"{subject} is gated{_said(error)}.", where=url, hint=hint)


def _disabled(error: Any, subject: str, url: str) -> LoramergeError:
    return NotAllowed(f"{subject} is disabled on the Hub.", where=url)


def _no_repo(error: Any, subject: str, url: str) -> LoramergeError:
    return NotFound(
        f"There is no {subject} on the Hub, or it is private and this token may not see it.",
        where=url,
        hint=f"check the spelling; {_LOGIN} read it",
    )


def _no_revision(error: Any, subject: str, url: str) -> LoramergeError:
    return NotFound(f"{subject} does not have the revision asked for.", where=url, hint="a branch, tag or full commit")


def _no_file(error: Any, subject: str, url: str) -> LoramergeError:
    return NotFound(f"A file of {subject} is gone: {plain(str(error), 200)}.", where=url)


def _not_cached(error: Any, subject: str, url: str) -> LoramergeError:
    if error.__cause__ is not None:
        return translate(error.__cause__, subject, url)
    return Offline(f"{subject} is not in the cache.", hint="pull it once without --offline")


def _offline(error: Any, subject: str, url: str) -> LoramergeError:
    return Offline(f"{subject} needs the network, which is switched off.", hint="unset HF_HUB_OFFLINE")


def _status(error: Any, subject: str, url: str) -> LoramergeError:
    code = error.response.status_code
    if code == 401:
        message = f"The Hub does not accept the token for {subject}{_said(error)}."
        return NotAllowed(message, where=url, hint=f"{_LOGIN} do this")
    if code == 403:
        message = f"The token may not do this to {subject}{_said(error)}."
        return NotAllowed(message, where=url, hint=f"{_LOGIN} do this")
    if code == 404:
        return NotFound(f"The Hub has nothing at {subject}{_said(error)}.", where=url, hint=_NOT_A_HUB)
    if code == 429 or code >= 500:
        message = f"The Hub cannot answer about {subject} now ({code}{_said(error)})."
        return NetworkError(message, where=url, hint="try again later")
    return LoramergeError(f"The Hub refuses what was asked of {subject} ({code}{_said(error)}).", where=url)


def _transport(error: Any, subject: str, url: str) -> LoramergeError:
    why = plain(str(error), 150) or type(error).__name__
    return NetworkError(
        f"The connection failed while asking for {subject}: {why}.",
        where=url,
        hint="check the network and --endpoint; what is in the cache works with --offline",
    )


def _invalid(error: Any, subject: str, url: str) -> LoramergeError:
    return UsageError(f"{plain(str(error))}", where=subject)


def _metadata(error: Any, subject: str, url: str) -> LoramergeError:
    return NetworkError(f"Files of {subject} come without what the protocol asks for.", where=url, hint=_NOT_A_HUB)


def _no_token(error: Any, subject: str, url: str) -> LoramergeError:
    return NotAllowed(f"{subject} needs a token, and there is none.", where=url, hint=f"{_LOGIN} do this")


def _value(error: Any, subject: str, url: str) -> LoramergeError:
    if "README.md" in str(error):
        return BadConfig("The Hub refuses the model card.", where=plain(str(error)), hint="correct README.md's head")
    return _no_protocol(error, subject, url)


def _wrapped(error: Any, subject: str, url: str) -> LoramergeError:
    if error.__cause__ is not None:
        return translate(error.__cause__, subject, url)
    return NetworkError(f"{plain(str(error))}", where=subject)


def _local(error: OSError, subject: str, url: str) -> LoramergeError:
    if error.errno is None:  # huggingface_hub's own: the length of a download is not what was announced
        why = plain(str(error).partition("(")[0])
        return IntegrityError(f"A download from {subject} is not whole: {why}.", where=url, hint="pull again")
    return LoramergeError(
        f"{subject} cannot be stored: {error.strerror}.",
        where=str(error.filename or "the cache"),
        hint="HF_HOME names the folder of the cache",
    )


def _said(error: Any) -> str:
    """What the server itself says, if anything, without what it must not do to a terminal."""
    return f": {plain(error.server_message).rstrip('.')}" if error.server_message else ""
