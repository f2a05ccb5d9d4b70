from datetime import timedelta

import pytest
from django.utils import timezone

from accounts import lifecycle, upkeep
from accounts.models import Account, AccountEvent
from accounts.status import AccountStatus
from accounts.tokens import Outcome
from tests.accounts import provider
from tests.factories import NOW, make_account

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
THRESHOLD = timedelta(hours=168)
LIMITED = AccountStatus.RATE_LIMITED


@pytest.fixture
def sandbox(claude, settings):
    return provider.configure(settings, claude)


def names(accounts):
    return [account.name for account in accounts]


# --- rate limits


def test_a_rate_limit_ends_at_its_deadline_and_not_before():
    make_account("over", status=LIMITED, rate_limited_until=NOW)
    make_account("not over", status=LIMITED, rate_limited_until=NOW + SECOND)

    assert names(upkeep.recover_limited(now=NOW)) == ["over"]
    assert Account.objects.get(name="not over").status == LIMITED


def test_a_recovery_says_when_the_limit_ended():
    until = NOW - 7 * MINUTE
    make_account(status=LIMITED, rate_limited_until=until)
    upkeep.recover_limited(now=NOW)
    row = Account.objects.get()
    event = AccountEvent.objects.get()

    assert (row.status, row.rate_limited_until) == (AccountStatus.ACTIVE, None)
    assert (row.recovered_at, row.status_changed_at) == (until, NOW)
    assert (event.actor, event.reason) == ("upkeep", "rate limit ended")


@pytest.mark.parametrize(
    "status", [AccountStatus.ACTIVE, AccountStatus.INACTIVE, AccountStatus.INVALID]
)
def test_only_what_is_rate_limited_recovers(status):
    make_account(status=status)

    assert upkeep.recover_limited(now=NOW + 999 * HOUR) == []
    assert Account.objects.get().status == status


# --- idle accounts


@pytest.fixture
def _idle_after_a_week(settings):
    settings.ACCOUNTS_AUTO_DEACTIVATE = True
    settings.ACCOUNTS_IDLE_THRESHOLD = THRESHOLD


def idle(now=NOW + THRESHOLD):
    """Which accounts are switched off; they are all added at NOW."""
    return names(upkeep.deactivate_idle(now=now))


@pytest.mark.usefixtures("_idle_after_a_week")
@pytest.mark.parametrize(
    ("now", "is_idle"),
    [
        (NOW + THRESHOLD - SECOND, False),
        (NOW + THRESHOLD, True),
        (NOW + THRESHOLD + HOUR, True),
    ],
)
def test_an_account_that_never_served_is_idle_a_week_after_it_came(now, is_idle):
    make_account()

    assert idle(now) == (["ada"] if is_idle else [])


@pytest.mark.usefixtures("_idle_after_a_week")
@pytest.mark.parametrize(
    ("unused_for", "is_idle"),
    [(THRESHOLD - SECOND, False), (THRESHOLD, True), (2 * THRESHOLD, True)],
)
def test_an_account_is_idle_a_week_after_it_served_last(unused_for, is_idle):
    now = NOW + 9 * THRESHOLD
    make_account(last_used_at=now - unused_for)

    assert idle(now) == (["ada"] if is_idle else [])


@pytest.mark.usefixtures("_idle_after_a_week")
def test_an_idle_account_becomes_inactive_with_a_reason():
    make_account()
    idle()
    row = Account.objects.get()
    event = AccountEvent.objects.get()

    assert row.status == AccountStatus.INACTIVE
    assert row.status_reason == event.reason == "idle: unused for 7d"
    assert (event.actor, event.from_status) == ("upkeep", "active")


@pytest.mark.usefixtures("_idle_after_a_week")
def test_activating_begins_a_new_week():
    make_account()
    idle()
    later = NOW + THRESHOLD + HOUR
    account = Account.objects.get()
    lifecycle.activate(account, actor="grace", reason="again", now=later)

    assert idle(later + THRESHOLD - SECOND) == []
    assert idle(later + THRESHOLD) == ["ada"]


@pytest.mark.usefixtures("_idle_after_a_week")
def test_recovering_begins_a_new_week():
    make_account(status=LIMITED, rate_limited_until=NOW + 2 * HOUR)
    upkeep.recover_limited(now=NOW + 3 * HOUR)

    assert idle(NOW + 3 * HOUR + THRESHOLD - SECOND) == []
    assert idle(NOW + 3 * HOUR + THRESHOLD) == ["ada"]


@pytest.mark.usefixtures("_idle_after_a_week")
@pytest.mark.parametrize(
    "status", [LIMITED, AccountStatus.INACTIVE, AccountStatus.INVALID]
)
def test_only_active_accounts_are_idle(status):
    make_account(status=status)

    assert idle() == []
    assert Account.objects.get().status == status


@pytest.mark.usefixtures("_idle_after_a_week")
def test_who_served_stays_among_the_idle():
    make_account("busy", last_used_at=NOW + THRESHOLD - MINUTE)
    make_account("idle")

    assert idle() == ["idle"]


def test_nobody_is_switched_off_unless_that_is_wanted(settings):
    settings.ACCOUNTS_AUTO_DEACTIVATE = False
    make_account()

    assert idle(NOW + 999 * THRESHOLD) == []
    assert Account.objects.get().status == AccountStatus.ACTIVE


# --- tokens


def test_tokens_are_refreshed_before_the_hourly_job_comes_again(sandbox):
    soon = provider.signed_in(sandbox, "dorothy", ends_in=74 * MINUTE)
    late = provider.signed_in(sandbox, "radia", ends_in=77 * MINUTE)
    found = dict(upkeep.refresh_tokens([soon, late]))

    assert found[soon].outcome is Outcome.REFRESHED
    assert found[late].outcome is Outcome.STILL_FRESH


def test_an_account_that_fails_does_not_keep_the_next_from_its_refresh(sandbox):
    first = provider.signed_in(sandbox, "dorothy")
    second = provider.signed_in(sandbox, "radia")
    provider.script(sandbox, {"status": 500})
    found = dict(upkeep.refresh_tokens([first, second]))

    assert found[first].outcome is Outcome.FAILED
    assert found[second].outcome is Outcome.REFRESHED


def due(now):
    found = Account.objects.due_for_refresh(now, upkeep.REFRESH_AHEAD)
    return names(found)


@pytest.mark.parametrize(
    ("fields", "is_due"),
    [
        ({}, True),
        ({"status": LIMITED}, True),
        ({"ends_in": -HOUR}, True),
        ({"ends_in": 76 * MINUTE}, False),
        ({"status": AccountStatus.INACTIVE}, False),
        ({"status": AccountStatus.INVALID}, False),
        ({"refresh_token": None}, False),
        ({"refresh_retry_at": timezone.now() + HOUR}, False),
        ({"refresh_retry_at": timezone.now() - HOUR}, True),
    ],
)
def test_accounts_in_use_are_due_when_their_token_ends_soon(sandbox, fields, is_due):
    provider.signed_in(sandbox, **fields)
    make_account("with a key")

    assert due(timezone.now()) == (["dorothy"] if is_due else [])


# --- models


def test_models_are_read_with_a_token_that_is_refreshed_first(sandbox):
    account = provider.signed_in(sandbox, ends_in=-HOUR)
    sandbox.oauth.expire_access_tokens("dorothy")

    assert upkeep.look_at_capabilities(account) is True
    assert Account.objects.get().capabilities


def test_models_that_cannot_be_read_are_told(sandbox):
    account = provider.signed_in(sandbox, ends_in=HOUR)
    sandbox.script.add("dorothy", {"path": "/v1/models", "status": 500})

    assert upkeep.look_at_capabilities(account) is False


def test_an_account_deleted_meanwhile_has_no_models_and_is_not_made_again(sandbox):
    account = provider.signed_in(sandbox, ends_in=HOUR)
    Account.objects.all().delete()
    upkeep.look_at_capabilities(account)

    assert not Account.objects.exists()
