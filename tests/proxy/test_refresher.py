import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from structlog.testing import capture_logs

from accounts.models import Account
from claudeproxy import db
from proxy.refresher import Refresher
from proxy.snapshot import Snapshot
from tests.accounts import provider
from tests.accounts.provider import signed_in
from tests.factories import NOW, pooled

SECOND = timedelta(seconds=1)
database = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sandbox(claude, settings):
    return provider.configure(settings, claude)


class Worker:
    """What a worker has of one account, and its door to new tokens."""

    def __init__(self, account_id):
        self.snapshot = Snapshot()
        self.refresher = Refresher(self.snapshot)
        self.account_id = account_id

    async def ask(self):
        """Ask as a request does; return the token it would use, or None."""
        known: Any = self.snapshot.find(self.account_id)
        account = await self.refresher.fresh(known, timezone.now())
        return account and account.credential.reveal()


async def worker(sandbox, **fields):
    account = await db.run(lambda: signed_in(sandbox, **fields))
    it = Worker(account.pk)
    await it.snapshot.refresh()
    return it, account.credential.reveal()


async def stored_token():
    account = await db.run(Account.objects.get)
    return account.credential.reveal()


@pytest.mark.parametrize("expires_at", [None, NOW + 60 * SECOND, NOW + 999 * SECOND])
async def test_a_token_with_time_left_is_used_without_asking(expires_at):
    account = pooled(1, expires_at=expires_at)

    # Nothing here has a database.
    assert await Refresher(Snapshot()).fresh(account, NOW) is account


@database
async def test_a_token_in_its_last_minute_is_refreshed_first(sandbox):
    it, old = await worker(sandbox, ends_in=59 * SECOND)
    found = await it.ask()

    assert found == await stored_token() != old


@database
@pytest.mark.parametrize("ends_in", [-SECOND, 30 * SECOND])
async def test_all_requests_of_a_worker_share_one_attempt(sandbox, ends_in):
    it, old = await worker(sandbox, ends_in=ends_in)
    found = await asyncio.gather(*[it.ask() for _ in range(100)])

    assert set(found) == {await stored_token()} != {old}
    assert provider.outcomes(sandbox) == ["issued"]


@database
async def test_a_request_that_leaves_takes_nobody_elses_refresh_with_it(sandbox):
    it, old = await worker(sandbox)
    provider.script(sandbox, {"delay_ms": 100})
    impatient = asyncio.create_task(it.ask())
    patient = asyncio.create_task(it.ask())
    while not provider.outcomes(sandbox):  # noqa: ASYNC110  # nobody can tell it
        await asyncio.sleep(0.005)
    impatient.cancel()

    assert await patient == await stored_token() != old
    assert impatient.cancelled()


@database
async def test_a_refresh_goes_on_if_all_who_wanted_it_have_left(sandbox):
    it, old = await worker(sandbox)
    caller = asyncio.create_task(it.ask())
    await asyncio.sleep(0)
    (attempt,) = it.refresher._attempts.values()
    caller.cancel()
    await attempt

    assert await stored_token() != old


@database
async def test_accounts_are_refreshed_at_the_same_time(sandbox):
    dorothy = await db.run(lambda: signed_in(sandbox))
    radia = await db.run(lambda: signed_in(sandbox, "radia"))
    for person in ("dorothy", "radia"):
        provider.script(sandbox, {"delay_ms": 200}, person=person)
    it = Worker(dorothy.pk)
    await it.snapshot.refresh()
    known = it.snapshot.contents.accounts
    await asyncio.gather(*[it.refresher.fresh(a, timezone.now()) for a in known])
    first, second = sandbox.oauth.token_requests()

    assert [a.id for a in known] == [dorothy.pk, radia.pk]
    assert second.at - first.at < 0.2 * SECOND


@database
@pytest.mark.parametrize("step", [{"status": 503}, {"reset": "before_head"}])
async def test_while_the_old_token_lives_it_is_used_after_trouble(sandbox, step):
    it, old = await worker(sandbox)
    provider.script(sandbox, step)

    assert [await it.ask() for _ in range(3)] == [old] * 3
    assert len(provider.outcomes(sandbox)) == 1


@database
async def test_a_dead_token_is_not_used_after_trouble(sandbox):
    it, _ = await worker(sandbox, ends_in=-SECOND)
    provider.script(sandbox, {"status": 503})

    assert [await it.ask() for _ in range(3)] == [None] * 3
    assert len(provider.outcomes(sandbox)) == 1


@database
async def test_a_token_that_dies_while_trouble_is_waited_for_is_not_used(sandbox):
    it, _ = await worker(sandbox, ends_in=0.2 * SECOND)
    provider.script(sandbox, {"status": 503, "delay_ms": 250})

    assert await it.ask() is None


@database
async def test_after_a_refusal_the_account_is_not_used(sandbox):
    it, _ = await worker(sandbox)
    sandbox.oauth.revoke("dorothy")

    assert [await it.ask() for _ in range(3)] == [None] * 3
    assert len(provider.outcomes(sandbox)) == 1


@database
async def test_an_account_that_was_deleted_is_not_used(sandbox):
    it, _ = await worker(sandbox)
    known = it.snapshot.find(it.account_id)
    await db.run(lambda: Account.objects.all().delete())

    assert await it.refresher.fresh(known, timezone.now()) is None
    assert provider.outcomes(sandbox) == []


@database
async def test_a_sign_in_elsewhere_is_used_without_a_refresh(sandbox):
    it, _ = await worker(sandbox)
    new = sandbox.oauth.issue("dorothy")
    pair = provider.token_set(new)
    await db.run(lambda: provider.sign_in_again(Account.objects.get(), pair))

    assert await it.ask() == new.access_token
    assert provider.outcomes(sandbox) == []


@database
async def test_while_a_refresh_elsewhere_hangs_the_old_token_is_used(sandbox):
    it, old = await worker(sandbox)
    until = timezone.now() + 50 * SECOND  # it has been held for some seconds
    held = {"refresh_lease": "another", "refresh_lease_until": until}
    await db.run(lambda: Account.objects.update(**held))

    assert await it.ask() == old
    assert provider.outcomes(sandbox) == []


@pytest.fixture
async def no_table():
    """A database that cannot be asked about accounts."""
    rename = "ALTER TABLE {} RENAME TO {}"

    def execute(*names):
        with connection.cursor() as cursor:
            cursor.execute(rename.format(*names))

    yield lambda: execute("accounts_account", "away")
    await db.run(lambda: execute("away", "accounts_account"))


@database
@pytest.mark.parametrize(("left_seconds", "is_used"), [(30, True), (-1, False)])
async def test_without_a_database_the_old_token_is_used_while_it_lives(
    sandbox, no_table, left_seconds, is_used
):
    it, old = await worker(sandbox, ends_in=left_seconds * SECOND)
    await db.run(no_table)
    with capture_logs() as lines:
        found = await it.ask()

    assert found == (old if is_used else None)
    assert lines[0] == {
        "event": "token_refresh_failed",
        "error": "OperationalError",
        "log_level": "warning",
    }


async def test_what_waits_for_a_provider_holds_up_no_other_work():
    may_go_on = threading.Event()
    slow = [asyncio.create_task(db.run_long(lambda: may_go_on.wait(5))) for _ in "1234"]
    found = await db.run(lambda: "at once")
    may_go_on.set()

    assert found == "at once"
    assert all(await asyncio.gather(*slow))


# --- a token that the upstream refused


async def replaced(it):
    """Ask for another token than the one that is known."""
    known: Any = it.snapshot.find(it.account_id)
    found = await it.refresher.replace(known)
    return found if isinstance(found, bool) else found.credential.reveal()


@database
async def test_a_refused_token_is_replaced_however_long_it_had_to_live(sandbox):
    it, old = await worker(sandbox, ends_in=8000 * SECOND)

    assert await replaced(it) == await stored_token() != old


@database
async def test_all_whose_token_was_refused_share_one_new_one(sandbox):
    it, old = await worker(sandbox, ends_in=8000 * SECOND)
    found = await asyncio.gather(*[replaced(it) for _ in range(20)])

    assert set(found) == {await stored_token()} != {old}
    assert provider.outcomes(sandbox) == ["issued"]


@database
async def test_a_grant_that_ended_brings_no_other_token(sandbox):
    it, _ = await worker(sandbox, ends_in=8000 * SECOND)
    sandbox.oauth.revoke("dorothy")

    assert await replaced(it) is True


@database
@pytest.mark.parametrize("step", [{"status": 503}, {"reset": "before_head"}])
async def test_trouble_on_the_way_to_another_token_says_nothing(sandbox, step):
    it, _ = await worker(sandbox, ends_in=8000 * SECOND)
    provider.script(sandbox, step)

    assert await replaced(it) is False
