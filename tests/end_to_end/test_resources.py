"""A hundred open streams hold no thread, no database and nothing after they end."""

import psutil
import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.streaming import open_streams
from tests.end_to_end.waiting import until
from tests.end_to_end.wire import ask, exchange, request

pytestmark = pytest.mark.processes

COUNT = 100


def warm(gateway: Gateway) -> psutil.Process:
    exchange(gateway.port, request(ask(), key=gateway.key))
    return gateway.worker()


def test_streams_have_no_thread_of_their_own(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    worker = warm(gateway)
    before = worker.num_threads()
    with open_streams(gateway, sandbox, COUNT):
        assert worker.num_threads() <= before + 2  # the two for the database, at most


def test_streams_hold_no_database_file_open(gateway: Gateway, sandbox: Sandbox) -> None:
    worker = warm(gateway)

    def has_none_open() -> bool:
        return not [file for file in worker.open_files() if "sqlite3" in file.path]

    with open_streams(gateway, sandbox, COUNT):
        # The reading once a second opens it for a moment.
        until(has_none_open, within_seconds=5)


def test_streams_take_two_descriptors_each_and_give_them_back(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    worker = warm(gateway)
    before = worker.num_fds()
    with open_streams(gateway, sandbox, COUNT):
        assert worker.num_fds() <= before + 2 * COUNT + 5
    until(lambda: worker.num_fds() <= before + 1)


def test_stream_costs_little_memory(gateway: Gateway, sandbox: Sandbox) -> None:
    worker = warm(gateway)
    with open_streams(gateway, sandbox, COUNT):
        pass
    before = worker.memory_info().rss
    with open_streams(gateway, sandbox, 2 * COUNT):
        grown = worker.memory_info().rss - before
    assert grown / (2 * COUNT) < 100 * 1024


def test_gateway_answers_while_streams_are_open(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    with open_streams(gateway, sandbox, COUNT):
        assert exchange(gateway.port, request(ask(), key=gateway.key)).status == 200
        assert gateway.health()["status"] == "healthy"
