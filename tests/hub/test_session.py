from __future__ import annotations

import errno
import http.server
import socket
import threading
from dataclasses import replace

import pytest

from loramerge.errors import (
    BadOption,
    Gated,
    IntegrityError,
    LoramergeError,
    NetworkError,
    NotAllowed,
    NotFound,
    Offline,
    UsageError,
)
from loramerge.hub.failures import translate
from loramerge.hub.pull import plan_pull
from loramerge.hub.reference import HubRef
from loramerge.hub.session import Hub
from loramerge.hub.text import markdown, plain

REF = HubRef("me/math")
INFO = "GET /api/models/me/math$"


def test_a_busy_hub_is_asked_again_when_it_says(server, client, adapter):
    server.publish(adapter)
    server.asked()
    server.faults.refuse(INFO, 503, times=1, retry_after="1")
    server.faults.refuse(INFO, 429, times=1, retry_after="0")

    plan_pull(client, REF)

    assert server.faults.count(INFO) == 3


def test_a_hub_that_stays_busy_is_given_up(server, client):
    server.faults.refuse(INFO, 503, times=99, retry_after="0")

    with pytest.raises(NetworkError, match="503") as caught:
        plan_pull(client, REF)

    assert caught.value.exit_code == 6
    assert server.faults.count(INFO) == 4


def test_nobody_waits_for_an_hour(server, client):
    server.faults.refuse(INFO, 429, times=99, retry_after="3600")

    with pytest.raises(NetworkError, match="429"):
        plan_pull(client, REF)

    assert server.faults.count(INFO) == 1


def test_a_hub_that_hangs_up_in_the_middle_is_asked_again(server, client, adapter):
    server.publish(adapter)
    server.faults.reset(INFO)

    assert plan_pull(client, REF).repo == "me/math"


def test_a_port_where_nobody_listens_is_a_network_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        hub = Hub(f"http://127.0.0.1:{taken.getsockname()[1]}")

        with pytest.raises(NetworkError, match="connection failed") as caught:
            plan_pull(hub, REF)

    assert caught.value.where == hub.url


@pytest.mark.parametrize("body", [b"<html>Welcome</html>", b"{}", b"[1]", b'{"id": 1}'])
def test_a_server_that_is_no_hub_is_said_to_be_none(body):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with pytest.raises(LoramergeError) as caught:
            plan_pull(Hub(f"http://127.0.0.1:{server.server_port}"), REF)
        server.shutdown()
        thread.join()

    assert caught.value.exit_code in (6, 7)


def test_offline_nothing_is_asked(server, client):
    server.asked()

    with pytest.raises(Offline):
        replace(client, offline=True).ask("me/math", lambda api: api.model_info("me/math"))

    assert server.asked() == []


# Where a token goes


@pytest.mark.parametrize("url", ["http://10.1.2.3:8000", "http://hub.example.org", "http://127.0.0.1.example.org"])
def test_a_token_is_not_sent_in_the_clear_to_another_machine(url):
    with pytest.raises(NotAllowed, match="plain http"):
        _ = Hub(url, "hf_secret").api


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://hub.example.org"]
)
def test_a_token_is_sent_to_this_machine_and_over_https(url):
    assert Hub(url, "hf_secret").api.token == "hf_secret"


def test_the_token_of_the_login_is_not_sent_in_the_clear_either():
    assert Hub("http://hub.example.org").api.token is False


def test_who_says_so_sends_it_anyway():
    assert Hub("http://hub.example.org", "hf_secret", insecure=True).api.token == "hf_secret"


def test_an_empty_token_is_none():
    assert Hub("https://hub.example.org", "").api.token is False


def test_a_token_is_not_shown():
    assert "hf_secret" not in repr(Hub("https://hub.example.org", "hf_secret"))


@pytest.mark.parametrize(
    "url", ["hub", "ftp://hub.org", "file:///etc", "https://", "https://me:pw@hub.org", "https://h/?x=1"]
)
def test_what_is_no_address_of_a_hub_is_refused_without_its_password(url):
    with pytest.raises(BadOption) as caught:
        _ = Hub(url).url

    assert "pw" not in caught.value.message


# The table of errors


def response(status: int, **headers: str):
    from loramerge.hub.failures import http_library

    library = http_library()
    request = library.Request("GET", "https://hub.example.org/me/math?Signature=secret")
    return library.Response(status, headers=headers, request=request)


def http_error(status: int, kind: str = "HfHubHTTPError", said: str | None = None):
    from huggingface_hub import errors

    return getattr(errors, kind)("message", response=response(status), server_message=said)


CASES = [
    ("GatedRepoError", 403, Gated),
    ("RepositoryNotFoundError", 401, NotFound),
    ("RevisionNotFoundError", 404, NotFound),
    ("RemoteEntryNotFoundError", 404, NotFound),
    ("DisabledRepoError", 403, NotAllowed),
    ("HfHubHTTPError", 401, NotAllowed),
    ("HfHubHTTPError", 403, NotAllowed),
    ("HfHubHTTPError", 404, NotFound),
    ("HfHubHTTPError", 429, NetworkError),
    ("HfHubHTTPError", 500, NetworkError),
    ("BadRequestError", 400, LoramergeError),
]


@pytest.mark.parametrize(("kind", "status", "ours"), CASES)
def test_each_answer_of_the_hub_has_its_error(kind, status, ours):
    error = translate(http_error(status, kind), "me/math", "https://hub.example.org")

    assert type(error) is ours
    assert "me/math" in error.message
    assert "secret" not in f"{error.message} {error.where} {error.hint}"


def test_what_the_server_says_cannot_command_a_terminal():
    error = translate(http_error(403, said="no\x1b]0;owned\x07\nway"), "me/math", "https://hub.example.org")

    assert "no ]0;owned way" in error.message


OTHERS = {
    "offline mode": (lambda e: e.OfflineModeIsEnabled("off"), Offline),
    "not cached": (lambda e: e.LocalEntryNotFoundError("none"), Offline),
    "a bad id": (lambda e: e.HFValidationError("bad"), UsageError),
    "a refused connection": (lambda e: ConnectionRefusedError(errno.ECONNREFUSED, "refused"), NetworkError),
    "a time-out": (lambda e: TimeoutError("slow"), NetworkError),
    "a wrong length": (lambda e: OSError("Consistency check failed: file should be of size 2"), IntegrityError),
    "a full disk": (lambda e: OSError(errno.ENOSPC, "No space left on device", "/cache/x"), LoramergeError),
    "no token": (lambda e: e.LocalTokenNotFoundError("none"), NotAllowed),
    "an answer that is none": (lambda e: KeyError("id"), NetworkError),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_each_failure_of_the_client_has_its_error(kind):
    from huggingface_hub import errors

    make, ours = OTHERS[kind]

    assert type(translate(make(errors), "me/math", "https://hub.example.org")) is ours


def test_the_cause_of_what_looks_uncached_is_told():
    from huggingface_hub import errors

    error = errors.LocalEntryNotFoundError("cannot find in cache")
    error.__cause__ = http_error(503)

    assert "503" in translate(error, "me/math", "https://hub.example.org").message


# Foreign text


def test_plain_text_is_one_printable_line():
    assert plain("a\n\tb\x1b[31mc\u202e\x00") == "a b [31mc"
    assert len(plain("x" * 1000)) == 300


def test_markdown_shows_text_as_it_is():
    assert markdown("a|b <i> [x](y) `c` *d* _e_ $f$") == r"a\|b &lt;i&gt; \[x\](y) \`c\` \*d\* \_e\_ \$f\$"
