import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from django.db import OperationalError, connection
from django.utils import timezone
from structlog.testing import capture_logs

from accounts import lifecycle, oauth, tasks, tokens, upkeep
from accounts.errors import NoTokenReplyError, TokenRefusedError
from accounts.models import Account, AccountEvent
from accounts.oauth import TokenSet
from accounts.status import AccountKind, AccountStatus
from accounts.tokens import Outcome
from claudeproxy.crypto import Secret
from tests.accounts import provider
from tests.accounts.provider import access_token, signed_in
from tests.end_to_end.waiting import until
from tests.factories import make_account

pytestmark = pytest.mark.django_db

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
UNUSABLE = Secret("never used")


@pytest.fixture
def sandbox(claude, settings):
    return provider.configure(settings, claude)


def shifted(by):
    """A clock that is ahead of the real one."""
    return lambda: timezone.now() + by


def stored() -> Any:
    """The account as it is now."""
    return Account.objects.get()


def now_and(**fields):
    """Has the account these values now?"""
    row = stored()
    return {name: getattr(row, name) for name in fields} == fields


def pair(access="new", refresh="new-refresh", ends_in=HOUR):
    return TokenSet(
        Secret(access), refresh and Secret(refresh), timezone.now() + ends_in
    )


def refusing(_):
    raise TokenRefusedError("400 invalid_grant: it was revoked")


def failing(_):
    raise NoTokenReplyError("503 server_error")


def never(_):
    pytest.fail("a refresh token was sent")


# --- when


@pytest.mark.parametrize(
    ("ends_in", "outcome"),
    [
        (MINUTE + 5 * SECOND, Outcome.STILL_FRESH),
        (MINUTE, Outcome.REFRESHED),
        (timedelta(0), Outcome.REFRESHED),
        (-HOUR, Outcome.REFRESHED),
    ],
)
def test_a_token_is_refreshed_in_its_last_minute(sandbox, ends_in, outcome):
    account = signed_in(sandbox, ends_in=ends_in)

    assert tokens.ensure_fresh(account.pk).outcome is outcome
    assert len(provider.outcomes(sandbox)) == (outcome is Outcome.REFRESHED)


def test_how_much_life_is_enough_is_up_to_who_asks(sandbox):
    account = signed_in(sandbox, ends_in=HOUR)

    assert tokens.ensure_fresh(account.pk).outcome is Outcome.STILL_FRESH
    assert tokens.ensure_fresh(account.pk, margin=2 * HOUR).outcome is Outcome.REFRESHED


def test_force_refreshes_a_fresh_token(sandbox):
    account = signed_in(sandbox, ends_in=HOUR)

    assert tokens.ensure_fresh(account.pk, force=True).outcome is Outcome.REFRESHED


def test_a_token_that_the_upstream_refused_is_refreshed_whatever_its_age(sandbox):
    account = signed_in(sandbox, ends_in=HOUR)
    result = tokens.ensure_fresh(account.pk, refused=account.access_token)

    assert result.outcome is Outcome.REFRESHED


def test_a_refused_token_that_has_been_replaced_is_not_refreshed_again(sandbox):
    account = signed_in(sandbox, ends_in=HOUR)
    result = tokens.ensure_fresh(account.pk, refused=Secret("of before"))

    assert result.outcome is Outcome.STILL_FRESH
    assert provider.outcomes(sandbox) == []


def test_a_refused_token_that_was_replaced_by_one_that_is_dead_is_refreshed(sandbox):
    account = signed_in(sandbox, ends_in=-HOUR)
    result = tokens.ensure_fresh(account.pk, refused=Secret("of before"))

    assert result.outcome is Outcome.REFRESHED


def test_there_is_nothing_to_refresh_in_an_api_key_or_in_what_is_gone():
    account = make_account()

    assert tokens.ensure_fresh(account.pk).outcome is Outcome.GONE
    assert tokens.ensure_fresh(account.pk + 1).outcome is Outcome.GONE


# --- what is kept


def test_a_refresh_stores_the_new_pair_and_forgets_old_trouble(sandbox):
    account = signed_in(
        sandbox, last_refresh_error="before", refresh_failures=3, updated_at=None
    )
    begun_at = timezone.now()
    tokens.ensure_fresh(account.pk)
    row = stored()

    assert row.access_token != account.access_token
    assert row.refresh_token != account.refresh_token
    assert sandbox.oauth.is_family_alive(row.refresh_token.reveal())
    assert row.expires_at - begun_at > 7 * HOUR
    assert row.last_refresh_at >= begun_at
    assert now_and(
        last_refresh_error="",
        refresh_failures=0,
        refresh_retry_at=None,
        sent_refresh_digest="",
        refresh_lease="",
        refresh_lease_until=None,
        status=AccountStatus.ACTIVE,
    )


def test_an_answer_without_a_refresh_token_keeps_the_old_one_in_use(sandbox):
    account = signed_in(sandbox)
    provider.script(sandbox, {"omit_refresh_token": True})
    tokens.ensure_fresh(account.pk)

    assert stored().refresh_token == account.refresh_token
    assert tokens.ensure_fresh(account.pk, force=True).outcome is Outcome.REFRESHED
    assert stored().refresh_token != account.refresh_token


def test_a_token_without_a_stated_life_lives_an_hour(sandbox):
    account = signed_in(sandbox)
    provider.script(sandbox, {"body": {"access_token": "sk-new"}})
    begun_at = timezone.now()
    tokens.ensure_fresh(account.pk)

    assert access_token(account) == "sk-new"
    assert HOUR <= stored().expires_at - begun_at < HOUR + MINUTE


def test_that_a_token_is_sent_is_written_down_before_it_is_sent(sandbox):
    account = signed_in(sandbox)
    seen = []

    def send(refresh_token):
        seen.append(stored().sent_refresh_digest)
        return tokens.send_refresh(refresh_token)

    tokens.ensure_fresh(account.pk, send=send)

    assert seen == [tokens.digest_of(account.refresh_token)]


# --- trouble

TROUBLE = {
    "500": {"status": 500},
    "503": {"status": 503},
    "429": {"status": 429},
    "not our fault": {"status": 400, "error_type": "invalid_client"},
    "scope": {"status": 400, "error_type": "invalid_scope"},
    "401 without a word": {"status": 401, "body": ""},
    "HTML": {"status": 503, "body": "<h1>Be right back</h1>"},
}
UNCLEAR = {
    "502": {"status": 502},
    "504": {"status": 504},
    "reset": {"reset": "before_head"},
    "closed": {"cut_at_byte": "before_head"},
    "cut": {"cut_at_byte": 20},
    "silence": {"hang": "before_head"},
    "answer lost": {"lose_answer": True},
    "HTML": {"body": "<h1>Please log in to the hotel</h1>"},
    "broken JSON": {"body": '{"access_token": "sk-'},
    "no access token": {"body": {"token_type": "Bearer", "expires_in": 3600}},
    "not an object": {"body": ["sk-"]},
}


@pytest.fixture
def _hasty(monkeypatch):
    monkeypatch.setattr(oauth, "_TIMEOUT", httpx.Timeout(0.2))


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step, id=name)
        for steps in (TROUBLE, UNCLEAR)
        for name, step in steps.items()
    ],
)
def test_trouble_is_noted_and_changes_nothing_else(sandbox, step):
    account = signed_in(sandbox)
    provider.script(sandbox, step)
    result = tokens.ensure_fresh(account.pk)
    row = stored()

    assert result.outcome is Outcome.FAILED
    assert row.last_refresh_error == result.message != ""
    assert (row.status, row.refresh_failures) == (AccountStatus.ACTIVE, 1)
    assert (row.access_token, row.refresh_token, row.expires_at) == (
        account.access_token,
        account.refresh_token,
        account.expires_at,
    )
    assert row.refresh_lease_until is None
    assert not AccountEvent.objects.exists()


@pytest.mark.parametrize("step", TROUBLE.values(), ids=TROUBLE)
def test_after_trouble_the_next_attempt_comes_soon(sandbox, step):
    account = signed_in(sandbox, ends_in=HOUR)
    provider.script(sandbox, step)
    tokens.ensure_fresh(account.pk, margin=2 * HOUR)

    assert stored().refresh_retry_at < timezone.now() + MINUTE


@pytest.mark.usefixtures("_hasty")
@pytest.mark.parametrize("step", UNCLEAR.values(), ids=UNCLEAR)
def test_a_token_that_may_be_used_up_is_sent_again_at_its_end_only(sandbox, step):
    account = signed_in(sandbox, ends_in=HOUR)
    provider.script(sandbox, step)
    tokens.ensure_fresh(account.pk, margin=2 * HOUR)

    assert stored().refresh_retry_at == account.expires_at


def test_a_provider_that_cannot_be_reached_was_sent_nothing(sandbox, settings):
    account = signed_in(sandbox, ends_in=HOUR)
    settings.OAUTH_TOKEN_URL = "http://127.0.0.1:9/token"
    result = tokens.ensure_fresh(account.pk, margin=2 * HOUR)

    assert "could not be asked (ConnectError)" in result.message
    assert stored().refresh_retry_at < timezone.now() + MINUTE


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [
        *[(1, 30), (2, 60), (3, 120), (4, 240), (5, 480)],
        *[(6, 900), (7, 900), (20, 900), (10**6, 900)],
    ],
)
def test_the_delay_grows_to_a_quarter_of_an_hour(failures, seconds):
    assert tokens.delay_after(failures) == timedelta(seconds=seconds)


def test_each_failure_in_a_row_waits_longer(sandbox):
    account = signed_in(sandbox, ends_in=-HOUR)
    ahead = timedelta(0)
    waits = []
    for _ in range(4):
        result = tokens.ensure_fresh(account.pk, clock=shifted(ahead), send=failing)
        assert result.outcome is Outcome.FAILED
        left = stored().refresh_retry_at - timezone.now()
        waits.append(round((left - ahead).total_seconds()))
        ahead = left + SECOND

    assert waits == [30, 60, 120, 240]


def test_before_the_delay_is_over_nothing_is_sent(sandbox):
    account = signed_in(sandbox)
    tokens.ensure_fresh(account.pk, send=failing)
    result = tokens.ensure_fresh(account.pk, clock=shifted(25 * SECOND), send=never)

    assert result.outcome is Outcome.POSTPONED
    assert result.message == "503 server_error"


def test_after_the_delay_the_same_token_is_sent_again(sandbox):
    account = signed_in(sandbox)
    tokens.ensure_fresh(account.pk, send=failing)
    result = tokens.ensure_fresh(account.pk, clock=shifted(31 * SECOND))

    assert result.outcome is Outcome.REFRESHED


def test_force_does_not_wait_for_the_delay(sandbox):
    account = signed_in(sandbox)
    tokens.ensure_fresh(account.pk, send=failing)

    assert tokens.ensure_fresh(account.pk, force=True).outcome is Outcome.REFRESHED


def test_an_answer_that_was_lost_is_asked_for_once_more_and_then_a_person(sandbox):
    account = signed_in(sandbox, ends_in=SECOND)
    provider.script(sandbox, {"lose_answer": True})
    first = tokens.ensure_fresh(account.pk)
    second = tokens.ensure_fresh(account.pk, clock=shifted(MINUTE))

    assert (first.outcome, second.outcome) == (Outcome.FAILED, Outcome.INVALID)
    assert provider.outcomes(sandbox) == ["issued", "reused"]
    assert "invalid_grant" in stored().status_reason


# --- refusal


def refused(sandbox, **fields):
    """An account whose refresh token the provider has refused just now."""
    account = signed_in(sandbox, **fields)
    sandbox.oauth.revoke("dorothy")
    result = tokens.ensure_fresh(account.pk)
    assert result.outcome is Outcome.INVALID
    return account


def test_a_refused_refresh_makes_the_account_invalid_with_the_reason(sandbox):
    account = refused(sandbox)
    row = stored()
    (event,) = AccountEvent.objects.all()

    assert row.status == AccountStatus.INVALID
    assert row.status_reason == "400 invalid_grant: refresh_token: revoked"
    assert row.last_refresh_error == row.status_reason
    assert (event.account, event.actor, event.reason) == (
        account,
        "refresh",
        row.status_reason,
    )
    assert (event.from_status, event.to_status) == ("active", "invalid")


def test_an_account_that_is_rate_limited_can_become_invalid_too(sandbox):
    refused(sandbox, status=AccountStatus.RATE_LIMITED)

    assert now_and(status=AccountStatus.INVALID, rate_limited_until=None)


@pytest.mark.parametrize(
    "again",
    [
        lambda pk: tokens.ensure_fresh(pk),
        lambda pk: tokens.ensure_fresh(pk, force=True),
        lambda pk: tokens.ensure_fresh(pk, refused=UNUSABLE),
        lambda pk: tasks.refresh_token(pk),
        lambda pk: tasks.refresh_tokens(),
        lambda pk: list(upkeep.refresh_tokens(Account.objects.all(), force=True)),
    ],
    ids=["request", "forced", "refused", "job", "jobs", "command"],
)
def test_a_refused_token_is_never_sent_again(sandbox, again):
    account = refused(sandbox, ends_in=-HOUR)
    again(account.pk)

    assert provider.outcomes(sandbox) == ["invalid_grant"]


def test_a_refused_token_is_not_sent_even_if_an_admin_activates_the_account(sandbox):
    account = refused(sandbox)
    row = stored()
    lifecycle.activate(row, actor="grace", reason="try", now=timezone.now())
    result = tokens.ensure_fresh(account.pk)

    assert result.outcome is Outcome.INVALID
    assert "refresh_token: revoked" in stored().status_reason
    assert provider.most_sent(sandbox) == 1


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"status": 401, "error_type": "invalid_grant"}, "401 invalid_grant"),
        (
            {
                "status": 403,
                "body": {
                    "type": "error",
                    "error": {
                        "type": "permission_error",
                        "message": "This organization is on hold",
                        "details": {"error_code": "organization_on_hold"},
                    },
                },
            },
            "403 organization_on_hold: This organization is on hold",
        ),
    ],
)
def test_what_only_a_person_can_mend_makes_the_account_invalid(sandbox, step, reason):
    account = signed_in(sandbox)
    provider.script(sandbox, step)
    tokens.ensure_fresh(account.pk)
    row = stored()

    assert row.status == AccountStatus.INVALID
    assert row.status_reason.startswith(reason)


@pytest.mark.parametrize("code", ["invalid_grant", "server_error"])
def test_a_provider_that_quotes_the_token_is_not_quoted(sandbox, code):
    account = signed_in(sandbox)
    text = account.refresh_token.reveal()
    step = {"status": 400, "error_type": code, "error_message": f"no such {text}!"}
    provider.script(sandbox, step)
    with capture_logs() as lines:
        result = tokens.ensure_fresh(account.pk)
    row = stored()
    said = f"{result} {row.status_reason} {row.last_refresh_error} {lines}"

    assert "no such [secret]!" in said
    assert text not in said


def test_signing_in_again_brings_the_same_account_back(sandbox):
    account = refused(sandbox)
    new = provider.token_set(sandbox.oauth.issue("dorothy"))
    provider.sign_in_again(stored(), new)
    row = stored()

    assert (row.pk, row.status) == (account.pk, AccountStatus.ACTIVE)
    assert tokens.ensure_fresh(row.pk, force=True).outcome is Outcome.REFRESHED
    assert [(e.from_status, e.to_status, e.actor) for e in row.events.all()] == [
        ("invalid", "active", "grace"),
        ("active", "invalid", "refresh"),
    ]


# --- without a refresh token


def test_an_account_without_a_refresh_token_is_used_to_its_end(sandbox):
    account = signed_in(sandbox, refresh_token=None)
    result = tokens.ensure_fresh(account.pk, send=never)

    assert result.outcome is Outcome.FAILED
    assert now_and(status=AccountStatus.ACTIVE)


def test_at_its_end_an_account_without_a_refresh_token_is_invalid(sandbox):
    account = signed_in(sandbox, refresh_token=None, ends_in=-SECOND)
    result = tokens.ensure_fresh(account.pk, send=never)

    assert result.outcome is Outcome.INVALID
    assert now_and(status=AccountStatus.INVALID)
    assert "no refresh token" in stored().status_reason


# --- interrupted by a crash


def interrupted(sandbox, **fields):
    """An account as a process leaves it that dies between sending and storing."""
    account = signed_in(sandbox, **fields)
    digest = tokens.digest_of(account.refresh_token)
    Account.objects.update(sent_refresh_digest=digest)
    return account


@pytest.mark.parametrize("force", [False, True])
def test_after_an_interruption_the_old_token_is_used_while_it_lives(sandbox, force):
    account = interrupted(sandbox)
    result = tokens.ensure_fresh(account.pk, force=force, send=never)

    assert result.outcome is Outcome.FAILED
    assert now_and(status=AccountStatus.ACTIVE, refresh_retry_at=account.expires_at)
    assert "interrupted" in stored().last_refresh_error


def test_when_the_old_token_is_dead_an_interrupted_account_is_invalid(sandbox):
    account = interrupted(sandbox, ends_in=-SECOND)
    result = tokens.ensure_fresh(account.pk, send=never)

    assert result.outcome is Outcome.INVALID
    assert "interrupted" in stored().status_reason
    assert AccountEvent.objects.get().to_status == AccountStatus.INVALID


def test_an_answer_that_comes_after_all_brings_the_account_back(sandbox):
    account = signed_in(sandbox, ends_in=-SECOND)

    def send(refresh_token):
        # So slow that another process takes the lease over, and gives up.
        other = tokens.ensure_fresh(account.pk, clock=shifted(2 * MINUTE), send=never)
        assert other.outcome is Outcome.INVALID
        return tokens.send_refresh(refresh_token)

    assert tokens.ensure_fresh(account.pk, send=send).outcome is Outcome.REFRESHED
    assert now_and(status=AccountStatus.ACTIVE, sent_refresh_digest="")
    events = AccountEvent.objects.order_by("pk")
    assert [event.to_status for event in events] == ["invalid", "active"]


def test_an_account_that_is_invalid_for_another_reason_is_not_brought_back(sandbox):
    account = signed_in(sandbox)

    def send(refresh_token):
        lifecycle.invalidate(stored(), actor="x", reason="banned", now=timezone.now())
        return tokens.send_refresh(refresh_token)

    tokens.ensure_fresh(account.pk, send=send)

    assert now_and(status=AccountStatus.INVALID, status_reason="banned")


# --- an admin's word


@pytest.mark.parametrize("send", [tokens.send_refresh, refusing, failing])
def test_an_inactive_account_stays_inactive_however_its_refresh_ends(sandbox, send):
    account = signed_in(sandbox, status=AccountStatus.INACTIVE)
    tokens.ensure_fresh(account.pk, send=send)

    assert now_and(status=AccountStatus.INACTIVE, status_reason="added")
    assert not AccountEvent.objects.exists()


def test_an_inactive_account_stays_inactive_after_an_interruption(sandbox):
    account = interrupted(sandbox, status=AccountStatus.INACTIVE, ends_in=-SECOND)
    tokens.ensure_fresh(account.pk)

    assert now_and(status=AccountStatus.INACTIVE)


@pytest.mark.parametrize("end", [pair, lambda: refusing(None), lambda: failing(None)])
def test_an_account_switched_off_during_its_refresh_stays_so(sandbox, end):
    account = signed_in(sandbox)

    def send(_):
        lifecycle.deactivate(stored(), actor="grace", reason="off", now=timezone.now())
        return end()

    tokens.ensure_fresh(account.pk, send=send)

    assert now_and(status=AccountStatus.INACTIVE, status_reason="off")


def test_a_refusal_counts_whatever_the_account_became_meanwhile(sandbox):
    account = signed_in(sandbox)

    def send(_):
        until = timezone.now() + HOUR
        lifecycle.limit(
            stored(),
            until=until,
            actor="x",
            reason="429",
            now=timezone.now(),
        )
        return refusing(_)

    tokens.ensure_fresh(account.pk, send=send)

    assert now_and(status=AccountStatus.INVALID, rate_limited_until=None)


# --- deleted, or signed in again, meanwhile


@pytest.mark.parametrize("end", [pair, lambda: refusing(None), lambda: failing(None)])
def test_an_account_deleted_during_its_refresh_stays_deleted(sandbox, end):
    account = signed_in(sandbox)

    def send(_):
        Account.objects.all().delete()
        return end()

    assert tokens.ensure_fresh(account.pk, send=send).outcome is Outcome.GONE
    assert not Account.objects.exists()
    assert not AccountEvent.objects.exists()


def sign_in_again():
    provider.sign_in_again(stored(), pair("signed-in", "signed-in-refresh"))


@pytest.mark.parametrize("end", [pair, lambda: refusing(None), lambda: failing(None)])
def test_a_sign_in_during_a_refresh_wins_however_that_ends(sandbox, end):
    account = signed_in(sandbox)

    def send(_):
        sign_in_again()
        return end()

    assert tokens.ensure_fresh(account.pk, send=send).outcome is Outcome.STILL_FRESH
    assert now_and(
        access_token=Secret("signed-in"),
        refresh_token=Secret("signed-in-refresh"),
        status=AccountStatus.ACTIVE,
        last_refresh_error="",
        refresh_failures=0,
        refresh_retry_at=None,
        refused_refresh_digest="",
    )


def changes_first(sql, column):
    return sql.startswith("UPDATE") and sql.partition(" SET ")[2].startswith(
        f'"{column}"'
    )


class Before:
    """Does something once, right before a statement that changes this column first."""

    def __init__(self, column, do):
        self.column, self.do, self.is_done = column, do, False

    def __call__(self, execute, sql, params, many, context):
        if changes_first(sql, self.column) and not self.is_done:
            self.is_done = True
            self.do()
        return execute(sql, params, many, context)


def test_a_sign_in_between_reading_and_sending_wins(sandbox):
    account = signed_in(sandbox)
    with connection.execute_wrapper(Before("sent_refresh_digest", sign_in_again)):
        result = tokens.ensure_fresh(account.pk, send=never)

    assert result.outcome is Outcome.STILL_FRESH
    assert access_token(account) == "signed-in"
    assert now_and(sent_refresh_digest="")


def test_a_process_held_up_beyond_its_lease_does_not_send_what_is_used_up(sandbox):
    account = signed_in(sandbox)

    def another_refreshes():
        result = tokens.ensure_fresh(account.pk, clock=shifted(2 * MINUTE))
        assert result.outcome is Outcome.REFRESHED

    with connection.execute_wrapper(Before("sent_refresh_digest", another_refreshes)):
        result = tokens.ensure_fresh(account.pk)

    assert result.outcome is Outcome.STILL_FRESH
    assert provider.outcomes(sandbox) == ["issued"]


@pytest.mark.parametrize("end", [pair, lambda: refusing(None), lambda: failing(None)])
def test_an_account_deleted_between_reading_and_sending_is_gone(sandbox, end):
    account = signed_in(sandbox)
    delete = Before("sent_refresh_digest", lambda: Account.objects.all().delete())
    with connection.execute_wrapper(delete):
        result = tokens.ensure_fresh(account.pk, send=never)

    assert result.outcome is Outcome.GONE


# --- one at a time


def held(account, *, since):
    """Let another process have held the lease for a while."""
    until = timezone.now() - since + tokens._LEASE
    Account.objects.update(refresh_lease="another", refresh_lease_until=until)


def test_a_refresh_elsewhere_is_not_waited_for_by_who_is_in_a_hurry(sandbox):
    account = signed_in(sandbox, ends_in=-SECOND)
    held(account, since=SECOND)
    result = tokens.ensure_fresh(account.pk, is_patient=False, send=never)

    assert result.outcome is Outcome.UNDER_WAY
    assert now_and(refresh_lease="another")


def test_a_refresh_that_takes_long_is_not_waited_for_while_the_old_token_lives(sandbox):
    account = signed_in(sandbox)
    held(account, since=6 * SECOND)

    assert tokens.ensure_fresh(account.pk, send=never).outcome is Outcome.UNDER_WAY


def test_the_lease_of_a_process_that_died_ends_by_itself(sandbox):
    account = signed_in(sandbox, ends_in=-SECOND)
    held(account, since=MINUTE + SECOND)

    assert tokens.ensure_fresh(account.pk).outcome is Outcome.REFRESHED


def ticking(step):
    """A clock that goes on by a step each time it is looked at."""
    start = timezone.now()
    count = iter(range(10**6))
    return lambda: start + step * next(count)


@pytest.mark.parametrize("asked", [{}, {"refused": True}])
def test_with_a_useless_token_even_a_slow_refresh_is_waited_for(sandbox, asked):
    account = signed_in(sandbox, ends_in=HOUR if asked else -SECOND)
    held(account, since=10 * SECOND)
    asked = dict.fromkeys(asked, account.access_token)
    result = tokens.ensure_fresh(account.pk, clock=ticking(20 * SECOND), **asked)

    assert result.outcome is Outcome.REFRESHED


def test_a_lease_that_was_taken_over_is_not_released(sandbox):
    account = signed_in(sandbox)

    def send(refresh_token):
        held(account, since=SECOND)
        return tokens.send_refresh(refresh_token)

    tokens.ensure_fresh(account.pk, send=send)

    assert now_and(refresh_lease="another")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("asked", "ends_in"),
    [({}, -SECOND), ({}, 30 * SECOND), ({"force": True}, HOUR)],
    ids=["dead", "about to end", "forced"],
)
def test_all_who_ask_while_it_is_refreshed_share_one_refresh(sandbox, asked, ends_in):
    account = signed_in(sandbox, ends_in=ends_in)
    looked = set()

    def clock():
        looked.add(threading.get_ident())
        return timezone.now()

    def send(refresh_token):
        until(lambda: len(looked) == 12)
        return tokens.send_refresh(refresh_token)

    def ask(_):
        try:
            result = tokens.ensure_fresh(account.pk, clock=clock, send=send, **asked)
            return result.outcome
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(ask, range(12)))

    assert sorted(o.value for o in found) == ["refreshed"] + ["still fresh"] * 11
    assert provider.outcomes(sandbox) == ["issued"]


@pytest.mark.django_db(transaction=True)
def test_all_who_wait_for_a_refresh_that_fails_try_no_other(sandbox):
    account = signed_in(sandbox, ends_in=-SECOND)
    provider.script(sandbox, {"status": 503, "delay_ms": 300})

    def ask(_):
        try:
            return tokens.ensure_fresh(account.pk).outcome
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(ask, range(8)))

    assert sorted(o.value for o in found) == ["failed"] + ["postponed"] * 7
    assert provider.outcomes(sandbox) == ["scripted"]


# --- a database that is away


class Away:
    """Fails the statements that change this column first, so many times."""

    def __init__(self, column, times):
        self.column, self.left = column, times

    def __call__(self, execute, sql, params, many, context):
        if changes_first(sql, self.column):
            self.left -= 1
            if self.left >= 0:
                raise OperationalError("gone")
        return execute(sql, params, many, context)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("times", [1, 4])
def test_tokens_are_stored_even_if_the_database_is_away_for_a_moment(
    sandbox, monkeypatch, times
):
    monkeypatch.setattr(tokens, "_WRITE_PAUSES_SECONDS", (0,) * 4)
    account = signed_in(sandbox)
    with connection.execute_wrapper(Away("access_token", times)):
        result = tokens.ensure_fresh(account.pk)

    assert result.outcome is Outcome.REFRESHED
    assert access_token(account) != account.credential.reveal()


@pytest.mark.django_db(transaction=True)
def test_a_token_is_not_sent_while_that_cannot_be_written_down(sandbox):
    account = signed_in(sandbox)
    with (
        connection.execute_wrapper(Away("sent_refresh_digest", 1)),
        pytest.raises(OperationalError),
    ):
        tokens.ensure_fresh(account.pk, send=never)

    assert now_and(sent_refresh_digest="", refresh_lease="")


def test_pauses_between_writes_grow():
    assert all(a < b for a, b in pairwise(tokens._WRITE_PAUSES_SECONDS))
    assert sum(tokens._WRITE_PAUSES_SECONDS) < tokens._LEASE.total_seconds()


def losing(_refresh_token):
    raise NoTokenReplyError("the answer was lost", was_processed=None)


def test_not_even_by_force_is_a_token_sent_again_that_may_be_used_up(sandbox):
    account = signed_in(sandbox)
    tokens.ensure_fresh(account.pk, force=True, send=losing)
    result = tokens.ensure_fresh(account.pk, force=True, send=never)

    assert result.outcome is Outcome.POSTPONED
    assert "may have been used already" in result.message


def test_once_the_access_token_has_ended_it_is_sent_all_the_same(sandbox):
    account = signed_in(sandbox)
    tokens.ensure_fresh(account.pk, force=True, send=losing)
    later = account.expires_at + timedelta(minutes=20)

    result = tokens.ensure_fresh(account.pk, clock=lambda: later)

    assert result.outcome is Outcome.REFRESHED


# --- what is told


def test_the_log_names_no_token_and_no_person(sandbox):
    account = signed_in(sandbox)
    with capture_logs() as lines:
        tokens.ensure_fresh(account.pk)
        tokens.ensure_fresh(account.pk, force=True, send=failing)
        tokens.ensure_fresh(account.pk, force=True, send=refusing)

    assert [line["event"] for line in lines] == [
        "token_refreshed",
        "token_refresh_failed",
        "token_refresh_refused",
    ]
    assert {line["account_id"] for line in lines} == {account.pk}
    assert "sk-" not in str(lines)
    assert "@" not in str(lines)


def test_a_kind_that_has_changed_meanwhile_is_gone(sandbox):
    account = signed_in(sandbox, api_key=Secret("sk-x"))
    Account.objects.update(kind=AccountKind.API_KEY)

    assert tokens.ensure_fresh(account.pk, send=never).outcome is Outcome.GONE


def test_an_account_whose_end_is_not_known_is_not_called_dead(sandbox):
    account = signed_in(sandbox, expires_at=None, refresh_token=None)
    result = tokens.ensure_fresh(account.pk, send=never)

    assert result.outcome is Outcome.FAILED
    assert now_and(status=AccountStatus.ACTIVE)
