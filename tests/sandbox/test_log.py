"""The record of what arrived."""

import threading

import pytest

from claudeproxy.sandbox.accounts import Caller
from claudeproxy.sandbox.log import Entry, Log, Outcome


def arrive(log: Log) -> Entry:
    caller = Caller(None, [], [])
    return log.arrive(caller, request_id="req_1", method="GET", path="/", query="")


def test_only_the_latest_are_kept() -> None:
    log = Log(capacity=2)
    for _ in range(3):
        arrive(log)
    assert [entry.seq for entry in log.after()] == [2, 3]


def test_requests_under_way_are_counted() -> None:
    log = Log()
    entry = arrive(log)
    assert (log.in_flight, entry.outcome) == (1, None)
    log.finish(entry, Outcome.COMPLETE)
    assert (log.in_flight, entry.outcome) == (0, Outcome.COMPLETE)


def test_waiting_ends_when_another_thread_finishes_a_request() -> None:
    log = Log()
    entry = arrive(log)
    thread = threading.Timer(0.01, log.finish, (entry, Outcome.CUT))
    thread.start()
    assert log.wait_for(lambda entries: entries[0].outcome is Outcome.CUT) == [entry]
    thread.join()


def test_waiting_in_vain_is_an_error() -> None:
    with pytest.raises(TimeoutError):
        Log().wait_for(bool, timeout_seconds=0.01)
