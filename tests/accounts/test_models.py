from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction

from accounts import lifecycle
from accounts.models import Account, AccountEvent
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret
from tests.factories import NOW, make_account

pytestmark = pytest.mark.django_db

SECRET = Secret("sk-ant-x")


@pytest.mark.parametrize(
    ("constraint", "change"),
    [
        ("account_status_is_known", {"status": "sleeping"}),
        ("account_kind_is_known", {"kind": "cookie", "access_token": SECRET}),
        ("account_deadline_means_rate_limited", {"rate_limited_until": NOW}),
        ("account_deadline_means_rate_limited", {"status": "rate_limited"}),
        (
            "account_deadline_means_rate_limited",
            {"status": "invalid", "rate_limited_until": NOW},
        ),
        ("account_credential_fits_kind", {"api_key": None}),
        ("account_credential_fits_kind", {"kind": "oauth"}),
        (
            "account_credential_fits_kind",
            {"api_key": None, "access_token": SECRET},
        ),
    ],
)
def test_the_database_refuses_an_impossible_account(constraint, change):
    make_account()
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Account.objects.update(**change)


@pytest.mark.parametrize("kind", AccountKind)
@pytest.mark.parametrize("status", AccountStatus)
def test_every_kind_can_have_every_status(kind, status):
    make_account(kind=kind, status=status)

    assert Account.objects.filter(kind=kind, status=status).exists()


def test_a_name_is_taken_once():
    make_account("ada")
    with pytest.raises(IntegrityError), transaction.atomic():
        make_account("ada")


@pytest.mark.parametrize("kind", AccountKind)
def test_the_credential_is_what_the_kind_shows_the_upstream(kind):
    account = make_account(kind=kind, secret="sk-ant-shown")

    assert account.credential == Secret("sk-ant-shown")


def test_an_account_shows_its_name_and_no_secret():
    account = make_account("ada", secret="sk-ant-shown")

    assert str(account) == "ada"
    assert "sk-ant-shown" not in repr(account)


def test_events_outlive_their_account():
    account = make_account()
    lifecycle.record_added(account, actor="grace", now=NOW)
    account.delete()
    (event,) = AccountEvent.objects.all()

    assert event.account is None
    assert event.account_name == "ada"


def test_the_newest_event_comes_first():
    account = make_account()
    lifecycle.record_added(account, actor="grace", now=NOW)
    lifecycle.deactivate(account, actor="grace", reason="a", now=NOW)
    lifecycle.activate(account, actor="grace", reason="b", now=NOW - timedelta(days=1))

    assert [event.reason for event in account.events.all()] == ["a", "added", "b"]


def limited(name, until):
    make_account(name, status=AccountStatus.RATE_LIMITED, rate_limited_until=until)


def test_a_limit_that_has_run_out_counts_as_usable():
    limited("over", NOW)
    limited("not over", NOW + timedelta(seconds=1))
    make_account("active")
    make_account("inactive", status=AccountStatus.INACTIVE)
    make_account("invalid", status=AccountStatus.INVALID)

    usable = Account.objects.usable(NOW)
    assert [account.name for account in usable] == ["active", "over"]


def test_what_needs_a_person_comes_first():
    limited("c limited", NOW)
    make_account("d active")
    make_account("b inactive", status=AccountStatus.INACTIVE)
    make_account("z invalid", status=AccountStatus.INVALID)
    make_account("a active")

    assert [account.name for account in Account.objects.most_urgent_first()] == [
        "z invalid",
        "c limited",
        "b inactive",
        "a active",
        "d active",
    ]


def test_every_status_is_counted():
    make_account("a")
    make_account("b")
    make_account("c", status=AccountStatus.INVALID)

    assert Account.objects.count_by_status() == {
        AccountStatus.ACTIVE: 2,
        AccountStatus.INACTIVE: 0,
        AccountStatus.RATE_LIMITED: 0,
        AccountStatus.INVALID: 1,
    }
