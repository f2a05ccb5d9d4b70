"""Where the sandbox listens, and how it starts and stops."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from datetime import timedelta

import httpx
import pytest

from claudeproxy.sandbox import __main__ as command
from claudeproxy.sandbox import server
from claudeproxy.sandbox.errors import NotLoopbackError
from claudeproxy.sandbox.log import Outcome
from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.wire import ask, connect


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", ""])
def test_other_hosts_than_loopback_are_refused(host: str) -> None:
    with pytest.raises(NotLoopbackError, match="loopback only"):
        SandboxServer(host=host)
    with pytest.raises(NotLoopbackError):
        server.run(host)


@pytest.mark.parametrize(
    ("host", "address"),
    [("localhost", "127.0.0.1"), ("127.0.0.9", "127.0.0.9"), ("::1", "::1")],
)
def test_loopback_hosts_are_accepted(host: str, address: str) -> None:
    assert server.loopback(host) == address


def test_the_command_explains_a_refused_host(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["--host", "0.0.0.0"]) == 1
    assert "loopback only" in capsys.readouterr().err


def test_the_command_explains_a_taken_port(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert command.main(["--port", str(taken.getsockname()[1])]) == 1
    assert "in use" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "99999999999"])
def test_the_command_refuses_an_odd_lifetime(
    capsys: pytest.CaptureFixture[str], seconds: str
) -> None:
    with pytest.raises(SystemExit):
        command.main(["--access-token-seconds", seconds])
    assert "--access-token-seconds" in capsys.readouterr().err


def test_the_command_passes_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Sandbox] = []
    monkeypatch.setattr(server, "run", lambda _host, _port, box: started.append(box))
    options = ["--client-id", "own", "--access-token-seconds", "90"]
    assert command.main(options) == 0
    [sandbox] = started
    assert sandbox.oauth.client_id == "own"
    assert sandbox.oauth.access_token_lifetime == timedelta(seconds=90)


def test_a_server_can_be_started_anew_and_keeps_its_sandbox() -> None:
    with SandboxServer() as first:
        first.sandbox.accounts.revoke("ada")
    with SandboxServer(first.sandbox) as second:
        page = httpx.get(f"{second.url}/_sandbox/", trust_env=False).json()
    assert [account["name"] for account in page["accounts"]] == ["grace", "edsger"]


def test_stopping_cuts_what_hangs_and_leaves_no_thread() -> None:
    before = threading.enumerate()
    with SandboxServer() as running:
        running.sandbox.script.add("ada", {"hang": "before_head"})
        sock = connect(running.url, ask())
        running.sandbox.log.wait_for(bool)
    with sock:
        assert sock.recv(1) == b""
    assert running.sandbox.log.after()[0].outcome is Outcome.HANG
    assert threading.enumerate() == before


def test_nothing_listens_after_the_stop() -> None:
    with SandboxServer() as stopped:
        url = stopped.url
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


async def test_many_hanging_requests_need_no_threads() -> None:
    before = threading.active_count()
    with SandboxServer() as running:
        running.sandbox.script.add("*", {"hang": "before_head", "times": "forever"})
        socks = [connect(running.url, ask()) for _ in range(50)]
        await asyncio.to_thread(
            running.sandbox.log.wait_for, lambda entries: len(entries) == 50
        )
        assert running.sandbox.log.in_flight == 50
        assert threading.active_count() <= before + 2
        for sock in socks:
            sock.close()


def test_the_command_serves_until_interrupted_and_needs_no_django() -> None:
    code = (
        "import sys\n"
        "from claudeproxy.sandbox.__main__ import main\n"
        "status = main(['--port', '0'])\n"
        "sys.exit(status or ('django' in sys.modules))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr
    with process.stderr:
        line = process.stderr.readline()
        url = line.split()[3].rstrip(",")
        answer = httpx.head(url, trust_env=False)
        assert answer.headers["x-claude-sandbox"] == "1"
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(10) == 0
