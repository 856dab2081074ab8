"""One Hub: where it is, who asks, where its files are kept; every request goes through here."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from loramerge import __version__
from loramerge.errors import BadOption, NotAllowed, Offline
from loramerge.hub.failures import http_library, translated

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

_TRIES = 4
_PATIENCE = 60.0
_BUSY = (429, 502, 503, 504)


@dataclass(frozen=True)
class Hub:
    """A Hub: `endpoint` and `token` default to those of `hf` (HF_ENDPOINT; HF_TOKEN or `hf auth login`).

    An empty token is none at all; one is sent over https or to this machine only, unless `insecure`.
    `cache` defaults to the cache that all of huggingface_hub's users share. With `offline` nothing is
    ever asked.
    """

    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    offline: bool = False
    cache: Path | None = None
    insecure: bool = False

    @cached_property
    def url(self) -> str:
        """The Hub's address, without a slash at its end. Raises BadOption where it is none."""
        from huggingface_hub import constants

        url = (self.endpoint or constants.ENDPOINT).rstrip("/")
        if not _is_address(url):
            shown = url.rpartition("@")[2].partition("?")[0]  # without a password
            raise BadOption(f"{shown!r} is not the address of a Hub.", hint="https://huggingface.co")
        return url

    @cached_property
    def cache_dir(self) -> Path:
        """Where downloads are kept."""
        from huggingface_hub import constants

        return Path(self.cache or constants.HF_HUB_CACHE).expanduser().resolve()

    @cached_property
    def credentials(self) -> str | bool | None:
        """What the client is given: a token, None for the one `hf` stored, False for none at all."""
        if self.insecure or _is_private(self.url):
            return False if self.token == "" else self.token
        if self.token:
            raise NotAllowed(
                "A token is not sent over plain http to another machine, where anybody on the way could read it.",
                where=self.url,
                hint="https, or an ssh tunnel to a port of this machine",
            )
        return False

    @cached_property
    def api(self) -> HfApi:
        """The client. Raises Offline where nothing may be asked."""
        from huggingface_hub import HfApi

        if self.offline:
            raise Offline(
                "This needs the Hub, and --offline forbids to ask it.",
                where=self.url,
                hint="without --offline; what was pulled before works with it",
            )
        return HfApi(self.url, self.credentials, library_name="loramerge", library_version=__version__)

    def translated(self, subject: str) -> AbstractContextManager[None]:
        """Errors of the client that leave the block are ours, about `subject`."""
        return translated(subject, self.url)

    def ask(self, subject: str, question: Callable[[HfApi], T]) -> T:
        """The answer to one question that changes nothing, asked again while the Hub is busy or hangs up."""
        with self.translated(subject), quiet():
            for attempt in range(_TRIES):
                try:
                    return question(self.api)
                except (OSError, http_library().HTTPError) as error:
                    wait = _wait(error, attempt)
                    if wait is None or attempt == _TRIES - 1:
                        raise
                time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def read(self, repo: str, commit: str, path: str, start: int, length: int) -> bytes:
        """`length` bytes of a file of a commit (fewer at its end), and no more even of a server that sends all."""
        if length == 0:  # no range says that
            return b""
        return self.ask(repo, lambda api: _range(self, api, repo, commit, path, start, length))


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        plain = not (parts.username or parts.password or parts.query or parts.port == 0)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and plain


def _is_private(url: str) -> bool:
    parts = urlsplit(url)
    try:
        return parts.scheme == "https" or ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname == "localhost"


def _wait(error: Exception, attempt: int) -> float | None:
    """Seconds until the question may be asked again; None where asking again is pointless."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, (http_library().ReadError, http_library().RemoteProtocolError)):
        return 0.0  # hung up in the middle of an answer
    if not isinstance(error, HfHubHTTPError):
        return None
    if error.response.status_code not in _BUSY:
        return None
    asked = error.response.headers.get("retry-after", "")
    wait = float(asked) if asked.isdigit() else 0.5 * 2**attempt
    return wait if wait <= _PATIENCE else None


def _range(hub: Hub, api: HfApi, repo: str, commit: str, path: str, start: int, length: int) -> bytes:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    url = hf_hub_url(repo, path, revision=commit, endpoint=hub.url)
    headers: dict[str, Any] = build_hf_headers(token=hub.credentials)
    headers |= {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, timeout=30) as response:
        if response.status_code >= 400:
            response.read()
        hf_raise_for_status(response)
        skip = start if response.status_code == 200 else 0  # a server that does not know ranges sends all
        found = bytearray()
        for chunk in response.iter_bytes(1 << 16):
            found += chunk
            if len(found) >= skip + length:
                break
    return bytes(found[skip : skip + length])


@contextmanager
def quiet() -> Iterator[None]:
    """huggingface_hub neither draws bars nor warns meanwhile: progress and errors are ours to tell."""
    # Its logging sets its own level when it is first imported: that must have happened.
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    level, bars = logging.get_verbosity(), not are_progress_bars_disabled()
    logging.set_verbosity_error()
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            enable_progress_bars()
