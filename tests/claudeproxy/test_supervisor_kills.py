"""Whichever process is killed: the rest of it goes too, and all of it is back."""

import time
from collections.abc import Iterator

import pytest

from tests.claudeproxy.service import Cluster, Service, are_gone, eventually, serve

pytestmark = pytest.mark.processes

HANG_LIMIT = 3.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serve(tmp_path_factory.mktemp("data"), hang_limit=HANG_LIMIT) as service:
        service.get()
        yield service


def assert_jobs_run(service: Service) -> None:
    now = time.time()
    eventually(lambda: service.successes_since(now))


def kill_idle_worker(service: Service) -> Cluster:
    while True:
        cluster, killed_at = service.cluster(), time.time()
        cluster.worker.kill()
        patience = time.monotonic() + HANG_LIMIT
        while time.monotonic() < patience and not service.successes_since(killed_at):
            time.sleep(0.05)
        if not service.successes_since(killed_at):
            return cluster


def test_web_worker(service):
    web, jobs = service.child("gateway-web-1"), service.child("gateway-jobs")
    assert service.get() == str(web.pid)
    web.kill()
    eventually(lambda: service.get() not in {None, str(web.pid)})
    assert service.child("gateway-jobs") == jobs


@pytest.mark.parametrize("part", ["main", "sentinel"])
def test_head_of_the_job_cluster(service, part):
    old, web = service.cluster(), service.child("gateway-web-1")
    getattr(old, part).kill()
    eventually(lambda: are_gone(old.processes))
    assert not old.processes & service.cluster().processes
    assert service.child("gateway-web-1") == web
    assert_jobs_run(service)


def test_pusher_of_the_job_cluster(service):
    service.cluster().pusher.kill()
    assert_jobs_run(service)


def test_monitor_of_the_job_cluster(service):
    service.cluster().monitor.kill()
    assert_jobs_run(service)


def test_idle_worker_of_the_job_cluster(service):
    # It dies with the lock of its queue, which makes the whole cluster hang. One that
    # has a job at that moment holds no lock, and the cluster goes on: then once more.
    hung = kill_idle_worker(service)
    eventually(lambda: are_gone(hung.processes))
    assert f'"pid":{hung.main.pid},"event":"process_hangs"' in service.log
    assert_jobs_run(service)


def test_a_cluster_is_left_alone_while_the_database_is_away(service):
    assert_jobs_run(service)
    main = service.cluster().main
    database = service.data / "claudeproxy.sqlite3"
    aside = database.rename(service.data / "aside.sqlite3")
    database.mkdir()
    try:
        eventually(lambda: "watchdog_blind" in service.log)
        enough = time.monotonic() + HANG_LIMIT + 1
        eventually(lambda: time.monotonic() > enough)
        assert service.cluster().main == main
    finally:
        database.rmdir()
        aside.rename(database)
    eventually(lambda: "watchdog_sees_again" in service.log)
    assert service.log.count("watchdog_blind") == 1
