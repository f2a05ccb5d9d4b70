"""Sessions that have ended cost nothing, however many there are."""

import re
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from time import perf_counter, thread_time
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from sessions_limit.backends.base import Entered
from sessions_limit.models import ClientSession
from tests.sessions_limit.stores import SECOND, alive, enter, renewal, session_id

DEAD = 100_000
# The goal is 2 ms, on a machine that does nothing else. Tests have to share theirs, so
# what is asserted is what the others cannot slow down, and what they slow down alike.
MOST_CPU_MILLISECONDS = 5.0
MOST_TIMES_AS_LONG = 3.0
COUNT = 300


def bury(backend: Any, count: int) -> None:
    """Store so many sessions that have ended; a thousand, and copies of these."""
    ended = timezone.now() - timedelta(hours=1)
    rows = (
        ClientSession(
            scope="global",
            digest=f"dead {number:03}",
            key_id=1,
            key_name="ana",
            first_seen_at=ended,
            last_seen_at=ended,
            expires_at=ended + number * SECOND / 1000,
        )
        for number in range(1000)
    )
    ClientSession.objects.using(backend._using).bulk_create(rows)
    names = {field.attname for field in ClientSession._meta.concrete_fields}
    table, columns = ClientSession._meta.db_table, ", ".join(names - {"id", "digest"})
    with connections[backend._using].cursor() as cursor:
        for copy in range(1, -(-count // 1000)):
            cursor.execute(
                f"INSERT INTO {table} (digest, {columns}) "  # noqa: S608  # ours
                f"SELECT digest || ' copy {copy}', {columns} FROM {table} "
                "WHERE digest LIKE 'dead ___' LIMIT %s",
                [count - copy * 1000],
            )
        if cursor.db.vendor == "postgresql":
            # As it does by itself, each minute: so many do not end in less.
            cursor.execute("ANALYZE")


def bury_in_redis(backend: Any, count: int) -> None:
    pipeline = backend._redis.pipeline()
    for number in range(count):
        digest = f"{number:032x}"
        key = f"{backend._prefix}:session:global:{digest}"
        pipeline.hset(key, mapping={"last_seen": 1, "generation": 0})
        pipeline.zadd(f"{backend._prefix}:live:global", {digest: 1})
    pipeline.execute()


def test_a_hundred_thousand_dead_sessions_slow_nothing_down(words, backend, capsys):
    assert enter(backend, "first", limit=9) == Entered(0)
    before, _ = measure(backend, "before")
    (bury_in_redis if "redis" in words else bury)(backend, DEAD)
    wall, cpu = measure(backend, "after")
    with capsys.disabled():
        store = type(backend).__name__
        sys.stdout.write(
            f"\n{store}: acquire p50 {at(wall, 0.5):.2f} ms (without the dead "
            f"{at(before, 0.5):.2f}), p99 {at(wall, 0.99):.2f} ms\n"
        )

    assert alive(backend) == ["first"]
    assert at(cpu, 0.99) <= MOST_CPU_MILLISECONDS
    assert at(wall, 0.5) <= MOST_TIMES_AS_LONG * at(before, 0.5)


@pytest.mark.parametrize("words", ["postgres"], indirect=True)
def test_few_trips_to_postgresql_let_a_session_in(backend):
    # A statement that the connection does not know takes one more.
    for name, limit in [("a", 9), ("b", 9), ("a", 9), ("d", 1)]:
        enter(backend, name, limit=limit)

    # look, swap
    assert trips(backend, lambda: enter(backend, "c", limit=9)) == 2
    assert trips(backend, lambda: enter(backend, "a", limit=9)) == 2
    # look
    assert trips(backend, lambda: enter(backend, "d", limit=1)) == 1


@pytest.mark.parametrize("words", ["postgres"], indirect=True)
def test_many_sessions_are_renewed_in_as_many_trips_as_one(backend):
    names = [f"client-{number}" for number in range(100)]
    for name in names:
        enter(backend, name, limit=100)
    backend.renew([renewal(names[0])])

    # BEGIN, lock, find, store, spare the disk, COMMIT
    assert trips(backend, lambda: backend.renew([renewal(names[0])])) == 6
    everybody = [renewal(name) for name in names]
    assert trips(backend, lambda: backend.renew(everybody)) == 6


def trips(backend: Any, work: Callable[[], object]) -> int:
    """How often the server was waited for, as libpq writes it down."""
    line = connections[backend._using].connection.pgconn
    with tempfile.TemporaryFile("w+") as trace:
        line.trace(trace.fileno())
        work()
        line.untrace()
        trace.seek(0)
        return len(re.findall(r"\tF\t\d+\t(?:Query|Sync)\b", trace.read()))


def measure(backend: Any, batch: str) -> tuple[list[float], list[float]]:
    """How long it took so many clients to get in, and how long we computed; sorted."""
    wall, cpu = [], []
    for number in range(COUNT):
        name = f"client-{batch}-{number}"
        begun, computed = perf_counter(), thread_time()
        answer = enter(backend, name, limit=9)
        wall.append((perf_counter() - begun) * 1000)
        cpu.append((thread_time() - computed) * 1000)
        assert answer == Entered(0)
        backend.revoke(session_id(name))
    return sorted(wall), sorted(cpu)


def at(values: list[float], share: float) -> float:
    return values[int(len(values) * share)]


@pytest.mark.parametrize("words", ["sqlite", "postgres"], indirect=True)
def test_pruning_many_takes_them_in_turns(backend):
    bury(backend, 2500)
    enter(backend, "a")

    assert backend.prune() == 2500
    assert alive(backend) == ["a"]
