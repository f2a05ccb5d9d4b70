"""Requests on their way to the table: nothing waits, nothing is lost."""

import asyncio
import errno
import json
import os
import subprocess
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from django.conf import settings as project
from django.db import OperationalError
from structlog.testing import capture_logs

from claudeproxy import db
from tests.usage.cast import begun, finished
from usage import ledger, recovery, store
from usage.ledger import Ledger
from usage.models import RequestRow
from usage.prices import PriceTable

ROOT = Path(project.BASE_DIR)


@pytest.fixture
def directory(tmp_path, settings):
    settings.DATA_DIR = tmp_path
    return tmp_path / "journal"


@pytest.fixture
def mine(directory):
    it = Ledger(directory)
    it.open()
    yield it
    it.close()


@pytest.fixture
def quick(monkeypatch):
    """Steps that follow one another at once."""
    for name in ("_PAUSE", "_PAUSE_AFTER_TROUBLE", "_RECOVERY_PAUSE"):
        monkeypatch.setattr(ledger, name, timedelta(milliseconds=10))


def ends() -> dict[str, str]:
    return dict(RequestRow.objects.values_list("request_id", "end_reason"))


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)


@pytest.mark.django_db(transaction=True)
async def test_strangers_cannot_fill_the_disk(mine, monkeypatch):
    monkeypatch.setattr(ledger, "monotonic", lambda: 1000.0)
    for number in range(6000):
        mine.finish(finished(f"stranger_{number}", key_id=None, key_name=None))
    for number in range(500):
        mine.finish(finished(f"known_{number}"))
    with capture_logs() as logs:
        await mine.step()

    names = [name.partition("_")[0] for name in await db.run(ends)]
    assert (names.count("stranger"), names.count("known")) == (5000, 500)
    passed_over = {"event": "usage_strangers_passed_over", "requests": 1000}
    assert passed_over | {"log_level": "warning"} in logs


class Away:
    """A database that is away for a while."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self._insert = store._insert
        self.is_away = True
        patch.setattr(store, "_insert", self.insert)

    def insert(self, rows: Any) -> None:
        self.asked += 1
        if self.is_away:
            raise OperationalError("away")
        self._insert(rows)


# --- for requests


def test_beginning_and_end_are_written_at_once(directory, mine):
    mine.begin(begun("a"))
    mine.finish(finished("a"))

    (path,) = directory.glob("*.journal")
    written = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [(line["type"], line["request_id"]) for line in written] == [
        ("begun", "a"),
        ("finished", "a"),
    ]
    assert mine.waiting == 1


def test_a_request_costs_microseconds(mine):
    started, ended = begun("a"), finished("a")
    at = perf_counter()
    for _ in range(2000):
        mine.begin(started)
        mine.finish(ended)

    # 6 to 9 µs where this was written.
    assert (perf_counter() - at) / 2000 < 150e-6


def test_what_cannot_be_written_as_json_fails_no_request(mine):
    mine.begin(begun("a", endpoint="\ud800"))
    mine.finish(finished("a", endpoint="\ud800"))

    assert (mine.lost, mine.waiting) == (1, 0)


# --- for the worker


@pytest.mark.django_db(transaction=True)
async def test_what_has_ended_is_soon_in_the_table(directory, quick):
    async with ledger.running() as mine:
        mine.begin(begun("a"))
        mine.begin(begun("b"))
        mine.finish(finished("a"))
        await until(lambda: mine.waiting == 0)
        rows = await db.run(ends)
        mine.finish(finished("b"))

    assert rows == {"a": "complete"}
    assert await db.run(ends) == {"a": "complete", "b": "complete"}
    assert list(directory.iterdir()) == []


@pytest.mark.django_db(transaction=True)
async def test_rows_have_the_prices_of_the_table(directory, quick):
    async with ledger.running() as mine:
        mine.finish(finished("a"))

    row = await db.run(RequestRow.objects.get)
    assert str(row.cost) == "0.000280000"


@pytest.mark.django_db(transaction=True)
async def test_what_ends_while_a_step_stores_is_left_to_the_next(mine, monkeypatch):
    stored = []

    def insert(rows: Any) -> None:
        stored.append([row.request_id for row in rows])
        if len(stored) < 4:
            mine.finish(finished(f"late {len(stored)}"))

    monkeypatch.setattr(store, "_insert", insert)
    mine.finish(finished("a"))
    await mine.step()
    assert (stored, mine.waiting) == ([["a"]], 1)

    mine.is_stopping = True
    await mine.step()
    assert stored == [["a"], ["late 1"], ["late 2"], ["late 3"]]
    assert mine.waiting == 0


@pytest.mark.django_db(transaction=True)
async def test_what_was_left_behind_is_found_at_the_start(directory, quick):
    dead = Ledger(directory)
    dead.open()
    for entry in (begun("a"), begun("b")):
        dead.begin(entry)
    dead.finish(finished("a"))
    dead.close()

    async with ledger.running(), asyncio.timeout(20):
        while await db.run(ends) != {"a": "complete", "b": "crashed"}:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)


@pytest.mark.django_db(transaction=True)
async def test_a_database_that_is_away_costs_disk_and_no_memory(
    directory, quick, monkeypatch, caplog
):
    away = Away(monkeypatch)
    async with ledger.running() as mine:
        for number in range(1500):
            mine.finish(finished(f"r{number}"))
        await until(lambda: away.asked > 3)
        assert mine.waiting == 1500
        assert mine.has_trouble
        assert not mine._kept
        assert not mine._open
        away.is_away = False
        await until(lambda: mine.waiting == 0)

    assert await db.run(RequestRow.objects.count) == 1500


@pytest.mark.django_db(transaction=True)
async def test_with_the_database_away_at_the_stop_the_next_start_stores(
    directory, quick, monkeypatch
):
    with monkeypatch.context() as patch:
        Away(patch)
        async with ledger.running() as mine:
            mine.finish(finished("a"))
    assert await db.run(ends) == {}

    async with ledger.running() as mine:
        await mine.recover()

    assert await db.run(ends) == {"a": "complete"}
    assert list(directory.iterdir()) == []


@pytest.mark.django_db(transaction=True)
async def test_a_long_file_is_followed_by_a_new_one(directory, quick, monkeypatch):
    monkeypatch.setattr(ledger, "_FILE_BYTES", 2000)
    mine = Ledger(directory)
    mine.open()
    mine.begin(begun("still open"))
    for number in range(20):
        mine.finish(finished(f"r{number}"))
    await mine.step()

    (path,) = directory.glob("*.journal")
    assert b"still open" in path.read_bytes()
    assert path.stat().st_size < 2000
    mine.close()
    recover = partial(recovery.recover, is_stopping=lambda: False)
    await db.run(lambda: recover(directory, PriceTable([])))
    assert (await db.run(ends))["still open"] == "crashed"
    assert await db.run(RequestRow.objects.count) == 21


@pytest.mark.django_db(transaction=True)
async def test_a_fault_is_not_the_end_of_storing(directory, quick, monkeypatch):
    faults = iter([KeyError("a fault")] * 3)
    store_finished = recovery.store_finished

    def faulty(*args: Any) -> int:
        for fault in faults:
            raise fault
        return store_finished(*args)

    monkeypatch.setattr(recovery, "store_finished", faulty)
    with capture_logs() as told:
        async with ledger.running() as mine:
            mine.finish(finished("a"))
            await until(lambda: mine.waiting == 0)
            await until(lambda: not mine.has_trouble)

    assert [line["event"] for line in told] == ["usage_trouble", "usage_trouble_over"]
    assert told[0]["exc_info"]
    assert await db.run(ends) == {"a": "complete"}


def test_what_is_lost_at_the_end_is_told(directory):
    directory.write_text("in the way")
    mine = Ledger(directory)
    mine.finish(finished("a"))
    with capture_logs() as told:
        mine.close()

    assert told == [{"event": "usage_lost", "requests": 1, "log_level": "error"}]


# --- a disk that refuses


def refuse(*_: Any) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.django_db(transaction=True)
async def test_a_full_disk_fails_no_request(mine, monkeypatch):
    monkeypatch.setattr(ledger, "_KEPT", 3)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        for number in range(5):
            mine.begin(begun(f"r{number}"))
            mine.finish(finished(f"r{number}"))
        await mine.step()
        assert (mine.waiting, mine.lost) == (3, 2)
        assert mine.has_trouble

    await mine.step()

    assert not mine.has_trouble
    assert set(await db.run(ends)) == {"r0", "r1", "r2"}


@pytest.mark.django_db(transaction=True)
async def test_a_directory_that_cannot_be_used_is_tried_again(directory):
    directory.write_text("in the way")
    mine = Ledger(directory)
    mine.open()
    mine.finish(finished("a"))
    await mine.step()
    assert mine.waiting == 1

    directory.unlink()
    await mine.step()

    assert await db.run(ends) == {"a": "complete"}
    mine.close()


def test_trouble_is_told_once(directory):
    directory.write_text("in the way")
    mine = Ledger(directory)
    with capture_logs() as told:
        for _ in range(3):
            mine.tend_journal()
        directory.unlink()
        mine.tend_journal()

    assert [line["event"] for line in told] == ["usage_trouble", "usage_trouble_over"]
    mine.close()


# --- processes

WORKER = """
import os, sys
import django
django.setup()
from pathlib import Path
from tests.usage.cast import begun, finished
from usage.ledger import Ledger
mine = Ledger(Path(sys.argv[1]))
mine.open()
for number in range(200):
    mine.begin(begun(f"{os.getpid()}-{number}"))
    if number % 2:
        mine.finish(finished(f"{os.getpid()}-{number}"))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.processes
@pytest.mark.django_db(transaction=True)
async def test_whatever_killed_workers_had_written_is_stored(directory, quick):
    workers = [
        subprocess.Popen(  # noqa: ASYNC220  # it only starts them
            [sys.executable, "-c", WORKER, str(directory)],
            cwd=ROOT,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout
        worker.stdout.readline()
    async with ledger.running() as mine:
        await mine.recover()
        assert await db.run(RequestRow.objects.count) == 0  # they are alive
        for worker in workers:
            worker.kill()
            worker.communicate()
        await mine.recover()

    found = list((await db.run(ends)).values())
    assert (found.count("complete"), found.count("crashed")) == (200, 200)
    assert list(directory.iterdir()) == []
