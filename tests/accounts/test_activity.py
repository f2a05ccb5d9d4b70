from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts import activity
from accounts.activity import Activity
from accounts.models import Account
from tests.factories import NOW, make_account

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def test_what_was_used_is_due_at_once_and_then_once_a_minute():
    it = Activity()
    due = []
    for seconds in range(0, 181, 5):
        now = NOW + seconds * SECOND
        it.note(1, now)
        due += [(seconds, used - NOW) for used in it.take_due(now).values()]

    assert due == [(s, s * SECOND) for s in (0, 60, 120, 180)]


def test_the_latest_use_counts():
    it = Activity()
    it.note(1, NOW)
    it.note(1, NOW + SECOND)

    assert it.take_due(NOW + 5 * SECOND) == {1: NOW + SECOND}


def test_what_was_not_used_is_not_due():
    it = Activity()
    it.note(1, NOW)
    it.take_due(NOW)

    assert it.take_due(NOW + HOUR) == {}


def test_accounts_are_due_each_at_its_own_time():
    it = Activity()
    it.note(1, NOW)
    it.take_due(NOW)
    it.note(1, NOW + 30 * SECOND)
    it.note(2, NOW + 30 * SECOND)

    assert list(it.take_due(NOW + 30 * SECOND)) == [2]
    assert list(it.take_due(NOW + MINUTE)) == [1]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("stored", "after"),
    [
        (None, NOW),
        (NOW - HOUR, NOW),
        (NOW - MINUTE, NOW),
        (NOW - MINUTE + SECOND, NOW - MINUTE + SECOND),
        (NOW + SECOND, NOW + SECOND),
    ],
)
def test_a_use_is_stored_unless_another_is_in_the_same_minute(stored, after):
    account = make_account(last_used_at=stored)
    activity.write({account.pk: NOW})

    assert Account.objects.get().last_used_at == after


@pytest.mark.django_db
def test_storing_a_use_changes_nothing_else():
    account = make_account()
    before = Account.objects.values().get()
    activity.write({account.pk: NOW, account.pk + 1: NOW})

    assert Account.objects.values().get() == {**before, "last_used_at": NOW}


def written():
    """The rows that the statements of a test have changed."""
    rows: list[int] = []

    def count(execute, sql, params, many, context):
        cursor = execute(sql, params, many, context)
        if sql.startswith("UPDATE"):
            rows.append(context["cursor"].rowcount)
        return cursor

    return rows, count


@pytest.mark.django_db
def test_two_workers_write_an_account_once_a_minute_between_them():
    account = make_account()
    workers = [Activity(), Activity()]
    rows, count = written()
    with connection.execute_wrapper(count):
        # Both are busy for ten minutes, and look every five seconds, not in step.
        for seconds in range(600):
            now = NOW + seconds * SECOND
            for number, worker in enumerate(workers):
                worker.note(account.pk, now)
                if seconds % 5 == 2 * number:
                    activity.write(worker.take_due(now))

    assert sum(rows) == 10
    assert len(rows) <= 20


@pytest.mark.django_db
def test_a_worker_asks_the_database_once_a_minute_for_each_account():
    accounts = [make_account(name) for name in "abc"]
    it = Activity()
    with CaptureQueriesContext(
        connection,
    ) as queries:
        for seconds in range(0, 60, 5):
            for account in accounts:
                it.note(account.pk, NOW + seconds * SECOND)
            activity.write(it.take_due(NOW + seconds * SECOND))

    assert len(queries) == 3
