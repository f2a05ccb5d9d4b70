import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import DataError, OperationalError, connection

from accounts.models import Account, QuotaWindow
from accounts.status import AccountStatus
from claudeproxy import db
from proxy import gateway
from proxy.catalogue import Catalogue
from proxy.errors import DrainingError
from proxy.gateway import Gateway
from proxy.outcomes import Blame, Effect, Judgement, Step
from proxy.refresher import Refresher
from proxy.snapshot import Contents, Snapshot
from proxy.upstream import Upstream
from tests.factories import NOW, make_account, pooled


@pytest.fixture
async def it():
    upstream = Upstream("http://127.0.0.1:9", read_timeout=timedelta(seconds=1))
    snapshot = Snapshot()
    snapshot.contents = Contents(accounts=(pooled(1), pooled(2), pooled(3)))
    yield Gateway(snapshot, upstream, Refresher(snapshot), Catalogue(snapshot))
    await upstream.aclose()


def choose(it, conversation=None):
    """Choose, and use the turn."""
    decision = it.choose(conversation, NOW, model=None, already_tried=())
    it.take_turn(decision)
    return decision


async def test_a_turn_is_used_only_when_the_account_is_asked(it):
    chosen = [it.choose(None, NOW, model=None, already_tried=()) for _ in range(3)]

    assert [decision.account.id for decision in chosen] == [1, 1, 1]


async def test_requests_take_turns(it):
    assert [choose(it).account.id for _ in range(4)] == [1, 2, 3, 1]


async def test_a_conversation_stays_with_the_account_that_served_it(it):
    it.affinity.bind((1, b"a"), 3)
    ids = [choose(it, (1, b"a")).account.id for _ in range(3)]

    assert ids == [3, 3, 3]
    assert choose(it).account.id == 1


async def test_a_conversation_nobody_has_served_takes_its_turn(it):
    assert choose(it, (1, b"new")).how == "round_robin"
    assert choose(it, (1, b"new")).account.id == 2


async def test_lists_come_from_one_account_and_use_up_no_turn(it):
    choose(it)
    ids = [it.choose_for_list(NOW, already_tried=()).account.id for _ in range(3)]

    assert ids == [1, 1, 1]
    assert choose(it).account.id == 2


async def test_an_account_that_was_tried_is_not_chosen_again(it):
    decision = it.choose(None, NOW, model=None, already_tried={1, 2})
    listing = it.choose_for_list(NOW, already_tried={1})

    assert decision.account.id == 3
    assert listing.account.id == 2


async def test_an_account_without_the_model_is_not_chosen(it):
    other = replace(pooled(1), models=frozenset({"opus"}))
    it.snapshot.contents = Contents(accounts=(other, pooled(2)))
    decision = it.choose(None, NOW, model="haiku", already_tried=())

    assert decision.account.id == 2


async def test_a_request_is_open_until_it_ends_however_it_ends(it):
    with contextlib.suppress(KeyError), it.tracked() as request:
        assert it.open_requests == {request}
        assert request.task is asyncio.current_task()
        raise KeyError

    assert it.open_requests == set()


async def test_a_drain_cuts_what_is_still_open_when_its_time_is_over(it, settings):
    settings.DRAIN_TIMEOUT = timedelta(0)
    is_open = asyncio.Event()
    seen = []

    async def serve():
        with it.tracked() as request:
            seen.append(request)
            is_open.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await is_open.wait()
    it.start_drain()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert it.is_draining
    assert seen[0].cut_by is DrainingError


async def test_a_drain_leaves_open_requests_their_time(it, settings):
    settings.DRAIN_TIMEOUT = timedelta(seconds=30)
    with it.tracked() as request:
        it.start_drain()
        await asyncio.sleep(0)

        assert request.cut_by is None


async def test_what_comes_after_a_drain_is_cut_at_once(it, settings):
    settings.DRAIN_TIMEOUT = timedelta(0)
    it.start_drain()
    await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError), it.tracked() as request:
        await asyncio.sleep(5)

    assert request.cut_by is DrainingError


async def test_a_second_signal_does_not_start_a_second_drain(it, settings):
    settings.DRAIN_TIMEOUT = timedelta(seconds=30)
    it.start_drain()
    settings.DRAIN_TIMEOUT = timedelta(0)
    with it.tracked() as request:
        it.start_drain()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        assert request.cut_by is None


@pytest.mark.django_db(transaction=True)
async def test_a_worker_opens_knowing_the_pool_and_leaves_nothing_behind():
    account = await db.run(make_account)
    async with gateway.running() as opened:
        assert [known.id for known in opened.snapshot.contents.accounts] == [account.pk]

    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
def _writes_at_once(monkeypatch):
    monkeypatch.setattr(gateway, "_ACTIVITY_SECONDS", 0.01)


async def last_use():
    account = await db.run(Account.objects.get)
    return account.last_used_at


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("_writes_at_once")
async def test_a_use_is_written_down_while_the_worker_runs():
    account = await db.run(make_account)
    async with gateway.running() as opened:
        opened.activity.note(account.pk, NOW)
        async with asyncio.timeout(5):
            while await last_use() != NOW:  # noqa: ASYNC110  # nobody can tell it
                await asyncio.sleep(0.01)


@pytest.mark.django_db(transaction=True)
async def test_a_use_is_written_down_when_the_worker_stops():
    account = await db.run(make_account)
    async with gateway.running() as opened:
        opened.activity.note(account.pk, NOW)
        assert await last_use() is None

    assert await last_use() == NOW


@pytest.mark.django_db(transaction=True)
async def test_a_worker_stops_well_without_a_database():
    def rename(old, new):
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")

    account = await db.run(make_account)
    try:
        async with gateway.running() as opened:
            opened.activity.note(account.pk, NOW)
            await db.run(lambda: rename("accounts_account", "away"))
    finally:
        await db.run(lambda: rename("away", "accounts_account"))

    assert await last_use() is None


PLAN = [(b"anthropic-ratelimit-unified-5h-utilization", b"0.42")]


def note_quota(opened, account):
    opened.quotas.note(account.pk, PLAN, datetime.now(UTC), model_group="")


async def used():
    windows = QuotaWindow.objects.values_list("utilization", flat=True)
    return await db.run(lambda: list(windows.all()))


@pytest.mark.django_db(transaction=True)
async def test_a_quota_is_written_down_while_the_worker_runs(monkeypatch):
    monkeypatch.setattr(gateway, "_QUOTA_SECONDS", 0.01)
    account = await db.run(make_account)
    async with gateway.running() as opened:
        note_quota(opened, account)
        async with asyncio.timeout(5):
            while await used() != [0.42]:  # noqa: ASYNC110  # nobody can tell it
                await asyncio.sleep(0.01)


@pytest.mark.django_db(transaction=True)
async def test_a_quota_is_written_down_when_the_worker_stops():
    account = await db.run(make_account)
    async with gateway.running() as opened:
        note_quota(opened, account)

    assert await used() == [0.42]


@pytest.mark.django_db(transaction=True)
async def test_a_quota_waits_for_a_database_that_is_away(monkeypatch):
    def refuse(work):
        raise OperationalError("away")

    account = await db.run(make_account)
    async with gateway.running() as opened:
        note_quota(opened, account)
        with monkeypatch.context() as patch:
            patch.setattr(db, "run_apart", refuse)
            with pytest.raises(OperationalError):
                await gateway._write_quotas(opened.quotas)
        await gateway._write_quotas(opened.quotas)

        assert await used() == [0.42]


@pytest.mark.django_db(transaction=True)
async def test_a_quota_that_cannot_be_stored_is_not_tried_for_ever(monkeypatch):
    def refuse(work):
        raise DataError("no such character")

    account = await db.run(make_account)
    async with gateway.running() as opened:
        note_quota(opened, account)
        with monkeypatch.context() as patch:
            patch.setattr(db, "run_apart", refuse)
            with pytest.raises(DataError):
                await gateway._write_quotas(opened.quotas)

        assert opened.quotas.take() == []


# --- what accounts bear


ACCOUNT = Judgement(Blame.ACCOUNT, "why", step=Step.HOP)
UNTIL = timedelta(hours=1)


def charge(it, account, judgement, **effect):
    until = datetime.now(UTC) + UNTIL
    judgement = replace(judgement, until=until, **effect)
    it.charge(account, judgement, "claude-opus-5-5", False)
    return until


def who_serves(it, model=None):
    now = datetime.now(UTC)
    accounts = it.snapshot.contents.accounts
    return [a.id for a in accounts if it.benches.why_not(a, model, now) is None]


async def stored_status():
    account = await db.run(Account.objects.get)
    return account.status


@pytest.fixture
async def stored(it):
    """The gateway, and its only account as it is in the database."""
    account = await db.run(make_account)
    await it.snapshot.refresh()
    return it, it.snapshot.find(account.pk)


@pytest.mark.django_db(transaction=True)
async def test_a_limit_counts_at_once_and_is_written_down(stored):
    it, account = stored
    until = charge(it, account, ACCOUNT, effect=Effect.LIMIT)

    exclusion = it.benches.why_not(account, None, datetime.now(UTC))
    assert exclusion.until == until
    await it.settle()
    assert it.snapshot.find(account.id).rate_limited_until == until
    assert await stored_status() == AccountStatus.RATE_LIMITED


@pytest.mark.django_db(transaction=True)
async def test_a_refusal_counts_at_once_and_is_written_down(stored):
    it, account = stored
    charge(it, account, ACCOUNT, effect=Effect.REFUSE)

    assert who_serves(it) == []
    await it.settle()
    assert await stored_status() == AccountStatus.INVALID


@pytest.mark.parametrize(
    ("effect", "for_opus", "for_haiku"),
    [
        (Effect.COOL, [2, 3], [2, 3]),
        (Effect.COOL_GROUP, [2, 3], [1, 2, 3]),
        (Effect.COOL_LINE, [2, 3], [1, 2, 3]),
        (Effect.LACK_MODEL, [2, 3], [1, 2, 3]),
        (Effect.NOTHING, [1, 2, 3], [1, 2, 3]),
        (Effect.TROUBLE, [1, 2, 3], [1, 2, 3]),
    ],
)
async def test_short_matters_stay_in_memory(it, effect, for_opus, for_haiku):
    charge(it, pooled(1), ACCOUNT, effect=effect, line="opus")

    assert who_serves(it, "claude-opus-5-5") == for_opus
    assert who_serves(it, "claude-haiku-5-5") == for_haiku
    await it.settle()


async def test_trouble_in_a_row_sets_an_account_aside_while_others_serve(it):
    it.benches.succeed(2, datetime.now(UTC))
    for _ in range(3):
        it.charge(
            pooled(1), Judgement(Blame.UPSTREAM, "500", Effect.TROUBLE), None, False
        )

    assert who_serves(it) == [2, 3]


@pytest.mark.parametrize("blame", [Blame.REQUEST, Blame.MODEL])
async def test_what_is_not_the_accounts_clears_it(it, blame):
    it.benches.succeed(2, datetime.now(UTC))
    trouble = Judgement(Blame.NETWORK, "network", Effect.TROUBLE)
    for _ in range(2):
        it.charge(pooled(1), trouble, None, False)
    it.charge(pooled(1), Judgement(blame, "why"), None, False)
    it.charge(pooled(1), trouble, None, False)

    assert who_serves(it) == [1, 2, 3]


@pytest.mark.django_db(transaction=True)
async def test_a_worker_follows_the_operators_settings(settings):
    settings.RETRY_MAX_ATTEMPTS = 2
    async with gateway.running() as opened:
        assert opened.policy.max_attempts == 2
