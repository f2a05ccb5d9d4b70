import asyncio
import threading

import pytest
from django.db import DatabaseError, InterfaceError, OperationalError
from structlog.testing import capture_logs

from claudeproxy import db
from clients import keys
from proxy import snapshot
from proxy.snapshot import Contents, Snapshot
from tests.factories import make_account, make_client_key, pooled

ONE = Contents(accounts=(pooled(1),))
TWO = Contents(accounts=(pooled(1), pooled(2)))


class Readings:
    """Plays the database: yields what it was given, an error or a reading."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.count = 0

    def __call__(self):
        self.count += 1
        outcome = self.outcomes[min(self.count, len(self.outcomes)) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def _without_a_pause(monkeypatch):
    monkeypatch.setattr(snapshot, "_LEAST_AGE_SECONDS", 0)


def test_before_the_first_reading_nothing_is_known():
    assert Snapshot(Readings(ONE)).contents == Contents()


async def test_concurrent_refreshes_share_one_reading():
    is_asked, may_go_on = threading.Event(), threading.Event()
    count = 0

    def read():
        nonlocal count
        count += 1
        is_asked.set()
        may_go_on.wait(5)
        return ONE

    it = Snapshot(read)
    first = asyncio.create_task(it.refresh())
    await asyncio.to_thread(is_asked.wait, 5)
    others = [asyncio.create_task(it.refresh()) for _ in range(50)]
    may_go_on.set()
    await asyncio.gather(first, *others)

    # The others came while the first was read, so one more reading serves them all;
    # none is needed if the first had only just begun.
    assert count <= 2
    assert it.contents is ONE


async def test_a_burst_of_refreshes_asks_the_database_once():
    readings = Readings(ONE)
    it = Snapshot(readings)
    await it.refresh()
    async with asyncio.TaskGroup() as burst:
        for _ in range(20):
            burst.create_task(it.refresh())

    assert readings.count <= 3


async def test_what_is_written_right_after_a_reading_is_seen_by_the_next_refresh():
    it = Snapshot(Readings(ONE, TWO))
    await it.refresh()
    await it.refresh()

    assert it.contents is TWO


async def test_nothing_counts_as_known_until_a_reading_succeeds(monkeypatch):
    monkeypatch.setattr(snapshot, "_LEAST_AGE_SECONDS", 0)
    it = Snapshot(Readings(OperationalError("gone"), ONE))
    await it.refresh()
    assert not it.is_loaded

    await it.refresh()
    assert it.is_loaded


@pytest.mark.usefixtures("_without_a_pause")
async def test_each_refresh_brings_what_is_new():
    it = Snapshot(Readings(ONE, TWO))
    await it.refresh()
    await it.refresh()

    assert it.contents is TWO


@pytest.mark.usefixtures("_without_a_pause")
@pytest.mark.parametrize("error", [DatabaseError, OperationalError, InterfaceError])
async def test_a_failing_database_keeps_what_was_read(error):
    it = Snapshot(Readings(ONE, error("gone"), TWO))
    await it.refresh()
    await it.refresh()
    assert it.contents is ONE

    await it.refresh()
    assert it.contents is TWO


@pytest.mark.usefixtures("_without_a_pause")
async def test_a_failing_database_is_told_once_each_time_it_fails():
    gone = OperationalError("gone")
    it = Snapshot(Readings(ONE, gone, gone, gone, TWO, gone, ONE))
    with capture_logs() as lines:
        for _ in range(7):
            await it.refresh()

    assert [line["event"] for line in lines] == ["snapshot_kept"] * 2
    assert "gone" not in str(lines)


async def test_it_is_read_before_it_is_used_and_again_and_again(monkeypatch):
    monkeypatch.setattr(snapshot, "_INTERVAL_SECONDS", 0)
    monkeypatch.setattr(snapshot, "_LEAST_AGE_SECONDS", 0)
    is_third = asyncio.Event()
    loop = asyncio.get_running_loop()
    readings = Readings(ONE, OperationalError("gone"), TWO)

    def read():
        try:
            return readings()
        finally:
            if readings.count >= 3:
                loop.call_soon_threadsafe(is_third.set)

    it = Snapshot(read)
    async with asyncio.timeout(5), it.kept_fresh():
        assert it.contents is ONE
        await is_third.wait()
    asked = readings.count
    await asyncio.to_thread(lambda: None)

    assert readings.count == asked
    assert len(asyncio.all_tasks()) == 1


async def test_a_reading_that_fails_is_not_the_last(monkeypatch):
    monkeypatch.setattr(snapshot, "_INTERVAL_SECONDS", 0)
    monkeypatch.setattr(snapshot, "_LEAST_AGE_SECONDS", 0)
    is_third = asyncio.Event()
    loop = asyncio.get_running_loop()
    readings = Readings(ONE, ValueError("an unknown status"), TWO)

    def read():
        try:
            return readings()
        finally:
            if readings.count > 3:
                loop.call_soon_threadsafe(is_third.set)

    it = Snapshot(read)
    with capture_logs() as lines:
        async with asyncio.timeout(5), it.kept_fresh():
            await is_third.wait()

    assert it.contents is TWO
    assert [line["event"] for line in lines] == ["background_step_failed"]


async def test_it_starts_even_without_a_database():
    async with Snapshot(Readings(OperationalError("gone"))).kept_fresh():
        pass


@pytest.mark.django_db(transaction=True)
async def test_new_rows_are_known_after_a_refresh(monkeypatch):
    monkeypatch.setattr(snapshot, "_LEAST_AGE_SECONDS", 0)
    it = Snapshot()
    await it.refresh()
    assert it.contents == Contents()

    issued = await db.run(lambda: make_client_key("alice"))
    account = await db.run(make_account)
    await it.refresh()

    key = it.contents.keys[keys.digest(issued.key.reveal())]
    assert (key.id, key.name) == (issued.row.pk, "alice")
    assert [known.id for known in it.contents.accounts] == [account.pk]
    assert it.contents.accounts[0].credential.reveal() == "sk-ant-of-ada"
