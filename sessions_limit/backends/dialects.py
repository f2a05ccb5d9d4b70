"""How PostgreSQL and SQLite are asked: what differs between them, and only that.

On PostgreSQL a statement is a trip to the server, and Django writes the values into its
text, so that the server has to understand and plan each anew. Here it gets text and
values apart, and keeps what it understood for as long as the pool keeps the connection.
SQLite is a library: a statement is a call.
"""

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeAlias

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils import timezone

Rows: TypeAlias = list[tuple[Any, ...]]

_MILLISECOND = timedelta(milliseconds=1)


class Times(NamedTuple):
    """The time that a scope saw last, and the time now."""

    last: datetime
    now: datetime


class Dialect(Protocol):
    """One database, over one of Django's connections.

    `offset` is how far tests have moved the clock.
    """

    def transaction(self) -> AbstractContextManager[Any]:
        """Do all or nothing; waits for nobody's lock longer than was agreed."""

    def lock(self, scope: str, offset: timedelta) -> Times:
        """Keep all others out of a scope until the transaction ends; set its clock."""

    def now(self, offset: timedelta) -> datetime:
        """Tell the time."""

    def ask(self, question: str, *values: Any) -> Rows:
        """Read what is there; planned for the tables as they are now."""

    def execute(self, statement: str, *values: Any) -> Rows:
        """Change something, by a plan that is kept; return the rows, if any."""

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute one statement for each of the rows."""

    def spare_disk(self) -> None:
        """Do not wait for the disk when the transaction ends: a crash may undo it."""


class Postgres:
    """Locks the row of a scope; its own clock counts for all machines."""

    # Who holds the row's lock may be a machine that was frozen: PostgreSQL would wait
    # for it without end.
    _BOUND = "SELECT set_config('lock_timeout', %s, true)"
    # Three steps in one trip, each of which needs the rows of the one before: the
    # bound, the lock, the time. So the clock is read once the lock is held, also if
    # who had it before gave up and left the row as it was.
    _LOCK = f"""
        WITH bound AS MATERIALIZED ({_BOUND}),
        locked AS MATERIALIZED (
            SELECT scope.name, scope.clock_at
            FROM bound, sessions_limit_sessionscope AS scope
            WHERE scope.name = %s
            FOR UPDATE OF scope
        )
        UPDATE sessions_limit_sessionscope AS scope
        SET clock_at = clock_timestamp() + %s
        FROM locked
        WHERE scope.name = locked.name
        RETURNING locked.clock_at, scope.clock_at
    """  # noqa: S608  # no values in it
    _MAKE = """
        INSERT INTO sessions_limit_sessionscope (name, clock_at)
        VALUES (%s, clock_timestamp() + %s)
        ON CONFLICT (name) DO NOTHING
    """

    def __init__(self, connection: BaseDatabaseWrapper, longest_wait: timedelta):
        self._connection = connection
        self._lock_timeout = f"{longest_wait // _MILLISECOND}ms"

    def transaction(self) -> AbstractContextManager[Any]:
        return transaction.atomic(using=self._connection.alias)

    def lock(self, scope: str, offset: timedelta) -> Times:
        found = self.execute(self._LOCK, self._lock_timeout, scope, offset)
        if not found:
            # Without a row to lock, nothing had to ask for the bound.
            self.ask(self._BOUND, self._lock_timeout)
            # Of several that make it, each waits here until the first has committed.
            self.execute(self._MAKE, scope, offset)
            return self.lock(scope, offset)
        return Times(*found[0])

    def now(self, offset: timedelta) -> datetime:
        now: datetime
        [(now,)] = self.ask("SELECT clock_timestamp() + %s", offset)
        return now

    def ask(self, question: str, *values: Any) -> Rows:
        with self._cursor() as cursor:
            # Not prepared: a plan from when the table was small would be kept as it
            # grows, and an answer could not get another column.
            cursor.execute(question, values, prepare=False)
            return list(cursor.fetchall())

    def execute(self, statement: str, *values: Any) -> Rows:
        with self._cursor() as cursor:
            cursor.execute(statement, values, prepare=True)
            return [] if cursor.rownumber is None else cursor.fetchall()

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._cursor() as cursor:
            cursor.executemany(statement, rows)  # sent together, not one by one

    def spare_disk(self) -> None:
        self.execute("SET LOCAL synchronous_commit TO off")

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[Any]:
        """A cursor of psycopg's own: Django's do not prepare.

        Preparing is allowed for no longer than that. Else psycopg would count Django's
        statements too, and keep their texts for it, of which some are megabytes.
        """
        database: Any = self._connection
        database.ensure_connection()
        connection, psycopg = database.connection, database.Database
        with (
            database.wrap_database_errors,
            psycopg.Cursor(connection) as cursor,
        ):
            before, connection.prepare_threshold = connection.prepare_threshold, 0
            try:
                yield cursor
            finally:
                connection.prepare_threshold = before


class SQLite:
    """Locks the whole database, when a transaction begins (`SQLITE_OPTIONS`)."""

    _READ_CLOCK = "SELECT clock_at FROM sessions_limit_sessionscope WHERE name = %s"
    _SET_CLOCK = """
        INSERT INTO sessions_limit_sessionscope (name, clock_at) VALUES (%s, %s)
        ON CONFLICT (name) DO UPDATE SET clock_at = excluded.clock_at
    """

    def __init__(self, connection: BaseDatabaseWrapper, longest_wait: timedelta):
        self._connection = connection
        self._longest_wait_ms = longest_wait // _MILLISECOND

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        [(before,)] = self.ask("PRAGMA busy_timeout")
        self.execute(f"PRAGMA busy_timeout = {self._longest_wait_ms}")
        try:
            with transaction.atomic(using=self._connection.alias):
                yield
        finally:
            self.execute(f"PRAGMA busy_timeout = {before}")

    def lock(self, scope: str, offset: timedelta) -> Times:
        now = self.now(offset)
        found = self.ask(self._READ_CLOCK, scope)
        self.execute(self._SET_CLOCK, scope, now)
        return Times(found[0][0].replace(tzinfo=UTC) if found else now, now)

    def now(self, offset: timedelta) -> datetime:
        return timezone.now() + offset

    def ask(self, question: str, *values: Any) -> Rows:
        return self.execute(question, *values)

    def execute(self, statement: str, *values: Any) -> Rows:
        adapt = self._connection.ops.adapt_datetimefield_value
        with self._connection.cursor() as cursor:
            cursor.execute(
                statement, [adapt(v) if isinstance(v, datetime) else v for v in values]
            )
            return cursor.fetchall() if cursor.description else []

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(statement, rows)

    def spare_disk(self) -> None:
        """It waits for the disk only when it empties its log."""


def of(connection: BaseDatabaseWrapper, longest_wait: timedelta) -> Dialect:
    """Return the dialect of a database that is waited for so long."""
    is_postgres = connection.vendor == "postgresql"
    return (Postgres if is_postgres else SQLite)(connection, longest_wait)
