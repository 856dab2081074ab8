"""Running the Hub: in a thread beside the caller, or until a signal ends it.

It listens on two ports: the API on the one asked for, and file contents on the one after it (any
free ones where 0 is asked for). Two origins make sure that no token ever reaches storage.
"""

from __future__ import annotations

import secrets
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loramerge.errors import BadOption, LoramergeError, MissingExtra

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from loramerge.hub.server.database import Database

PART_SIZE = 128 << 20
_PATIENCE = 3  # seconds that open requests are given to finish


@dataclass(frozen=True)
class Running:
    """A server that takes requests. `token` is "" where the user's token is known to the user alone."""

    endpoint: str
    token: str
    user: str


@contextmanager
def running(
    root: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    user: str = "me",
    token: str | None = None,
    wrap: Callable[[ASGIApp], ASGIApp] | None = None,
    part_size: int = PART_SIZE,
) -> Iterator[Running]:
    """A Hub over the files below `root`, for as long as the block runs.

    A user without a token gets one; it is in `Running` this once, since only its hash is kept.
    Uploads above `part_size` bytes are cut in parts of that size. `wrap` is put around the whole
    application, both origins. MissingExtra without Starlette and uvicorn, BadOption for an address
    that cannot be had.
    """
    _require_extra()
    with closing(_open(root)) as db, _bind(host, port) as api, _bind(host, port and port + 1) as cdn:
        token = _token(db, user, token)
        app = _application(db, root, part_size, cdn.getsockname()[1])
        with _serving(wrap(app) if wrap else app, [api, cdn]):
            yield Running(_url(host, api.getsockname()[1]), token, user)


def serve(root: Path, *, host: str, port: int, user: str, token: str | None, ready: Callable[[Running], None]) -> None:
    """The same until SIGINT or SIGTERM; `ready` is called once requests are taken. For the main thread."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        with running(root, host=host, port=port, user=user, token=token) as server:
            ready(server)
            stop.wait()
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def add_user(root: Path, name: str, token: str | None = None) -> str:
    """A token for a user of the Hub at `root`, who is added if not there; works while the Hub runs."""
    from loramerge.hub.server import accounts

    with closing(_open(root)) as db:
        return accounts.add_user(db, name, token)


def _require_extra() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"The Hub needs {error.name}.", hint="pip install 'loramerge[hub]'") from None


def _open(root: Path) -> Database:
    from loramerge.hub.server.database import Database

    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Database(root / "hub.sqlite")
    except (OSError, sqlite3.Error) as error:
        raise BadOption(f"The folder cannot hold a Hub: {error}.", where=str(root)) from None


def _application(db: Database, root: Path, part_size: int, cdn_port: int) -> ASGIApp:
    from loramerge.hub.server import history
    from loramerge.hub.server.app import application
    from loramerge.hub.server.blobs import Blobs
    from loramerge.hub.server.call import Hub
    from loramerge.hub.server.links import Signer

    blobs = Blobs(root)
    blobs.sweep(history.known_blobs(db))
    secret = db.setting("secret", secrets.token_hex(32))
    return application(Hub(db, blobs, Signer(secret.encode()), part_size, cdn_port))


def _token(db: Database, user: str, token: str | None) -> str:
    from loramerge.hub.server import accounts

    return "" if token is None and accounts.has_token(db, user) else accounts.add_user(db, user, token)


def _bind(host: str, port: int) -> socket.socket:
    hint = "another --port; the one after it must be free too, and 0 takes free ones"
    if not 0 <= port < 1 << 16:
        raise BadOption(f"The Hub cannot listen there: {port} is not a port.", hint=hint)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise BadOption(f"The Hub cannot listen there: {error}.", where=f"{host}, port {port}", hint=hint) from None
    # Connections inherit it; without it, head and body of an answer lie 40 ms apart.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


@contextmanager
def _serving(app: ASGIApp, sockets: list[socket.socket]) -> Iterator[None]:
    """uvicorn in a thread of its own, from its first request to its last."""
    import uvicorn

    # Quiet, but for a fault of ours; nothing is behind a proxy, so nobody may say so.
    config: Any = uvicorn.Config(
        app,
        log_config=None,
        log_level="error",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=_PATIENCE,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=(sockets,), name="hub", daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.002)
    if not server.started:
        raise LoramergeError("The Hub did not start.")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


def _url(host: str, port: int) -> str:
    """The address to use on this machine."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{here}]:{port}" if ":" in here else f"http://{here}:{port}"
