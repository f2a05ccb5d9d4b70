import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.claudeproxy.service import (
    MANAGE,
    Cluster,
    Service,
    are_gone,
    eventually,
    manage,
    started,
)

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    assert manage(data, "migrate", "-v0").returncode == 0
    return data


@contextmanager
def running_jobs(data: Path) -> Iterator[tuple[Service, Cluster]]:
    with started([*MANAGE, "jobs"], data) as service:
        main = psutil.Process(service.process.pid)
        eventually(lambda: "jobs_running" in service.log)
        yield service, eventually(lambda: Cluster.below(main))


def test_the_first_heartbeat_does_not_wait_for_the_schedule(data):
    with running_jobs(data) as (service, _):
        eventually(lambda: service.successes_since(0), seconds=10)


def test_sigterm_to_the_main_process_ends_it_gracefully(data):
    with running_jobs(data) as (service, cluster):
        cluster.main.terminate()
        assert service.wait() == 0
        assert are_gone(cluster.processes)
        assert "jobs_stopping" in service.log


@pytest.mark.parametrize("is_hangup", [False, True], ids=["SIGTERM", "terminal closed"])
def test_a_signal_to_stop_lets_a_running_job_end(data, is_hangup):
    for trace in ("began", "go"):
        (data / trace).unlink(missing_ok=True)
    queue = (
        "import sys, django; django.setup()\n"
        "from django_q.tasks import async_task\n"
        "async_task('tests.claudeproxy.service.wait_for_go', sys.argv[1])"
    )
    with started(["-c", queue, str(data)], data) as queueing:
        assert queueing.wait() == 0
    with running_jobs(data) as (service, cluster):
        eventually((data / "began").exists)
        before = service.successes_since(0)
        if is_hangup:  # reaches all that the terminal runs
            os.killpg(cluster.main.pid, signal.SIGHUP)
        else:
            cluster.main.terminate()
        eventually(lambda: "jobs_stopping" in service.log)
        (data / "go").touch()
        assert service.wait() == 0
        assert service.successes_since(0) > before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_whole_group_ends_it(data, number):
    with running_jobs(data) as (service, cluster):
        os.killpg(cluster.main.pid, number)
        assert service.wait() == 0
        assert are_gone(cluster.processes)


def test_a_second_ctrl_c_ends_a_cluster_that_hangs(data):
    with running_jobs(data) as (service, cluster):
        cluster.sentinel.suspend()
        cluster.main.send_signal(signal.SIGINT)
        eventually(lambda: "jobs_stopping" in service.log)
        cluster.main.send_signal(signal.SIGINT)
        service.wait()
        eventually(lambda: are_gone(cluster.processes))


@pytest.mark.parametrize("part", ["main", "sentinel"])
def test_kill_leaves_no_orphan(data, part):
    with running_jobs(data) as (service, cluster):
        getattr(cluster, part).kill()
        assert service.wait() != 0
        eventually(lambda: are_gone(cluster.processes))
