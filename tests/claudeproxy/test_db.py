import asyncio
import threading

import pytest
from django.db import connection, connections

from accounts.models import Account
from claudeproxy import db
from tests.factories import make_account


async def test_the_result_of_the_work_comes_back():
    assert await db.run(lambda: 7) == 7


async def test_an_error_of_the_work_comes_back():
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        await db.run(fail)


async def test_the_event_loop_goes_on_meanwhile():
    may_go_on = threading.Event()
    work = asyncio.create_task(db.run(lambda: may_go_on.wait(5)))
    await asyncio.sleep(0)
    may_go_on.set()

    assert await work


async def test_work_apart_that_hangs_holds_up_no_other():
    may_go_on = threading.Event()
    hanging = [
        asyncio.create_task(db.run_apart(lambda: may_go_on.wait(5))) for _ in range(50)
    ]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(db.run(lambda: 7), 4) == 7
    assert await asyncio.wait_for(db.run_long(lambda: 8), 4) == 8
    may_go_on.set()

    assert all(await asyncio.gather(*hanging))


@pytest.mark.django_db(transaction=True)
async def test_the_work_may_use_the_orm():
    account = await db.run(make_account)

    assert await db.run(Account.objects.get) == account


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("fails", [False, True])
async def test_no_connection_stays_open_behind_the_work(fails):
    used = []

    def work():
        connection.ensure_connection()
        used.append(connections["default"])
        if fails:
            raise KeyError

    try:
        await db.run(work)
    except KeyError:
        assert fails

    assert [used_connection.connection for used_connection in used] == [None]
