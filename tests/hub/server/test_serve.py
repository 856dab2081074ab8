from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx

from loramerge.errors import BadOption, MissingExtra
from loramerge.hub.server.serve import running

ROOT = Path(__file__).parents[3]
SERVE = """
import sys
from pathlib import Path
from loramerge.hub.server.serve import serve

def ready(server):
    print(server.endpoint, server.token, server.user, flush=True)

serve(Path(sys.argv[1]), host="127.0.0.1", port=0, user="ann", token=None, ready=ready)
print("done", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_cleanly(tmp_path, number):
    command = [sys.executable, "-W", "error", "-c", SERVE, str(tmp_path / "root")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        endpoint, token, user = process.stdout.readline().split()
        api = HfApi(endpoint=endpoint, token=token)
        name = api.whoami()["name"]
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)

    assert (name, user) == ("ann", "ann")
    assert (process.returncode, rest, errors) == (0, "done\n", "")


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_the_second_port_is_the_one_after_the_first(tmp_path):
    port = next(port for port in range(20_000, 30_000, 3) if all(map(is_free, (port - 1, port, port + 1))))

    with running(tmp_path / "root", port=port) as hub:
        assert hub.endpoint == f"http://127.0.0.1:{port}"
        with pytest.raises(BadOption, match="cannot listen"), running(tmp_path / "other", port=port):
            pass
        with pytest.raises(BadOption, match="cannot listen"), running(tmp_path / "other", port=port - 1):
            pass


@pytest.mark.parametrize("where", [{"host": "192.0.2.1"}, {"host": "no.such.host.invalid"}, {"port": 70000}])
def test_an_address_that_cannot_be_had_is_a_usage_error(tmp_path, where):
    with pytest.raises(BadOption, match="cannot listen"), running(tmp_path / "root", **where):
        pass


def test_a_folder_that_cannot_hold_a_hub_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/hub.sqlite").write_text("not a database, but long enough to be looked at " * 30)

    for root in (tmp_path / "file", tmp_path / "file/below", tmp_path / "other"):
        with pytest.raises(BadOption, match="cannot hold a Hub"), running(root):
            pass


def test_errors_of_the_caller_pass_through(tmp_path):
    with pytest.raises(OSError, match="mine"), running(tmp_path / "root"):
        raise OSError("mine")


def test_without_the_extra_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    with pytest.raises(MissingExtra) as caught, running(tmp_path / "root"):
        pass

    assert caught.value.hint == "pip install 'loramerge[hub]'"


def test_the_token_given_is_the_token_taken(tmp_path):
    with running(tmp_path / "root", user="ann", token="hf_given_by_hand") as hub:
        assert hub.token == "hf_given_by_hand"
        assert HfApi(endpoint=hub.endpoint, token=hub.token).whoami()["name"] == "ann"


def test_only_the_owner_can_look_into_the_folder(tmp_path):
    with running(tmp_path / "root"):
        assert (tmp_path / "root").stat().st_mode & 0o077 == 0


def test_nothing_runs_after_the_block(tmp_path):
    before = threading.active_count()

    with running(tmp_path / "root") as hub:
        httpx.get(f"{hub.endpoint}/api/models")

    assert threading.active_count() == before
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{hub.endpoint}/api/models")


def test_two_hubs_run_side_by_side(tmp_path):
    with running(tmp_path / "a") as first, running(tmp_path / "b") as second:
        HfApi(endpoint=first.endpoint, token=first.token).create_repo("me/only-here")

        assert list(HfApi(endpoint=second.endpoint, token=second.token).list_models()) == []


def test_the_server_answers_on_ipv6(tmp_path):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 on this machine")

    with running(tmp_path / "root", host="::1") as hub:
        api = HfApi(endpoint=hub.endpoint, token=hub.token)
        api.create_repo("me/a")
        api.upload_file(path_or_fileobj=b"\0" * 100, path_in_repo="w.bin", repo_id="me/a")

        path = api.hf_hub_download("me/a", "w.bin", cache_dir=tmp_path / "cache")

    assert Path(path).read_bytes() == b"\0" * 100


def test_importing_the_server_imports_neither_framework_nor_client():
    code = (
        "import sys, loramerge.hub.server.serve; print({'starlette', 'uvicorn', 'huggingface_hub'} & set(sys.modules))"
    )

    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert run.stdout.strip() == "set()"


def test_a_full_disk_is_said_and_nothing_is_committed(tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))\n"
    signals = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    command = [sys.executable, "-c", limit + signals + SERVE, str(tmp_path / "root")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        endpoint, token, _ = process.stdout.readline().split()
        api = HfApi(endpoint=endpoint, token=token)
        api.create_repo("me/a")

        with pytest.raises(RuntimeError) as caught:
            api.upload_file(path_or_fileobj=b"\0" * 5_000_000, path_in_repo="w.bin", repo_id="me/a")

        assert "507" in str(caught.value.__cause__)
        assert api.list_repo_files("me/a") == [".gitattributes"]
        process.terminate()
        process.communicate(timeout=20)
    assert list((tmp_path / "root/incoming").iterdir()) == []
