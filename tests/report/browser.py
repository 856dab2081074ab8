"""A headless Chromium, spoken to over its own pipe: what is visible, what went wrong, what a key does."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars")


def installed() -> str | None:
    """The path of a Chromium; None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One open page. `errors` and `requests` are what has come up since it was opened."""

    def __init__(self, send: Any, receive: Any) -> None:
        self._send, self._receive, self._numbers = send, receive, count(1)
        self._session: str | None = None
        self.errors: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        self._send(message | ({"sessionId": self._session} if self._session else {}))
        while (found := self._receive()).get("id") != number:
            self._note(found)
        assert "error" not in found, found
        return found["result"]

    def open(self, path: Path, *, width: int = 1280, height: int = 720, dark: bool = False, media: str = "") -> None:
        """Load a file in a window of that size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.errors.clear()
        self.requests.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self.ask("document.readyState") != "complete":
            pass
        self.ask("document.body.offsetHeight")  # laid out

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key, and the frames that follow."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if len(key) == 1 else "")
        self.ask("new Promise(done => setTimeout(() => done(1), 60))")

    def shoot(self, path: Path, *, whole: bool = False) -> None:
        """A picture of the window, or of the whole page."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))

    def print(self, path: Path) -> None:
        """The page as PDF, with the sizes its style asks for."""
        found = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)
        path.write_bytes(base64.b64decode(found["data"]))

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])


@contextmanager
def page() -> Iterator[Page]:
    """A page of a browser of its own, which ends with the block."""
    (theirs, ours), (mine, their_own) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(prefix="loramerge-chromium-", ignore_cleanup_errors=True) as profile:
        line = [installed(), *_FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        # The browser wants its pipes as 3 and 4, whatever they are called here.
        shell = ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{their_own}', "bash", *line]
        process = subprocess.Popen(
            shell, pass_fds=(theirs, their_own), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(their_own)
        with open(ours, "wb", buffering=0) as out, open(mine, "rb") as incoming:  # noqa: PTH123
            try:
                yield Page(_sender(out), _receiver(incoming))
            finally:
                process.terminate()
                process.wait(20)


def _sender(out: Any) -> Any:
    return lambda message: out.write(json.dumps(message).encode() + b"\0")


def _receiver(incoming: Any) -> Any:
    buffer = bytearray()

    def receive() -> dict[str, Any]:
        while b"\0" not in buffer:
            piece = incoming.read1(1 << 20)
            assert piece, "the browser has ended"
            buffer.extend(piece)
        message, _, rest = bytes(buffer).partition(b"\0")
        buffer[:] = rest
        return json.loads(message)

    return receive
