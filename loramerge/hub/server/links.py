"""Links that carry their own permission, so that storage never needs to see a token.

    <origin><path>?…&expires=<time>&signature=HMAC-SHA256(secret, method path query)

The secret is the server's own and outlives a restart; a link lives a day.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from loramerge.hub.server.refusal import Refusal

_A_DAY = 86_400


@dataclass(frozen=True)
class Signer:
    """Makes links and checks them."""

    secret: bytes

    def sign(self, method: str, path: str, **values: int) -> str:
        """Path and query that allow one method on one path with these values."""
        query = urlencode({**values, "expires": int(time.time()) + _A_DAY})
        return f"{path}?{query}&signature={self._signature(method, path, query)}"

    def check(self, method: str, path: str, query: str) -> dict[str, int]:
        """The values of a link; Refusal 403 for one that was not made here, was altered, or has expired."""
        signed, _, signature = query.rpartition("&signature=")
        allowed = "GET" if method == "HEAD" else method
        if not hmac.compare_digest(self._signature(allowed, path, signed).encode(), signature.encode()):
            raise Refusal(403, "This link was not made for this.")
        values = {name: int(value) for name, value in parse_qsl(signed)}
        if values.pop("expires") < time.time():
            raise Refusal(403, "This link has expired.")
        return values

    def _signature(self, method: str, path: str, query: str) -> str:
        return hmac.new(self.secret, f"{method} {path} {query}".encode(), hashlib.sha256).hexdigest()
