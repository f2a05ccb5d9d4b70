from datetime import timedelta
from typing import cast

import pytest
from django.db import DatabaseError, IntegrityError

from accounts import lifecycle
from accounts.errors import IllegalMoveError
from accounts.models import Account, AccountEvent
from accounts.status import ALLOWED_MOVES, AccountStatus
from tests.factories import NOW, make_account

pytestmark = pytest.mark.django_db

LATER = NOW + timedelta(minutes=1)
VERBS = {
    lifecycle.activate: AccountStatus.ACTIVE,
    lifecycle.deactivate: AccountStatus.INACTIVE,
}
PAIRS = [(verb, source) for verb in VERBS for source in AccountStatus]
LEGAL = [(verb, s) for verb, s in PAIRS if VERBS[verb] in ALLOWED_MOVES[s]]
ILLEGAL = [pair for pair in PAIRS if pair not in LEGAL]


def move(verb, account, reason="because"):
    return verb(account, actor="grace", reason=reason, now=LATER)


@pytest.mark.parametrize(("verb", "source"), LEGAL)
def test_an_allowed_move_is_made_and_leaves_one_event(verb, source):
    account = make_account(status=source)

    assert move(verb, account) is True

    (event,) = AccountEvent.objects.all()
    assert event.account == account
    assert (event.from_status, event.to_status) == (source, VERBS[verb])
    assert (event.account_name, event.actor) == ("ada", "grace")
    assert (event.reason, event.at) == ("because", LATER)


@pytest.mark.parametrize(("verb", "source"), LEGAL)
def test_a_move_is_in_the_row_and_in_the_object(verb, source):
    account = make_account(status=source)
    move(verb, account)
    row = Account.objects.get()

    for it in (account, row):
        assert it.status == VERBS[verb]
        assert it.status_reason == "because"
        assert it.status_changed_at == LATER
        assert it.rate_limited_until is None
    assert row.updated_at == LATER
    assert row.credential == account.credential


@pytest.mark.parametrize(("verb", "source"), ILLEGAL)
def test_a_move_that_is_not_allowed_changes_nothing(verb, source):
    account = make_account(status=source)
    words = f"'ada' cannot go from {source} to {VERBS[verb]}"
    with pytest.raises(IllegalMoveError, match=words):
        move(verb, account)

    assert Account.objects.get().status == source
    assert Account.objects.get().status_changed_at == NOW
    assert not AccountEvent.objects.exists()


@pytest.mark.parametrize(("verb", "source"), LEGAL)
def test_losing_a_race_is_an_answer_and_leaves_no_event(verb, source):
    account = make_account(status=source)
    other = next(s for s in AccountStatus if s not in {source, VERBS[verb]})
    until = LATER if other == AccountStatus.RATE_LIMITED else None
    Account.objects.update(status=other, rate_limited_until=until)

    assert move(verb, account) is False
    assert Account.objects.get().status == other
    assert account.status == source
    assert not AccountEvent.objects.exists()


def test_of_two_who_move_at_once_one_wins():
    make_account()
    first, second = Account.objects.get(), Account.objects.get()

    assert move(lifecycle.deactivate, first) is True
    assert move(lifecycle.deactivate, second) is False
    assert AccountEvent.objects.count() == 1


def test_an_account_that_was_deleted_cannot_be_moved():
    account = make_account()
    Account.objects.all().delete()

    assert move(lifecycle.deactivate, account) is False
    assert not AccountEvent.objects.exists()


def test_a_move_without_its_event_is_not_made():
    account = make_account()
    with pytest.raises((IntegrityError, DatabaseError)):
        lifecycle.deactivate(account, actor=cast(str, None), reason="x", now=LATER)

    assert account.status == AccountStatus.ACTIVE


def test_a_long_reason_is_cut():
    account = make_account()
    move(lifecycle.deactivate, account, reason="x" * 1000)

    assert Account.objects.get().status_reason == "x" * 300
    assert AccountEvent.objects.get().reason == "x" * 300


def test_a_new_account_has_a_first_event():
    account = make_account()
    lifecycle.record_added(account, actor="grace", now=NOW)
    (event,) = AccountEvent.objects.all()

    assert (event.from_status, event.to_status) == ("", "active")
    assert (event.reason, event.from_label) == ("added", "new")
    assert str(event) == "ada: new → active"
