import asyncio
from datetime import timedelta

import pytest
from django.db import OperationalError

from accounts.ownership import Possession
from accounts.status import ObjectKind
from claudeproxy import db
from proxy.errors import NoAccountAvailableError
from proxy.owners import Owners
from tests.factories import NOW, make_account, pooled

pytestmark = pytest.mark.django_db(transaction=True)

FILE, THREAD = ObjectKind.FILE, ObjectKind.THREAD


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def account():
    return make_account().pk


@pytest.fixture
def units(monkeypatch):
    """The names of what is handed to the database's threads."""
    done, real = [], db.run

    async def run(work):
        done.append(work.func.__name__)
        return await real(work)

    monkeypatch.setattr(db, "run", run)
    return done


@pytest.fixture
def no_database(monkeypatch):
    async def run(_):
        raise OperationalError("away")

    monkeypatch.setattr(db, "run", run)


async def test_what_one_worker_remembers_another_finds(clock, account, units):
    one, other = Owners(clock=clock), Owners(clock=clock)
    await one.remember([Possession("file_1", FILE, account)])
    pool = [pooled(account)]

    assert await one.find(["file_1"], pool) == {"file_1": account}
    assert units == ["remember"]
    for _ in range(2):
        assert await other.find(["file_1", "file_1"], pool) == {"file_1": account}
    assert units == ["remember", "owners"]


async def test_what_is_known_is_not_written_again(clock, account, units):
    owners = Owners(clock=clock)
    for _ in range(3):
        await owners.remember([Possession("file_1", FILE, account)])
    await owners.remember([])

    assert units == ["remember"]


async def test_nothing_is_asked_for_nothing(clock, units):
    assert await Owners(clock=clock).find([], []) == {}
    assert units == []


async def test_an_account_that_was_deleted_owns_nothing(clock, account):
    owners = Owners(clock=clock)
    await owners.remember([Possession("file_1", FILE, account)])

    assert await owners.find(["file_1"], [pooled(account + 1)]) == {}


async def test_what_has_expired_is_not_known(clock, account):
    owners, pool = Owners(clock=clock), [pooled(account)]
    until = NOW + timedelta(minutes=70)
    await owners.remember([Possession("msg_1", THREAD, account, until)])

    assert await owners.find(["msg_1"], pool)
    clock.now = until
    assert await owners.find(["msg_1"], pool) == {}


async def test_what_is_forgotten_is_not_found(clock, account):
    owners, pool = Owners(clock=clock), [pooled(account)]
    await owners.remember([Possession("file_1", FILE, account)])
    await owners.forget(FILE, "file_1", account)

    assert await owners.find(["file_1"], pool) == {}
    assert await Owners(clock=clock).find(["file_1"], pool) == {}


async def test_memory_is_bounded(clock, account, units):
    owners, pool = Owners(clock=clock, capacity=2), [pooled(account)]
    for number in range(3):
        await owners.remember([Possession(f"file_{number}", FILE, account)])
    units.clear()
    await owners.find(["file_1", "file_2"], pool)
    assert units == []
    await owners.find(["file_0"], pool)
    assert units == ["owners"]


async def test_a_database_that_is_away_costs_no_answer(clock, no_database):
    owners = Owners(clock=clock)
    await owners.remember([Possession("file_1", FILE, 1)])
    await owners.forget(FILE, "file_2", 1)

    assert await owners.find(["file_1"], [pooled(1)]) == {"file_1": 1}


async def test_what_the_database_did_not_take_is_stored_with_the_next(
    clock, account, monkeypatch
):
    owners, pool = Owners(clock=clock), [pooled(account)]

    async def away(_):
        raise OperationalError("away")

    with monkeypatch.context() as patch:
        patch.setattr(db, "run", away)
        await owners.remember([Possession("file_1", FILE, account)])
        await owners.remember([Possession("file_2", FILE, account)])
        await owners.forget(FILE, "file_2", account)
    await owners.remember([Possession("file_3", FILE, account)])

    found = await Owners(clock=clock).find(["file_1", "file_2", "file_3"], pool)
    assert found == {"file_1": account, "file_3": account}


async def test_a_caller_who_leaves_takes_nothing_along(clock, account, monkeypatch):
    owners, pool = Owners(clock=clock), [pooled(account)]

    async def silent(_):
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(db, "run", silent)
        writing = asyncio.create_task(
            owners.remember([Possession("file_1", FILE, account)])
        )
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    await owners.remember([Possession("file_2", FILE, account)])

    assert await Owners(clock=clock).find(["file_1"], pool) == {"file_1": account}


async def test_what_a_deleted_account_had_is_not_in_the_way(clock, account):
    owners, pool = Owners(clock=clock), [pooled(account)]
    await owners.remember([Possession("file_1", FILE, account + 1)])
    await owners.remember([Possession("file_2", FILE, account)])

    assert await Owners(clock=clock).find(["file_2"], pool) == {"file_2": account}


async def test_a_database_that_says_nothing_is_not_waited_for(clock, monkeypatch):
    async def silent(_):
        await asyncio.Event().wait()

    monkeypatch.setattr(db, "run", silent)
    monkeypatch.setattr("proxy.owners._PATIENCE", timedelta(milliseconds=10))
    owners = Owners(clock=clock)
    await owners.remember([Possession("file_1", FILE, 1)])
    assert await owners.find(["file_1"], [pooled(1)]) == {"file_1": 1}
    with pytest.raises(NoAccountAvailableError, match="could not look up"):
        await owners.find(["file_2"], [pooled(1)])


async def test_what_cannot_be_looked_up_is_not_guessed(clock, no_database):
    with pytest.raises(NoAccountAvailableError, match="could not look up"):
        await Owners(clock=clock).find(["file_1"], [pooled(1)])


def test_a_miss_is_believed_for_a_minute(clock):
    owners = Owners(clock=clock)
    pool = [pooled(1)]
    owners.note_miss("file_1", pool)

    assert owners.is_missed("file_1", pool)
    assert not owners.is_missed("file_2", pool)
    clock.now += timedelta(seconds=60)
    assert not owners.is_missed("file_1", pool)


def test_an_account_that_was_not_asked_may_have_what_was_missed(clock):
    owners = Owners(clock=clock)
    owners.note_miss("file_1", [pooled(1), pooled(2)])

    assert owners.is_missed("file_1", [pooled(2)])
    assert not owners.is_missed("file_1", [pooled(2), pooled(3)])


def test_misses_are_bounded(clock):
    owners = Owners(clock=clock)
    for number in range(1500):
        owners.note_miss(f"file_{number}", [])

    assert not owners.is_missed("file_0", [])
    assert owners.is_missed("file_1499", [])
    assert sum(owners.is_missed(f"file_{i}", []) for i in range(1500)) == 1000


async def test_what_is_made_is_missed_no_more(clock, account):
    owners = Owners(clock=clock)
    owners.note_miss("file_1", [])
    await owners.remember([Possession("file_1", FILE, account)])

    assert not owners.is_missed("file_1", [])
