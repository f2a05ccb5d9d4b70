"""What is promised of PostgreSQL alone: its clock, its disk, its connections."""

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connections

from sessions_limit.backends.base import Obstacle, Refused, Standing
from sessions_limit.models import SessionScope
from tests.end_to_end import waiting
from tests.sessions_limit.stores import alive, enter, renew, renewal, session_id

pytestmark = pytest.mark.parametrize("words", ["postgres"], indirect=True)


# --- the clock


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_the_clock_is_read_once_the_lock_is_held(words, backend, end):
    enter(backend, "a")
    with psycopg.connect(words["database"], autocommit=True) as other:
        other.execute("BEGIN")
        other.execute("UPDATE sessions_limit_sessionscope SET clock_at = clock_at")
        thread = threading.Thread(target=enter_apart, args=(backend, "b"))
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


def enter_apart(backend: Any, name: str) -> None:
    """As a worker's thread does: over a connection of its own, which it gives back."""
    try:
        enter(backend, name)
    finally:
        connections.close_all()


def is_somebody_waiting(connection: Any) -> bool:
    question = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return bool(connection.execute(question).fetchone()[0])


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
    refused = enter(backend, "b", limit=1)
    assert isinstance(refused, Refused)
    assert refused.why is Obstacle.FULL
    assert commits() == ["off"]
    assert renew(backend, "first") is Standing.ALIVE
    assert commits() == ["off"]
    assert renew(backend, "b", limit=1) is Standing.LOST
    assert commits() == ["off"]


# --- the connection


def test_what_django_asks_is_not_kept_to_be_prepared(backend):
    enter(backend, "a")

    assert connections[backend._using].connection.prepare_threshold is None
