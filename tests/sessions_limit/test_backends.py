"""What every store promises, tried on each of them."""

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connections

from sessions_limit.backends import database, holds
from sessions_limit.backends.base import (
    HOLD,
    REVOKED_KEPT,
    Entered,
    Obstacle,
    Refused,
    Revocation,
    Standing,
    StoreAwayError,
)
from tests.sessions_limit.stores import (
    SECOND,
    TTL,
    alive,
    client_named,
    enter,
    renew,
    renewal,
    session_id,
)

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
# Redis counts in milliseconds, and real time goes on while a test moves the clock.
SOON = timedelta(seconds=2)


def fill(backend: Any, *names: str) -> None:
    for name in names:
        assert enter(backend, name) == Entered(0)


def refusal(answer: Any) -> Refused:
    assert isinstance(answer, Refused)
    return answer


# --- getting in


def test_as_many_as_the_limit_says_get_in(backend):
    fill(backend, "a", "b", "c")

    assert refusal(enter(backend, "d")).why is Obstacle.FULL
    assert alive(backend) == ["a", "b", "c"]


def test_who_is_in_already_gets_in_again(backend):
    fill(backend, "a", "b", "c", "a")

    assert alive(backend) == ["a", "b", "c"]


def test_who_is_refused_hears_when_the_first_could_end(backend):
    fill(backend, "a")
    backend.offset = MINUTE
    fill(backend, "b", "c")

    wait = refusal(enter(backend, "d")).wait
    assert TTL - MINUTE - SOON < wait <= TTL - MINUTE


def test_where_the_limit_was_lowered_more_than_one_has_to_end(backend):
    for number, name in enumerate("abc"):
        backend.offset = number * MINUTE
        fill(backend, name)

    wait = refusal(enter(backend, "d", limit=2)).wait
    assert TTL - MINUTE - SOON < wait <= TTL - MINUTE
    assert enter(backend, "b", limit=2) == Entered(0)


def test_a_place_is_free_when_a_session_has_ended_and_not_before(backend):
    fill(backend, "a", "b", "c")
    backend.offset = TTL - SOON
    assert refusal(enter(backend, "d")).wait <= SOON

    backend.offset = TTL
    assert enter(backend, "d") == Entered(0)
    assert alive(backend) == ["d"]


def test_every_call_prolongs_a_session(backend):
    fill(backend, "a")
    backend.offset = TTL - SOON
    fill(backend, "a")
    backend.offset = 2 * TTL - 2 * SOON

    assert alive(backend) == ["a"]


def test_scopes_do_not_count_each_other(backend):
    fill(backend, "a", "b", "c")

    assert enter(backend, "a", scope="key:1", limit=1) == Entered(0)
    assert refusal(enter(backend, "b", scope="key:1", limit=1)).why is Obstacle.FULL


# --- renewing


def test_a_renewal_prolongs_a_session(backend):
    fill(backend, "a")
    backend.offset = TTL - SOON

    assert renew(backend, "a") is Standing.ALIVE
    backend.offset = 2 * TTL - 2 * SOON
    assert alive(backend) == ["a"]


def test_a_shorter_renewal_shortens_nothing(backend):
    fill(backend, "a")
    renew(backend, "a", lifetime=SECOND)
    backend.offset = MINUTE

    assert alive(backend) == ["a"]


def test_a_session_that_the_store_lost_gets_its_place_back(backend):
    assert renew(backend, "a", lifetime=MINUTE) is Standing.ALIVE
    assert alive(backend) == ["a"]
    backend.offset = MINUTE
    assert alive(backend) == []


def test_a_session_whose_place_is_taken_is_lost(backend):
    fill(backend, "a", "b", "c")
    backend.offset = TTL
    fill(backend, "d", "e")
    standings = backend.renew([renewal("a"), renewal("b"), renewal("d")])

    assert standings == [Standing.ALIVE, Standing.LOST, Standing.ALIVE]
    assert alive(backend) == ["a", "d", "e"]


def test_renewals_of_several_scopes_are_answered_in_their_order(backend):
    fill(backend, "a")
    backend.revoke(session_id("a"))
    asked = [renewal("b"), renewal("a"), renewal("a", scope="key:1"), renewal("c")]

    assert backend.renew(asked) == [
        Standing.ALIVE,
        Standing.REVOKED,
        Standing.ALIVE,
        Standing.ALIVE,
    ]
    assert backend.renew([]) == []


# --- revoking


def test_a_revoked_session_makes_room(backend):
    fill(backend, "a", "b", "c")

    assert backend.revoke(session_id("b")) is True
    assert enter(backend, "d") == Entered(0)
    assert alive(backend) == ["a", "c", "d"]


def test_a_renewal_does_not_bring_a_revoked_session_back(backend):
    fill(backend, "a")
    backend.revoke(session_id("a"))

    assert renew(backend, "a") is Standing.REVOKED
    assert alive(backend) == []


def test_a_worker_that_has_not_heard_does_not_prolong_what_came_after(backend):
    fill(backend, "a")
    backend.revoke(session_id("a"))

    assert enter(backend, "a") == Entered(1)
    assert renew(backend, "a") is Standing.REVOKED
    assert renew(backend, "a", generation=1) is Standing.ALIVE


def test_a_blocked_session_stays_out_until_the_block_ends(backend):
    fill(backend, "a")
    backend.revoke(session_id("a"), block=HOUR)
    backend.offset = HOUR - SOON
    refused = refusal(enter(backend, "a"))

    assert refused.why is Obstacle.BLOCKED
    assert timedelta() < refused.wait <= SOON
    backend.offset = HOUR
    assert enter(backend, "a") == Entered(1)


def test_a_block_can_be_lifted(backend):
    fill(backend, "a")
    backend.revoke(session_id("a"), block=HOUR)
    backend.revoke(session_id("a"))

    assert enter(backend, "a") == Entered(2)


def test_what_is_not_there_cannot_be_revoked(backend):
    assert backend.revoke(session_id("a")) is False
    assert backend.news().revocations == ()


def test_revocations_are_news_for_long_enough(backend):
    fill(backend, "a", "b")
    backend.revoke(session_id("a"))
    backend.revoke(session_id("a"))
    news = (Revocation(session_id("a"), 2),)
    assert backend.news().revocations == news

    backend.offset = REVOKED_KEPT - MINUTE
    backend.prune()
    assert backend.news().revocations == news
    backend.offset = REVOKED_KEPT + MINUTE
    assert backend.news().revocations == ()


# --- requests within a session


def test_a_session_has_as_many_requests_as_it_may(backend):
    assert enter(backend, "a", max_requests=2, worker="w1") == Entered(0)
    assert enter(backend, "a", max_requests=2, worker="w2") == Entered(0)
    refused = refusal(enter(backend, "a", max_requests=2, worker="w3"))

    assert refused.why is Obstacle.BUSY
    renew(backend, "a", worker="w1", running=0)
    assert enter(backend, "a", max_requests=2, worker="w3") == Entered(0)


def test_a_report_that_was_overtaken_changes_no_number(backend):
    enter(backend, "a", running=2, sequence=9)
    renew(backend, "a", running=1, sequence=8)

    assert refusal(enter(backend, "a", worker="w2", max_requests=2)).why is (
        Obstacle.BUSY
    )


def test_what_a_dead_worker_had_running_is_forgotten(backend):
    enter(backend, "a", running=2, max_requests=2)
    backend.offset = HOLD - SOON
    assert isinstance(enter(backend, "a", worker="w2", max_requests=2), Refused)
    backend.offset = HOLD

    assert enter(backend, "a", worker="w2", max_requests=2) == Entered(0)


def test_without_a_bound_nothing_is_refused(backend):
    assert enter(backend, "a", running=1000) == Entered(0)


# --- what people see


def test_the_list_shows_what_is_known(backend):
    fill(backend, "a")
    renew(backend, "a", requests=3, running=2, account_names=("ada", "grace"))
    renew(backend, "a", requests=1, running=1, worker="w2", account_names=("ada",))
    renew(backend, "a", requests=1, running=1, worker="w2", account_names=("joan",))
    (shown,) = backend.live()

    assert (shown.id, shown.client) == (session_id("a"), client_named("a"))
    assert (shown.requests, shown.in_flight) == (5, 3)
    assert shown.account_names == ("joan", "ada", "grace")
    assert (shown.is_alive, shown.blocked_until) == (True, None)
    assert shown.first_seen_at <= shown.last_seen_at < shown.expires_at
    assert TTL - SOON < shown.expires_at - shown.last_seen_at <= TTL


def test_the_list_keeps_few_account_names(backend):
    fill(backend, "a")
    for number in range(9):
        renew(backend, "a", account_names=(f"n{number}",))

    assert backend.live()[0].account_names == ("n8", "n7", "n6", "n5", "n4")


def test_the_list_shows_the_latest_first_and_who_is_blocked(backend):
    fill(backend, "a", "b")
    backend.revoke(session_id("a"), block=HOUR)
    backend.offset = MINUTE
    fill(backend, "c")
    shown = backend.live()

    assert [it.id for it in shown] == [session_id("c"), *_sorted(shown[1:])]
    blocked = {it.id: (it.is_alive, it.blocked_until is not None) for it in shown}
    assert blocked[session_id("a")] == (False, True)
    assert blocked[session_id("b")] == (True, False)


def _sorted(shown: Any) -> Any:
    return [it.id for it in sorted(shown, key=lambda it: it.last_seen_at, reverse=True)]


def test_a_session_that_begins_anew_counts_anew(backend):
    fill(backend, "a")
    renew(backend, "a", requests=3, account_names=("ada",))
    backend.offset = TTL
    fill(backend, "a")
    (shown,) = backend.live()

    assert (shown.requests, shown.account_names) == (0, ())


# --- forgetting


def test_pruning_forgets_what_has_ended_and_nothing_else(backend):
    fill(backend, "a", "b")
    backend.offset = MINUTE
    fill(backend, "c")
    backend.offset = TTL

    assert backend.prune() == 2
    assert backend.prune() == 0
    assert alive(backend) == ["c"]


def test_pruning_forgets_no_block(backend):
    fill(backend, "a")
    backend.revoke(session_id("a"), block=48 * HOUR)
    backend.offset = 24 * HOUR
    backend.prune()

    assert refusal(enter(backend, "a")).why is Obstacle.BLOCKED


# --- a lock that is not given back


def test_a_worker_that_holds_a_lock_for_ever_does_not_hang_the_others(
    words, backend, monkeypatch
):
    if "redis" in words:
        pytest.skip("nobody holds a lock of Redis")
    monkeypatch.setattr(database, "_LONGEST_WAIT", SECOND / 10)
    fill(backend, "a")
    with holding_the_lock(words["database"]):
        with pytest.raises(StoreAwayError):
            enter(backend, "b")
        with pytest.raises(StoreAwayError):
            renew(backend, "a")
        assert alive(backend) == ["a"]

    assert enter(backend, "b") == Entered(0)


@pytest.mark.parametrize("words", ["sqlite"], indirect=True)
def test_others_on_that_connection_may_wait_as_long_as_before(backend):
    enter(backend, "a")

    with connections[backend._using].cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        assert cursor.fetchone() == (settings.SQLITE_OPTIONS["timeout"] * 1000,)


@pytest.mark.parametrize("words", ["sqlite"], indirect=True)
def test_on_a_full_disk_nobody_gets_in(backend):
    fill(backend, "a")
    with connections[backend._using].cursor() as cursor:
        cursor.execute("PRAGMA max_page_count = 1")  # no more than there are
        with pytest.raises(StoreAwayError):
            fill_up(backend)
        cursor.execute("PRAGMA max_page_count = 1000000")

    assert renew(backend, "a") is Standing.ALIVE


def fill_up(backend: Any) -> None:
    for number in range(1000):  # the pages that there are have room for fewer
        enter(backend, f"client-{number}", limit=1000)


@contextlib.contextmanager
def holding_the_lock(url: str) -> Iterator[None]:
    if url.startswith("sqlite"):
        file = url.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as frozen:
            frozen.execute("BEGIN IMMEDIATE")
            yield
    else:
        with psycopg.connect(url) as frozen:
            frozen.execute("SELECT * FROM sessions_limit_sessionscope FOR UPDATE")
            yield


# --- clocks


@pytest.mark.parametrize("back", [SECOND, HOUR, timedelta(days=400)])
def test_a_clock_set_back_makes_no_session_live_longer(backend, back):
    fill(backend, "a", "b", "c")
    backend.offset = -back

    refused = refusal(enter(backend, "d"))
    assert refused.why is Obstacle.FULL
    assert refused.wait <= TTL
    backend.offset = TTL - back
    assert enter(backend, "d") == Entered(0)
    assert alive(backend) == ["d"]


def test_a_clock_set_back_revives_nobody(backend):
    fill(backend, "a", "b", "c")
    backend.offset = TTL
    fill(backend, "d", "e")
    backend.offset = TTL - MINUTE

    assert enter(backend, "f") == Entered(0)
    assert refusal(enter(backend, "g")).why is Obstacle.FULL
    assert alive(backend) == ["d", "e", "f"]


def test_a_clock_set_forward_ends_sessions_early_and_no_worse(backend):
    fill(backend, "a", "b", "c")
    backend.offset = timedelta(days=400)
    fill(backend, "d", "e")

    assert renew(backend, "a") is Standing.ALIVE
    assert renew(backend, "b") is Standing.LOST
    assert alive(backend) == ["a", "d", "e"]


def test_a_report_from_before_the_clock_was_set_back_does_not_count_for_ever():
    from tests.factories import NOW

    kept = holds.reported({}, _hold(2), NOW + HOUR)
    cut = holds.fresh(kept, NOW)

    assert holds.running(cut) == 2
    assert holds.running(holds.fresh(cut, NOW + HOLD)) == 0


def _hold(running: int) -> Any:
    from sessions_limit.backends.base import Hold

    return Hold("w1", running, 1)
