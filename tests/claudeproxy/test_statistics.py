"""`GET /api/admin/statistics`: the gateway in figures."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import Account
from accounts.status import AccountKind, AccountStatus
from claudeproxy import statistics
from clients.models import ClientKeyRole
from sessions_limit import backends, keys
from sessions_limit.backends.base import Entry, Hold
from sessions_limit.keys import SessionId
from tests.factories import NOW, make_account, make_client_key
from tests.usage.cast import begun, finished
from usage import journal, rollups, rows, shipped, store
from usage.entries import Attempt
from usage.journal import Journal
from usage.prices import PriceTable

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
PRICES = PriceTable(shipped.prices())


def add(request_id: str, ago: timedelta = MINUTE, **fields: Any) -> None:
    entry = finished(request_id, started_at=timezone.now() - ago, **fields)
    store.insert([rows.of_finished(entry, PRICES)])


@pytest.fixture
def shown() -> Any:
    key = make_client_key("root", ClientKeyRole.ADMIN).key.reveal()
    client = Client(headers={"x-api-key": key})

    def show() -> Any:
        response = client.get("/api/admin/statistics")
        assert response.status_code == 200
        return response.json()

    return show


@pytest.mark.parametrize(
    ("active", "health"), [(0, "unhealthy"), (1, "degraded"), (3, "healthy")]
)
def test_health_is_by_how_many_accounts_can_serve(shown, active, health):
    for number in range(active):
        make_account(f"a{number}")
    make_account("off", status=AccountStatus.INACTIVE)

    assert shown()["health"] == health


def test_sessions_and_their_requests_are_counted(shown):
    identity = keys.identify(
        None, b"sdk", key_id=1, key_name="ana", parts=("user_agent",), ipv6_prefix=64
    )
    entry = Entry(
        id=SessionId(keys.GLOBAL, identity.digest),
        client=identity,
        limit=3,
        ttl=timedelta(minutes=5),
        hold=Hold("worker", 2, 1),
    )
    backends.from_settings().acquire(entry)

    assert shown()["sessions"] == {"live": 1, "blocked": 0, "in_flight": 2}


def test_sessions_are_left_out_if_they_are_not_limited(shown, settings):
    settings.SESSION_ENABLED = False

    assert shown()["sessions"] is None


def test_accounts_are_counted_by_status(shown):
    make_account("a")
    make_account("b", status=AccountStatus.INVALID)
    over = timezone.now() - MINUTE
    make_account("c", status=AccountStatus.RATE_LIMITED, rate_limited_until=over)
    accounts = shown()["accounts"]

    assert accounts["by_status"] == {
        "active": 1,
        "inactive": 0,
        "rate_limited": 1,
        "invalid": 1,
    }
    assert (accounts["total"], accounts["usable"]) == (3, 2)
    assert accounts["needing_refresh"] == 0
    assert accounts["oldest_token_age_seconds"] is None


def oauth_account(name: str, **fields: Any) -> Account:
    return make_account(name, kind=AccountKind.OAUTH, **fields)


def test_tokens_that_end_soon_and_the_oldest_are_told():
    oauth_account("a", expires_at=NOW + 9 * HOUR, last_refresh_at=NOW - HOUR)
    oauth_account("b", expires_at=NOW + MINUTE, last_refresh_at=NOW - 2 * HOUR)
    oauth_account("c", expires_at=NOW - HOUR, last_refresh_at=NOW - MINUTE)
    oauth_account(
        "off",
        status=AccountStatus.INACTIVE,
        expires_at=NOW,
        last_refresh_at=NOW - 99 * HOUR,
    )
    found = statistics.load_accounts(NOW)

    assert found.needing_refresh == 2
    assert found.oldest_token_age_seconds == 7200


def test_a_token_that_was_never_refreshed_is_as_old_as_its_account():
    account = oauth_account("a", expires_at=NOW + 9 * HOUR)
    Account.objects.filter(pk=account.pk).update(created_at=NOW - 3 * HOUR)

    assert statistics.load_accounts(NOW).oldest_token_age_seconds == 3 * 3600


def test_requests_of_the_last_day_are_summed_up(shown):
    add("a")
    add("b", end_reason="truncated")
    add("c", end_reason="rejected", status=429)
    add("old", 30 * HOUR)
    rollups.roll_up(seconds=60)
    add("d")
    day = shown()["last_24_hours"]

    assert day["requests"]["requests"] == 4
    assert day["by_outcome"] == {"served": 2, "refused": 1, "gone": 0, "failed": 1}
    assert day["error_rate"] == 0.25
    assert day["requests"]["first_byte_p99_ms"] == pytest.approx(300, rel=0.16)


def test_a_gateway_without_requests_has_no_error_rate(shown):
    found = shown()

    assert found["last_24_hours"]["error_rate"] is None
    assert found["today"]["requests"] == 0
    assert found["failures_last_hour"] == []


def test_today_begins_at_midnight():
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    for name, at in (("a", midnight), ("b", midnight - MINUTE)):
        entry = finished(name, started_at=at)
        store.insert([rows.of_finished(entry, PRICES)])

    assert statistics.load(midnight + HOUR).today.requests == 1


def test_failed_attempts_of_the_last_hour_are_counted_by_reason(shown):
    overloaded = Attempt("ada", "upstream", "overloaded")
    add("a", attempts=(overloaded, overloaded, Attempt("bea", "network", "reset")))
    add("b", attempts=(overloaded,))
    add("old", 2 * HOUR, attempts=(overloaded,))
    found = shown()

    assert found["failures_last_hour"] == [
        {"blame": "upstream", "reason": "overloaded", "attempts": 3},
        {"blame": "network", "reason": "reset", "attempts": 1},
    ]
    assert found["last_24_hours"]["requests"]["failed_attempts"] == 5


def test_what_waits_in_the_journal_is_told(shown, settings, tmp_path):
    settings.DATA_DIR = tmp_path
    assert shown()["ledger"] == {"waiting_bytes": 0, "waiting_files": 0}
    writer = Journal(tmp_path / "journal")
    writer.open()
    line = journal.encode(finished())
    writer.write(line)

    assert shown()["ledger"] == {"waiting_bytes": len(line), "waiting_files": 1}
    writer.note_stored(writer.read(10))
    assert shown()["ledger"]["waiting_bytes"] == 0
    writer.close()


def test_what_a_dead_process_left_waits_too(tmp_path):
    line = journal.encode(finished())
    writer = Journal(tmp_path)
    writer.open()
    writer.write(line)
    writer.note_stored(writer.read(10))
    writer.rotate(journal.encode(begun("req_2")))
    writer.write(line)
    writer.close()

    assert journal.backlog(tmp_path).bytes == len(line)
    assert journal.backlog(Path("/nowhere")).bytes == 0


def test_more_of_everything_takes_no_more_queries(django_assert_num_queries):
    def load() -> None:
        statistics.load(timezone.now())

    add("a")
    rollups.roll_up(seconds=60)
    with django_assert_num_queries(17):
        load()
    for number in range(20):
        make_account(f"a{number}")
        add(str(number), key_id=number, key_name=str(number))
    rollups.roll_up(seconds=60)
    with django_assert_num_queries(17):
        load()
