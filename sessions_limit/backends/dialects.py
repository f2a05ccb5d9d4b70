"""How PostgreSQL and SQLite are asked: what differs between them, and only that.

On PostgreSQL a statement is a trip to the server, and Django writes the values into its
text, so that the server has to understand and plan each anew. Here it gets text and
values apart, and keeps what it understood for as long as the pool keeps the connection.
There a session gets in without a lock: it is stored if its scope is still as it was
seen. SQLite is a library: a statement is a call, and the lock costs next to nothing.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeAlias

from django.db import NotSupportedError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.operations import BaseDatabaseOperations
from django.utils import timezone

from sessions_limit.backends import statements
from sessions_limit.keys import SessionId
from sessions_limit.models import ClientSession

Rows: TypeAlias = list[tuple[Any, ...]]

_MILLISECOND = timedelta(milliseconds=1)
_NOT_EVERY_DRIVER_TAKES = frozenset({datetime, list, dict})


class Times(NamedTuple):
    """The time that a scope saw last, and the time now."""

    last: datetime
    now: datetime


class Sight(NamedTuple):
    """A scope and one session of it, as they were at one moment."""

    last: datetime  # the time that the scope saw last
    now: datetime
    version: str  # another one as soon as anybody has changed what decides here
    full_until: Any  # as the database has it, for `statements` to read
    remembered: tuple[Any, ...]


class Dialect(Protocol):
    """One database, over one of Django's connections.

    `offset` is how far tests have moved the clock.
    """

    # Whether `swap` finds out by itself if somebody was faster. Else the lock has to be
    # held from before the look until after it.
    can_swap_unlocked: bool

    def transaction(self) -> AbstractContextManager[Any]:
        """Do all or nothing; waits for nobody's lock longer than was agreed."""

    def lock(self, scope: str, offset: timedelta) -> Times:
        """Keep all others out of a scope until the transaction ends; set its clock."""

    def look(self, session: SessionId, limit: int, offset: timedelta) -> Sight | None:
        """See what decides whether a session may get in; None if the scope is new."""

    def swap(self, sight: Sight, session: ClientSession, *, is_durable: bool) -> bool:
        """Store a session and set the clock, if all is still as it was seen."""

    def prune(self, now: datetime, news_since: datetime, at_most: int) -> int:
        """Forget some sessions that have ended and return how many; waits for none."""

    def now(self, offset: timedelta) -> datetime:
        """Tell the time."""

    def ask(self, question: str, *values: Any) -> Rows:
        """Read what is there, by a plan for the tables as they are now."""

    def execute(self, statement: str, *values: Any) -> Rows:
        """Do what is done often, by a plan that is kept; return the rows, if any."""

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Execute one statement for each of the rows."""

    def spare_disk(self) -> None:
        """Do not wait for the disk when the transaction ends: a crash may undo it."""


class Postgres:
    """Locks the row of a scope; its own clock counts for all machines."""

    can_swap_unlocked = True

    # The same throughout a statement. Not `clock_timestamp()`, which moves on: no index
    # can be asked for it.
    _NOW = "statement_timestamp() + %s"
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
    # A row gets another xmin whenever it is changed, and who changes what decides here
    # changes the row of the scope too. Parameters: those of the time, of `full_until`,
    # of `JOIN`, and the scope.
    _LOOK = f"""
        SELECT scope.clock_at, {_NOW}, scope.xmin::text,
            ({{full_until}}), {statements.REMEMBERED}
        FROM sessions_limit_sessionscope AS scope {statements.JOIN}
        WHERE scope.name = %s
    """  # noqa: S608  # no values in it
    # A transaction by itself. It waits for nobody who has the lock of the scope: what
    # was seen is about to change. The bound is for who has the session alone.
    _SWAP = f"""
        WITH setting AS MATERIALIZED (
            {_BOUND}, set_config('synchronous_commit', coalesce(
                %s, current_setting('synchronous_commit')), true)
        ),
        unchanged AS MATERIALIZED (
            SELECT scope.name
            FROM setting, sessions_limit_sessionscope AS scope
            WHERE scope.name = %s AND scope.xmin = %s::xid
            FOR UPDATE OF scope SKIP LOCKED
        ),
        swapped AS (
            UPDATE sessions_limit_sessionscope AS scope SET clock_at = %s
            FROM unchanged WHERE scope.name = unchanged.name
            RETURNING scope.name
        )
        {statements.store_if("swapped")}
    """  # noqa: S608  # no values in it
    # One statement, so that no machine can be frozen while it has these rows. Who is
    # locked by somebody else may be coming back.
    _PRUNE = f"""
        {statements.DELETE}
        WHERE id = ANY(ARRAY({statements.ENDED} FOR UPDATE SKIP LOCKED))
    """

    def __init__(self, connection: BaseDatabaseWrapper, longest_wait: timedelta):
        self._connection = connection
        # Each wait counts by itself, and who queues for a row waits twice: to be the
        # next, and for who has it.
        self._lock_timeout = f"{longest_wait // 2 // _MILLISECOND}ms"

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

    def look(self, session: SessionId, limit: int, offset: timedelta) -> Sight | None:
        scope, digest = session
        full_until = statements.full_until(limit, now=self._NOW)
        question = self._LOOK.format(full_until=full_until)
        told = (offset, *(scope, offset), *(scope, digest), scope)
        for last, now, version, until, *remembered in self.execute(question, *told):
            return Sight(last, now, version, until, tuple(remembered))
        return None

    def swap(self, sight: Sight, session: ClientSession, *, is_durable: bool) -> bool:
        commit = None if is_durable else "off"
        told = (self._lock_timeout, commit, session.scope, sight.version, sight.now)
        return bool(self.execute(self._SWAP, *told, *statements.values_of(session)))

    def prune(self, now: datetime, news_since: datetime, at_most: int) -> int:
        with self._cursor() as cursor:
            told = (now, now, news_since, at_most)
            cursor.execute(self._PRUNE, told, prepare=False)
            return int(cursor.rowcount)

    def now(self, offset: timedelta) -> datetime:
        now: datetime
        [(now,)] = self.ask("SELECT clock_timestamp() + %s", offset)
        return now

    def ask(self, question: str, *values: Any) -> Rows:
        with self._cursor() as cursor:
            # Not prepared: seldom asked, it gains less than a plan for the wrong size
            # of the table would cost.
            cursor.execute(question, _adapted(values, self._connection), prepare=False)
            return list(cursor.fetchall())

    def execute(self, statement: str, *values: Any) -> Rows:
        try:
            with self._cursor() as cursor:
                told = _adapted(values, self._connection)
                cursor.execute(statement, told, prepare=True)
                return [] if cursor.rownumber is None else cursor.fetchall()
        except NotSupportedError:
            # A migration has changed the type of a column, and what was prepared before
            # is refused for as long as there is this connection.
            self._connection.connection.close()
            raise

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._cursor() as cursor:
            # sent together, not one by one
            cursor.executemany(statement, _all_adapted(rows, self._connection))

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

    can_swap_unlocked = False

    _READ_CLOCK = "SELECT clock_at FROM sessions_limit_sessionscope WHERE name = %s"
    _SET_CLOCK = """
        INSERT INTO sessions_limit_sessionscope (name, clock_at) VALUES (%s, %s)
        ON CONFLICT (name) DO UPDATE SET clock_at = excluded.clock_at
    """
    _LOOK = f"""
        SELECT ({{full_until}}), {statements.REMEMBERED}
        FROM (SELECT 1) AS always {statements.JOIN}
    """  # noqa: S608  # no values in it
    _PRUNE = f"{statements.DELETE} WHERE id IN ({statements.ENDED})"

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

    def look(self, session: SessionId, limit: int, offset: timedelta) -> Sight | None:
        now = self.now(offset)
        scope, digest = session
        question = self._LOOK.format(full_until=statements.full_until(limit))
        [(until, *remembered)] = self.ask(question, scope, now, scope, digest)
        return Sight(now, now, "", until, tuple(remembered))

    def swap(self, sight: Sight, session: ClientSession, *, is_durable: bool) -> bool:
        # Who has the lock is alone.
        self.execute(statements.STORE, *statements.values_of(session))
        return True

    def prune(self, now: datetime, news_since: datetime, at_most: int) -> int:
        with self._connection.cursor() as cursor:
            told = [now, now, news_since, at_most]
            cursor.execute(self._PRUNE, _adapted(told, self._connection))
            return int(cursor.rowcount)

    def now(self, offset: timedelta) -> datetime:
        return timezone.now() + offset

    def ask(self, question: str, *values: Any) -> Rows:
        return self.execute(question, *values)

    def execute(self, statement: str, *values: Any) -> Rows:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, _adapted(values, self._connection))
            return cursor.fetchall() if cursor.description else []

    def execute_many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(statement, _all_adapted(rows, self._connection))

    def spare_disk(self) -> None:
        """It waits for the disk only when it empties its log."""


def of(connection: BaseDatabaseWrapper, longest_wait: timedelta) -> Dialect:
    """Return the dialect of a database that is waited for so long."""
    is_postgres = connection.vendor == "postgresql"
    return (Postgres if is_postgres else SQLite)(connection, longest_wait)


def _all_adapted(
    rows: Iterable[Iterable[Any]], connection: BaseDatabaseWrapper
) -> list[list[Any]]:
    return [_adapted(row, connection) for row in rows]


def _adapted(values: Iterable[Any], connection: BaseDatabaseWrapper) -> list[Any]:
    """Return what the driver takes. Django's fields would say the same, but slowly."""
    operations = connection.ops
    return [
        _adapt(value, operations) if type(value) in _NOT_EVERY_DRIVER_TAKES else value
        for value in values
    ]


def _adapt(value: Any, operations: BaseDatabaseOperations) -> Any:
    if isinstance(value, datetime):
        return operations.adapt_datetimefield_value(value)
    return operations.adapt_json_value(value, None)
