from datetime import timedelta
from typing import Any, cast

import pytest
from django.db import DatabaseError, IntegrityError, transaction

from accounts import lifecycle
from accounts.errors import IllegalMoveError
from accounts.models import Account, AccountEvent
from accounts.status import AccountStatus
from tests.factories import NOW, make_account

pytestmark = pytest.mark.django_db

MINUTE = timedelta(minutes=1)
LATER = NOW + MINUTE
UNTIL = NOW + timedelta(hours=5)
ACTIVE, INACTIVE, LIMITED, INVALID = (
    AccountStatus.ACTIVE,
    AccountStatus.INACTIVE,
    AccountStatus.RATE_LIMITED,
    AccountStatus.INVALID,
)

# Written out, and not read from the code: this is the promise.
MOVES = {
    ("activate", INACTIVE): ACTIVE,
    ("activate", LIMITED): ACTIVE,
    ("activate", INVALID): ACTIVE,
    ("deactivate", ACTIVE): INACTIVE,
    ("deactivate", LIMITED): INACTIVE,
    ("deactivate", INVALID): INACTIVE,
    ("limit", ACTIVE): LIMITED,
    ("recover", LIMITED): ACTIVE,
    ("invalidate", ACTIVE): INVALID,
    ("invalidate", LIMITED): INVALID,
}
VERBS = ("activate", "deactivate", "limit", "recover", "invalidate")
TARGETS = {
    "activate": ACTIVE,
    "deactivate": INACTIVE,
    "limit": LIMITED,
    "recover": ACTIVE,
    "invalidate": INVALID,
}
LEGAL = list(MOVES)
ILLEGAL = [(v, s) for v in VERBS for s in AccountStatus if (v, s) not in MOVES]


def move(verb, account, reason="because"):
    asked = {"actor": "grace", "now": LATER}
    if verb != "recover":
        asked["reason"] = reason
    if verb == "limit":
        asked["until"] = UNTIL
    return getattr(lifecycle, verb)(account, **asked)


@pytest.mark.parametrize(("verb", "source"), LEGAL)
def test_an_allowed_move_is_made_and_leaves_one_event(verb, source):
    account = make_account(status=source)

    assert move(verb, account) is True

    (event,) = AccountEvent.objects.all()
    assert event.account == account
    assert (event.from_status, event.to_status) == (source, MOVES[verb, source])
    assert (event.account_name, event.actor) == ("ada", "grace")
    reason = "rate limit ended" if verb == "recover" else "because"
    assert (event.reason, event.at) == (reason, LATER)


@pytest.mark.parametrize(("verb", "source"), LEGAL)
def test_a_move_is_in_the_row_and_in_the_object(verb, source):
    account = make_account(status=source)
    move(verb, account)
    row = Account.objects.get()

    for it in (account, row):
        assert it.status == MOVES[verb, source]
        assert it.status_reason == AccountEvent.objects.get().reason
        assert it.status_changed_at == LATER
        assert it.rate_limited_until == (UNTIL if verb == "limit" else None)
    assert row.updated_at == LATER
    assert row.credential == account.credential


@pytest.mark.parametrize(("verb", "source"), ILLEGAL)
def test_a_move_that_is_not_allowed_changes_nothing(verb, source):
    account = make_account(status=source)
    before = Account.objects.values().get()
    words = f"'ada' cannot go from {source} to {TARGETS[verb]}"
    with pytest.raises(IllegalMoveError, match=words):
        move(verb, account)

    assert Account.objects.values().get() == before
    assert account.status == source
    assert not AccountEvent.objects.exists()


@pytest.mark.parametrize(("verb", "source"), LEGAL)
def test_losing_a_race_is_an_answer_and_leaves_no_event(verb, source):
    account = make_account(status=source)
    other = next(s for s in AccountStatus if s not in {source, MOVES[verb, source]})
    until = LATER if other == LIMITED else None
    Account.objects.update(status=other, rate_limited_until=until)

    assert move(verb, account) is False
    assert Account.objects.get().status == other
    assert account.status == source
    assert not AccountEvent.objects.exists()


@pytest.mark.parametrize("first", ["deactivate", "limit", "invalidate"])
@pytest.mark.parametrize("second", ["deactivate", "limit", "invalidate"])
def test_of_two_who_move_at_once_one_wins(first, second):
    make_account()
    mine, theirs = Account.objects.get(), Account.objects.get()

    assert move(first, mine) is True
    assert move(second, theirs) is False
    assert Account.objects.get().status == TARGETS[first]
    assert AccountEvent.objects.count() == 1


def test_an_account_that_was_deleted_cannot_be_moved():
    account = make_account()
    Account.objects.all().delete()

    assert move("deactivate", account) is False
    assert not AccountEvent.objects.exists()


def test_a_move_without_its_event_is_not_made():
    account = make_account()
    with pytest.raises((IntegrityError, DatabaseError)):
        lifecycle.deactivate(account, actor=cast(str, None), reason="x", now=LATER)

    assert account.status == ACTIVE


def test_a_long_reason_is_cut():
    account = make_account()
    move("deactivate", account, reason="x" * 1000)

    assert Account.objects.get().status_reason == "x" * 300
    assert AccountEvent.objects.get().reason == "x" * 300


def test_a_new_account_has_a_first_event():
    account = make_account()
    lifecycle.record_added(account, actor="grace", now=NOW)
    (event,) = AccountEvent.objects.all()

    assert (event.from_status, event.to_status) == ("", "active")
    assert (event.reason, event.from_label) == ("added", "new")
    assert str(event) == "ada: new → active"


# --- deadlines


def test_a_limit_needs_a_deadline():
    account = make_account()
    no_deadline: Any = None
    with pytest.raises(IntegrityError), transaction.atomic():
        lifecycle.limit(account, until=no_deadline, actor="x", reason="429", now=NOW)

    assert Account.objects.get().status == ACTIVE
    assert not AccountEvent.objects.exists()


@pytest.mark.parametrize("status", [ACTIVE, INACTIVE, INVALID])
def test_nothing_but_a_limit_has_a_deadline(status):
    make_account(status=status)
    with pytest.raises(IntegrityError), transaction.atomic():
        Account.objects.update(rate_limited_until=UNTIL)


def test_a_recovery_dates_from_the_end_of_the_limit():
    account = make_account(status=LIMITED, rate_limited_until=NOW - MINUTE)
    move("recover", account)

    assert Account.objects.get().recovered_at == NOW - MINUTE


def test_a_limit_that_an_admin_ends_is_recovered_from_now_on():
    account = make_account(status=LIMITED, rate_limited_until=UNTIL)
    move("activate", account)

    assert Account.objects.get().recovered_at == LATER


@pytest.mark.parametrize("source", [INACTIVE, INVALID])
def test_what_was_not_limited_does_not_count_as_recovered(source):
    account = make_account(status=source)
    move("activate", account)

    assert Account.objects.get().recovered_at is None
