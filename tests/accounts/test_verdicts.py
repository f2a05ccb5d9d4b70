from datetime import timedelta

import pytest
from django.utils import timezone

from accounts import verdicts
from accounts.models import Account, AccountEvent
from accounts.status import AccountStatus
from claudeproxy.crypto import Secret
from tests.factories import make_account

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
MINE = Secret("sk-ant-of-ada")
LIMITED = AccountStatus.RATE_LIMITED


def stored():
    return Account.objects.get()


def test_a_limit_takes_an_active_account_out_until_it_ends():
    account = make_account()
    until = timezone.now() + HOUR

    assert verdicts.limit(account.pk, until, "plan limit spent") is True
    assert stored().status == LIMITED
    assert stored().rate_limited_until == until
    (event,) = AccountEvent.objects.all()
    assert (event.actor, event.reason) == ("gateway", "plan limit spent")


@pytest.mark.parametrize("status", [AccountStatus.INACTIVE, AccountStatus.INVALID])
def test_a_limit_says_nothing_about_an_account_that_is_out(status):
    account = make_account(status=status)

    assert verdicts.limit(account.pk, timezone.now() + HOUR, "limit") is False
    assert stored().status == status


def test_a_limit_that_is_known_stays_as_it_is():
    until = timezone.now() + HOUR
    account = make_account(status=LIMITED, rate_limited_until=until)

    assert verdicts.limit(account.pk, until + HOUR, "limit") is False
    assert stored().rate_limited_until == until


def test_a_new_limit_follows_one_whose_end_nobody_has_written_down():
    now = timezone.now()
    account = make_account(status=LIMITED, rate_limited_until=now - HOUR)

    assert verdicts.limit(account.pk, now + HOUR, "limit") is True
    assert stored().rate_limited_until == now + HOUR
    moves = AccountEvent.objects.order_by("pk").values_list("from_status", "to_status")
    assert list(moves) == [("rate_limited", "active"), ("active", "rate_limited")]


@pytest.mark.parametrize("status", [AccountStatus.ACTIVE, LIMITED])
def test_a_refused_credential_takes_its_account_out(status):
    account = make_account(status=status)

    assert verdicts.refuse(account.pk, MINE, "credential refused") is True
    assert stored().status == AccountStatus.INVALID


def test_a_credential_that_was_replaced_meanwhile_is_not_the_accounts():
    account = make_account()

    assert verdicts.refuse(account.pk, Secret("sk-ant-before"), "refused") is False
    assert stored().status == AccountStatus.ACTIVE


@pytest.mark.parametrize("status", [AccountStatus.INACTIVE, AccountStatus.INVALID])
def test_a_refusal_says_nothing_about_an_account_that_is_out(status):
    account = make_account(status=status)

    assert verdicts.refuse(account.pk, MINE, "refused") is False
    assert stored().status == status


def test_a_verdict_on_an_account_that_is_gone_changes_nothing():
    assert verdicts.limit(404, timezone.now() + HOUR, "limit") is False
    assert verdicts.refuse(404, MINE, "refused") is False
