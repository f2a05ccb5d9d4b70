"""A rolling restart: newer code and settings take over, and nobody is let down."""

import http.client
import os
import signal
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.claudeproxy.service import (
    MANAGE,
    Service,
    are_gone,
    eventually,
    serve,
    started,
)

pytestmark = pytest.mark.processes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path


def worker_of(service: Service, number: int) -> psutil.Process:
    return eventually(lambda: service.child(f"gateway-web-{number}"))


def restart(service: Service) -> None:
    service.process.send_signal(signal.SIGUSR2)


def test_all_processes_are_replaced_and_open_answers_end(data):
    with serve(data, "--workers", "2") as service:
        service.cluster()
        before = service.descendants()
        with closing(
            http.client.HTTPConnection("127.0.0.1", service.port, timeout=20)
        ) as slow:
            slow.request("GET", "/slow")
            answer = slow.getresponse()
            old = answer.read(1)
            restart(service)
            eventually(lambda: service.log.count('"event":"process_retired"') == 3)
            old_pids = {str(process.pid) for process in before}
            eventually(lambda: service.get() not in old_pids | {None})
            (data / "go").touch()
            old += answer.read()
        assert int(old[: len(old) // 2]) in {process.pid for process in before}
        eventually(lambda: are_gone(before))
        service.cluster()
        assert service.process.poll() is None
        service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0


def test_settings_of_now_are_taken_up(data):
    number = data / "number"
    number.write_text("2")
    with serve(data, "--web-only", WEB_WORKERS_FILE=str(number)) as service:
        service.get()
        both = {worker_of(service, 1), worker_of(service, 2)}
        number.write_text("1")
        restart(service)
        eventually(lambda: are_gone(both))
        assert service.child("gateway-web-2") is None
        assert service.get() == str(worker_of(service, 1).pid)


def test_a_start_that_would_fail_changes_nothing(data):
    upstream = data / "upstream"
    upstream.write_text("https://example.org")
    command = [*MANAGE, "serve", "--web-only"]  # with all checks
    with started(command, data, UPSTREAM_BASE_URL_FILE=str(upstream)) as service:
        service.get("/health")
        worker = worker_of(service, 1)
        upstream.write_text("ftp://example.org")
        restart(service)
        eventually(lambda: "restart_refused" in service.log)
        assert "claudeproxy.E002" in service.log
        assert service.child("gateway-web-1") == worker
        upstream.write_text("https://example.org")
        restart(service)
        eventually(lambda: are_gone({worker}))
        assert service.get("/health")


def test_two_restarts_at_once_are_one_after_the_other_or_one(data):
    with serve(data, "--web-only") as service:
        pid = service.get()
        restart(service)
        restart(service)
        eventually(lambda: service.get() not in {None, pid})
        assert service.process.poll() is None


def test_a_stop_in_the_middle_of_a_restart_leaves_nothing(data):
    with serve(data, "--web-only") as service:
        service.get()
        before = service.descendants()
        restart(service)
        eventually(lambda: '"event":"restarting"' in service.log)
        service.process.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert are_gone(before)


STUBBORN = """
import select, signal, socket, time
import django

django.setup()

from claudeproxy import process
from claudeproxy.handover import Predecessor
from claudeproxy.supervisor import Role, Supervisor
from claudeproxy.watchdog import Watchdog


def ignore_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ignoring.light()
    time.sleep(60)


ignoring = process.Beacon()
pid = process.fork("web", ignore_sigterm)
select.select([ignoring], [], [])
Supervisor(
    [Role("web", lambda: time.sleep(60) or 0)],
    listener=socket.create_server(("127.0.0.1", 0)),
    seconds_to_stop=2,
    watchdog=Watchdog(),
    predecessors=[Predecessor("web", pid)],
).run()
"""


def test_a_predecessor_that_does_not_end_is_killed(data):
    with started(["-c", STUBBORN], data) as service:
        eventually(lambda: '"event":"process_retired"' in service.log)
        eventually(lambda: '"event":"process_killed"' in service.log)
        eventually(lambda: len(service.descendants()) == 1)
        assert service.process.poll() is None


def test_a_worker_does_not_mind_the_signal(data):
    with serve(data, "--web-only") as service:
        pid = service.get()
        os.kill(int(pid or 0), signal.SIGUSR2)
        assert service.get() == pid
