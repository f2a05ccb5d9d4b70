import http.client
import os
import re
import signal
import socket
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from claudeproxy.management.commands.serve import base_url
from tests.claudeproxy.service import (
    MANAGE,
    are_gone,
    eventually,
    manage,
    serve,
    started,
)

pytestmark = pytest.mark.processes

PASSWORD = re.compile(r"Log in as admin with the password (\S+)")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_the_real_gateway_answers(data):
    with started([*MANAGE, "serve", "--web-only"], data) as service:
        assert "status" in (service.get("/health") or "")
        assert (
            f"Claude Proxy listens on http://127.0.0.1:{service.port}" in service.output
        )
        assert f"Admin: http://127.0.0.1:{service.port}/admin/" in service.output
        assert "./run manage add_account" in service.output
        assert "./run manage create_client_key" in service.output
        password = PASSWORD.search(service.output)
        assert password is not None
        assert password[1] not in service.log
        assert service.child("gateway-jobs") is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_stop_lets_open_answers_end_and_leaves_nothing(data, number):
    with serve(data, "--workers", "2") as service:
        service.cluster()
        port, everything = service.port, service.descendants()
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as slow:
            slow.request("GET", "/slow")
            answer = slow.getresponse()
            first = answer.read(1)
            service.process.send_signal(number)
            eventually(lambda: is_refused(port))
            (data / "go").touch()
            pid = (first + answer.read()).decode()
        assert pid[: len(pid) // 2] == pid[len(pid) // 2 :]
        assert service.wait() == 0
        assert are_gone(everything)


def test_who_started_it_with_nohup_may_close_the_terminal(data):
    nohup = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    with started(["-c", nohup, *MANAGE, "serve", "--web-only"], data) as service:
        service.get("/health")
        worker = service.child("gateway-web-1")
        assert worker is not None
        service.process.send_signal(signal.SIGHUP)
        worker.kill()
        # Only a supervisor that goes on has a successor started.
        eventually(lambda: service.child("gateway-web-1") not in {None, worker})
        assert "stopping" not in service.log


def test_a_second_ctrl_c_does_not_wait_for_anybody(data):
    with serve(data, "--web-only") as service:
        service.get()
        everything = service.descendants()
        stuck = service.child("gateway-web-1")
        assert stuck is not None
        stuck.suspend()
        os.killpg(service.process.pid, signal.SIGINT)
        eventually(lambda: "stopping" in service.log)
        os.killpg(service.process.pid, signal.SIGINT)
        assert service.wait() == 0
        assert are_gone(everything)


def test_killing_the_supervisor_ends_everything_and_frees_the_port(data):
    with serve(data) as service:
        service.cluster()
        port, everything = service.port, service.descendants()
        assert PASSWORD.search(service.output)
        service.process.kill()
        service.wait()
        eventually(lambda: are_gone(everything), seconds=2)
    with serve(data, "--port", str(port)) as again:
        assert again.get() is not None
        assert again.port == port
        assert not PASSWORD.search(again.output)


def test_a_port_that_is_taken_is_named_and_nothing_is_started(data):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = manage(data, "serve", "--port", str(port))
    assert result.returncode == 1
    assert f"Port {port} is in use on 127.0.0.1" in result.stderr
    assert "PORT or --port" in result.stderr
    assert not (data / "claudeproxy.sqlite3").exists()


def test_a_start_can_be_prepared_beside_what_listens(data):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = manage(data, "serve", "--prepare-only", "--port", port)
    assert result.returncode == 0
    assert PASSWORD.search(result.stdout)
    assert "listens" not in result.stdout
    assert (data / "claudeproxy.sqlite3").exists()


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({"UPSTREAM_BASE_URL": "ftp://example.org"}, "UPSTREAM_BASE_URL must begin"),
        ({"DATABASE_URL": "postgres://u:hidden@127.0.0.1:9/x"}, "Check DATABASE_URL"),
        ({"HOST": "192.0.2.1"}, "Check HOST and PORT"),
    ],
)
def test_what_makes_a_start_impossible_is_said(data, env, complaint):
    result = manage(data, "serve", **env)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert "hidden" not in result.stderr


def test_several_first_starts_at_once_make_one_admin(data):
    with ExitStack() as stack:
        services = [
            stack.enter_context(
                # They share the data, but not the files that their output goes to.
                serve(data / name, "--web-only", DATA_DIR=str(data))
            )
            for name in ("one", "two")
        ]
        assert all(service.get() for service in services)
        printed = [bool(PASSWORD.search(service.output)) for service in services]
        assert printed.count(True) == 1


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "localhost")]
)
def test_the_address_that_is_shown_can_be_opened(host, shown):
    with socket.create_server((host, 0)) as listener:
        assert base_url(listener) == f"http://{shown}:{listener.getsockname()[1]}"
