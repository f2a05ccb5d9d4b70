"""What is promised of PostgreSQL alone: its clock, its disk, its connections."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from time import perf_counter
from typing import Any

import psycopg
import pytest
from django.db import connections

from sessions_limit.backends import database, dialects
from sessions_limit.backends.base import (
    Entered,
    Obstacle,
    Refused,
    Standing,
    StoreAwayError,
)
from sessions_limit.models import SessionScope
from tests.end_to_end import waiting
from tests.sessions_limit.stores import (
    SECOND,
    TTL,
    alive,
    enter,
    renew,
    renewal,
    session_id,
)

pytestmark = pytest.mark.parametrize("words", ["postgres"], indirect=True)


# --- the clock


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_the_clock_is_read_once_the_lock_is_held(words, backend, end):
    enter(backend, "a")
    with psycopg.connect(words["database"], autocommit=True) as other:
        other.execute("BEGIN")
        other.execute("UPDATE sessions_limit_sessionscope SET clock_at = clock_at")
        thread = threading.Thread(
            target=on_a_connection_of_its_own, args=(lambda: enter(backend, "b"),)
        )
        thread.start()
        waiting.until(lambda: is_somebody_waiting(other))
        [(released_at,)] = other.execute("SELECT clock_timestamp()").fetchall()
        other.execute(end.encode())
        thread.join(10)

    assert alive(backend) == ["a", "b"]
    scope = SessionScope.objects.using(backend._using).get()
    assert scope.clock_at > released_at
    entered = {it.id: it.first_seen_at for it in backend.live()}
    assert entered[session_id("b")] == scope.clock_at


def is_somebody_waiting(connection: Any) -> bool:
    question = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(connection.execute(question).fetchone()[0])


# --- what others do between the look and the store


@pytest.fixture
def meanwhile(monkeypatch: Any) -> Any:
    """Makes something happen once, after the next session was looked at.

    No test could be there in time but from within.
    """
    happenings: list[Callable[[], object]] = []
    swap = dialects.Postgres.swap

    def late_swap(self: Any, *args: Any, **kwargs: Any) -> bool:
        while happenings:
            run_apart(happenings.pop())
        return swap(self, *args, **kwargs)

    monkeypatch.setattr(dialects.Postgres, "swap", late_swap)
    return happenings.append


def test_who_comes_in_between_takes_the_last_place(backend, meanwhile):
    enter(backend, "first", limit=2)
    meanwhile(lambda: enter(backend, "a", limit=2))

    assert refuse(backend, "b", limit=2)
    assert alive(backend) == ["a", "first"]


def test_who_is_blocked_in_between_stays_out(backend, meanwhile):
    enter(backend, "a")
    meanwhile(lambda: backend.revoke(session_id("a"), block=SECOND))

    answer = enter(backend, "a")
    assert isinstance(answer, Refused)
    assert answer.why is Obstacle.BLOCKED
    assert alive(backend) == []


def test_a_revocation_in_between_is_not_undone(backend, meanwhile):
    enter(backend, "a")
    meanwhile(lambda: backend.revoke(session_id("a")))

    assert enter(backend, "a") == Entered(1)


def test_what_a_renewal_noted_in_between_is_kept(backend, meanwhile):
    enter(backend, "a")
    meanwhile(lambda: backend.renew([renewal("a", requests=7)]))

    assert enter(backend, "a") == Entered(0)
    assert [session.requests for session in backend.live()] == [7]


def test_a_session_that_was_forgotten_in_between_comes_in(backend, meanwhile):
    enter(backend, "a")
    backend.offset = TTL
    meanwhile(backend.prune)

    assert enter(backend, "a") == Entered(0)
    assert alive(backend) == ["a"]


@pytest.mark.parametrize("pause", [timedelta(), 2 * SECOND])
def test_who_is_refused_under_the_lock_is_refused(backend, monkeypatch, pause):
    enter(backend, "first", limit=1)
    backend.offset = 2 * SECOND
    lock = dialects.Postgres.lock

    def lock_and_pause(*args: Any) -> Any:
        times = lock(*args)
        backend.offset += pause
        return times

    monkeypatch.setattr(dialects.Postgres, "lock", lock_and_pause)
    assert refuse(backend, "b")


def run_apart(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=on_a_connection_of_its_own, args=(work,))
    thread.start()
    thread.join(10)


def on_a_connection_of_its_own(work: Callable[[], object]) -> None:
    """As a worker's thread has one: it gives it back."""
    try:
        work()
    finally:
        connections.close_all()


def refuse(backend: Any, name: str, limit: int = 1) -> bool:
    answer = enter(backend, name, limit=limit)
    return isinstance(answer, Refused) and answer.why is Obstacle.FULL


# --- the disk


@pytest.fixture
def commits(backend: Any) -> Iterator[Any]:
    """Tells what each commit since the last time was to wait for, as PostgreSQL saw it:
    a deferred trigger runs when all else of the transaction is done."""
    enter(backend, "first", limit=9)
    with connections[backend._using].cursor() as cursor:
        cursor.execute("""
            CREATE TABLE commits (waits_for text);
            CREATE FUNCTION note_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO commits VALUES (current_setting('synchronous_commit'));
                RETURN NULL;
            END $$;
            CREATE CONSTRAINT TRIGGER note_commit
            AFTER UPDATE ON sessions_limit_sessionscope DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION note_commit()
        """)

        def seen() -> list[str]:
            cursor.execute("DELETE FROM commits RETURNING waits_for")
            return [waits_for for (waits_for,) in cursor.fetchall()]

        yield seen
        cursor.execute("DROP FUNCTION note_commit CASCADE; DROP TABLE commits")


def test_new_leases_and_revocations_wait_for_the_disk(backend, commits):
    enter(backend, "a")
    assert commits() == ["on"]
    backend.revoke(session_id("a"))
    assert commits() == ["on"]
    assert renew(backend, "b") is Standing.ALIVE  # it was lost, and takes a place
    assert commits() == ["on"]
    backend.renew([renewal("b"), renewal("c"), renewal("first")])
    assert commits() == ["on"]


def test_nothing_else_waits_for_the_disk(backend, commits):
    enter(backend, "first")
    assert commits() == ["off"]
    assert refuse(backend, "b")
    assert commits() == []
    backend.offset = SECOND
    assert refuse(backend, "b")  # and the clock is noted, once a second
    assert commits() == ["off"]
    assert refuse(backend, "b")
    assert commits() == []
    assert renew(backend, "first") is Standing.ALIVE
    assert commits() == ["off"]
    assert renew(backend, "b", limit=1) is Standing.LOST
    assert commits() == ["off"]


# --- locks that are not given back


@pytest.fixture
def frozen(words: Any, backend: Any) -> Iterator[Any]:
    """The connection of a machine that has begun a transaction, and does not end it."""
    enter(backend, "a")
    with psycopg.connect(words["database"]) as connection:
        yield connection
        connection.rollback()


def test_nobody_hangs_on_a_session_that_somebody_else_has(backend, frozen, brief):
    frozen.execute("DELETE FROM sessions_limit_clientsession")

    with pytest.raises(StoreAwayError):
        enter(backend, "a")
    assert enter(backend, "b") == Entered(0)


def test_who_has_to_queue_waits_no_longer(backend, frozen, brief):
    frozen.execute("SELECT FROM sessions_limit_sessionscope FOR UPDATE")
    waits: list[float] = []

    def wait() -> None:
        began = perf_counter()
        with pytest.raises(StoreAwayError):
            enter(backend, "a")
        waits.append(perf_counter() - began)

    threads = [
        threading.Thread(target=on_a_connection_of_its_own, args=(wait,))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(waits) == 3
    assert max(waits) < 1.5 * brief.total_seconds()


def test_pruning_waits_for_nobody(backend, frozen):
    enter(backend, "b")
    backend.offset = TTL
    frozen.execute(
        "SELECT FROM sessions_limit_clientsession WHERE digest = %s FOR UPDATE",
        [session_id("a").digest],
    )

    assert backend.prune() == 1
    frozen.rollback()
    assert backend.prune() == 1


@pytest.fixture
def brief(monkeypatch: Any) -> timedelta:
    """A patience that is not for long."""
    monkeypatch.setattr(database, "_LONGEST_WAIT", SECOND)
    return SECOND


# --- the connection


def test_after_a_migration_a_connection_is_replaced(words, backend):
    change = "ALTER TABLE sessions_limit_clientsession ALTER generation TYPE "
    for _ in range(2):
        enter(backend, "a")
    with psycopg.connect(words["database"], autocommit=True) as migration:
        migration.execute(f"{change} bigint".encode())
        try:
            with pytest.raises(StoreAwayError):
                enter(backend, "a")
            for _ in range(10):  # which the pool gives out in turn
                connections[backend._using].close()  # as each unit of work does
                assert enter(backend, "a") == Entered(0)
        finally:
            migration.execute(f"{change} integer".encode())


def test_what_django_asks_is_not_kept_to_be_prepared(backend):
    enter(backend, "a")

    assert connections[backend._using].connection.prepare_threshold is None
