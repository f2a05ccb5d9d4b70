"""Sessions in the database: exact on SQLite and on PostgreSQL.

Whoever changes a scope locks it first: its row on PostgreSQL, the whole database on
SQLite, whose transactions take the write lock when they begin (`SQLITE_OPTIONS`). All
times are PostgreSQL's own, read once the lock is held, so that machines need not agree
on theirs; with SQLite there is only one machine.

A clock that was set back would keep sessions alive for longer, and revive dead ones.
So each scope keeps the latest time it saw, and if the clock is behind it, all deadlines
of the scope are moved back by as much.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error, connections, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from sessions_limit.backends import holds
from sessions_limit.backends.base import (
    MOST_ACCOUNT_NAMES,
    REVOKED_KEPT,
    Answer,
    Entered,
    Entry,
    LiveSession,
    News,
    Obstacle,
    Refused,
    Renewal,
    Revocation,
    Standing,
    StoreAwayError,
)
from sessions_limit.keys import Client, SessionId
from sessions_limit.models import ClientSession, SessionScope

# The lock is held for no more than these at a time.
_RENEWED_AT_ONCE = 500
_PRUNED_AT_ONCE = 1000
# For a lock of another worker's; each holds it for milliseconds.
_LONGEST_WAIT = timedelta(seconds=3)
_MILLISECOND = timedelta(milliseconds=1)

# What nearly every operation asks, in SQL: the query builder would take ten times as
# long to write these as the database to answer them.
_READ_CLOCK = "SELECT clock_at FROM sessions_limit_sessionscope WHERE name = %s"
_LOCK_ROW = f"{_READ_CLOCK} FOR UPDATE"
# As two of SET LOCAL, in one statement.
_PREPARE = (
    "SELECT set_config('synchronous_commit', 'off', true), "
    "set_config('lock_timeout', %s, true)"
)
_SET_CLOCK = "UPDATE sessions_limit_sessionscope SET clock_at = %s WHERE name = %s"
_FIND = "SELECT * FROM sessions_limit_clientsession WHERE scope = %s AND digest = %s"
_COUNT_ALIVE = (
    "SELECT count(*) FROM sessions_limit_clientsession "
    "WHERE scope = %s AND expires_at > %s"
)

_CHANGEABLE = (
    "key_id",
    "key_name",
    "ip",
    "user_agent",
    "first_seen_at",
    "last_seen_at",
    "expires_at",
    "requests",
    "account_names",
    "holds",
    "in_flight",
    "generation",
    "revoked_at",
    "blocked_until",
)


class DatabaseBackend:
    """The store that is always there: the gateway's own database."""

    def __init__(self, using: str = DEFAULT_DB_ALIAS) -> None:
        self._using = using
        self.offset = timedelta()  # how far tests have moved the clock

    def acquire(self, entry: Entry) -> Answer:
        with self._locked(entry.id.scope) as now:
            row = self._find(entry.id) or _new_row(entry.id, now)
            if row.blocked_until is not None and row.blocked_until > now:
                return Refused(Obstacle.BLOCKED, row.blocked_until - now)
            if row.expires_at <= now:
                wait = self._wait_for_place(entry.id.scope, entry.limit, now)
                if wait is not None:
                    return Refused(Obstacle.FULL, wait)
                self._make_durable()
                _begin(row, now)
            others = holds.running(
                holds.fresh(row.holds, now), without=entry.hold.worker
            )
            if entry.max_requests and others + entry.hold.running > entry.max_requests:
                return Refused(Obstacle.BUSY, timedelta())
            row.expires_at = max(row.expires_at, now + entry.ttl)
            _note(row, entry, now)
            self._store([row])
            return Entered(row.generation)

    def renew(self, renewals: Sequence[Renewal]) -> list[Standing]:
        standings: dict[SessionId, Standing] = {}
        for scope, group in _by_scope(renewals):
            # One transaction holds one scope, so no two can wait for each other.
            with self._locked(scope) as now:
                standings |= self._renew(scope, group, now)
        return [standings[renewal.id] for renewal in renewals]

    def revoke(self, session: SessionId, *, block: timedelta | None = None) -> bool:
        with self._locked(session.scope) as now:
            row = self._find(session)
            if row is None:
                return False
            self._make_durable()
            row.expires_at = min(row.expires_at, now)
            row.revoked_at = now
            row.blocked_until = now + block if block else None
            row.generation += 1
            row.holds, row.in_flight = {}, 0
            self._store([row])
            return True

    def news(self) -> News:
        with self._translated():
            since = self._now() - REVOKED_KEPT
            found = self._rows().filter(revoked_at__gt=since)
            revocations = found.values_list("scope", "digest", "generation")
            return News(
                epoch="",  # what a database has stored, it keeps
                revocations=tuple(
                    Revocation(SessionId(scope, digest), generation)
                    for scope, digest, generation in revocations
                ),
            )

    def live(self) -> list[LiveSession]:
        with self._translated():
            now = self._now()
            found = self._rows().filter(
                Q(expires_at__gt=now) | Q(blocked_until__gt=now)
            )
            return [_shown(row, now) for row in found.order_by("-last_seen_at", "pk")]

    def prune(self) -> int:
        with self._translated():
            now = self._now()
            ended = self._rows().filter(
                Q(blocked_until=None) | Q(blocked_until__lte=now),
                Q(revoked_at=None) | Q(revoked_at__lte=now - REVOKED_KEPT),
                expires_at__lte=now,
            )
            pruned = 0
            while keys := list(ended.values_list("pk", flat=True)[:_PRUNED_AT_ONCE]):
                # Asked again: one of them may be alive by now.
                deleted, _ = ended.filter(pk__in=keys).delete()
                pruned += deleted
            return pruned

    # --- the lock and the clock

    @contextlib.contextmanager
    def _locked(self, scope: str) -> Iterator[datetime]:
        """Keep all others out of the scope; yields the time."""
        with self._translated(), transaction.atomic(using=self._using):
            self._prepare()
            clock_at = self._lock(scope)
            now = self._now()
            if now < clock_at:
                self._move_deadlines(scope, clock_at - now)
            self._ask(_SET_CLOCK, now, scope)
            yield now

    def _prepare(self) -> None:
        """Wait neither for the disk nor for ever.

        A renewal that a crash undoes comes again. Who holds the lock may be a machine
        that was frozen, and PostgreSQL would wait for it without end.
        """
        if self._is_postgres:
            self._ask(_PREPARE, f"{_LONGEST_WAIT // _MILLISECOND}ms")

    def _make_durable(self) -> None:
        """Wait for the disk after all: a crash must not undo what was promised."""
        if self._is_postgres:
            self._ask("SET LOCAL synchronous_commit TO DEFAULT")

    @property
    def _is_postgres(self) -> bool:
        return connections[self._using].vendor == "postgresql"

    def _lock(self, scope: str) -> datetime:
        """Lock the scope; return the latest time that it saw."""
        statement = _LOCK_ROW if self._is_postgres else _READ_CLOCK
        row = self._ask(statement, scope)
        if row is None:
            made = SessionScope(name=scope, clock_at=self._now())
            # Of several that make it, each waits here until the first has committed.
            SessionScope.objects.using(self._using).bulk_create(
                [made], ignore_conflicts=True
            )
            row = self._ask(statement, scope) or (made.clock_at,)
        found: datetime = row[0]
        return found if found.tzinfo else found.replace(tzinfo=UTC)  # SQLite's

    def _ask(self, statement: str, *values: Any) -> tuple[Any, ...] | None:
        """Execute one statement; return its first row, if it has rows."""
        connection = connections[self._using]
        adapt = connection.ops.adapt_datetimefield_value
        with connection.cursor() as cursor:
            cursor.execute(
                statement, [adapt(v) if isinstance(v, datetime) else v for v in values]
            )
            return cursor.fetchone() if cursor.description else None

    def _move_deadlines(self, scope: str, back: timedelta) -> None:
        self._rows().filter(scope=scope).update(expires_at=F("expires_at") - back)

    def _now(self) -> datetime:
        if not self._is_postgres:
            return timezone.now() + self.offset
        row = self._ask("SELECT clock_timestamp()") or (timezone.now(),)
        now: datetime = row[0]
        return now + self.offset

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Error as error:
            raise StoreAwayError(type(error).__name__) from error

    # --- rows

    def _rows(self) -> QuerySet[ClientSession]:
        return ClientSession.objects.using(self._using)

    def _find(self, session: SessionId) -> ClientSession | None:
        found = ClientSession.objects.using(self._using).raw(_FIND, session)
        return next(iter(found), None)

    def _store(self, rows: Iterable[ClientSession]) -> None:
        self._rows().bulk_create(
            rows,
            update_conflicts=True,
            unique_fields=["scope", "digest"],
            update_fields=_CHANGEABLE,
        )

    def _wait_for_place(
        self, scope: str, limit: int, now: datetime
    ) -> timedelta | None:
        """None if there is a place, else how long there will be none at least."""
        (count,) = self._ask(_COUNT_ALIVE, scope, now) or (0,)
        if count < limit:
            return None
        alive = self._rows().filter(scope=scope, expires_at__gt=now)
        # More than one has to end where the limit was lowered.
        ends = alive.order_by("expires_at").values_list("expires_at", flat=True)
        first: datetime = ends[count - limit]
        return first - now

    def _renew(
        self, scope: str, renewals: Sequence[Renewal], now: datetime
    ) -> dict[SessionId, Standing]:
        digests = [renewal.id.digest for renewal in renewals]
        found = self._rows().filter(scope=scope, digest__in=digests)
        rows = {row.digest: row for row in found}
        standings, renewed = {}, []
        for renewal in renewals:
            row = rows.get(renewal.id.digest) or _new_row(renewal.id, now)
            standing = self._standing(row, renewal, now)
            standings[renewal.id] = standing
            if standing is Standing.ALIVE:
                row.requests += renewal.requests
                row.account_names = _latest(renewal.account_names, row.account_names)
                _note(row, renewal, now)
                renewed.append(row)
        self._store(renewed)
        return standings

    def _standing(
        self, row: ClientSession, renewal: Renewal, now: datetime
    ) -> Standing:
        """Say how the session stands, and let it be alive if it may be."""
        if row.generation > renewal.generation:
            return Standing.REVOKED
        if row.expires_at <= now:
            if self._wait_for_place(row.scope, renewal.limit, now) is not None:
                return Standing.LOST
            self._make_durable()
            _begin(row, now)
            row.generation = renewal.generation
            row.expires_at = now + renewal.lifetime
            _note(row, renewal, now)
            self._store([row])  # the next one that comes back must see it
        row.expires_at = max(row.expires_at, now + renewal.lifetime)
        return Standing.ALIVE


def _by_scope(
    renewals: Sequence[Renewal],
) -> Iterator[tuple[str, Sequence[Renewal]]]:
    groups: dict[str, list[Renewal]] = {}
    for renewal in renewals:
        groups.setdefault(renewal.id.scope, []).append(renewal)
    for scope, group in groups.items():
        for start in range(0, len(group), _RENEWED_AT_ONCE):
            yield scope, group[start : start + _RENEWED_AT_ONCE]


def _new_row(session: SessionId, now: datetime) -> ClientSession:
    return ClientSession(
        scope=session.scope,
        digest=session.digest,
        first_seen_at=now,
        last_seen_at=now,
        expires_at=now,  # not alive yet
    )


def _begin(row: ClientSession, now: datetime) -> None:
    """It was dead, if it was at all: its former life is not counted as this one's."""
    row.first_seen_at = now
    row.requests, row.account_names = 0, []
    row.blocked_until = None


def _note(row: ClientSession, seen: Entry | Renewal, now: datetime) -> None:
    _describe(row, seen.client)
    row.last_seen_at = now
    row.holds = holds.reported(holds.fresh(row.holds, now), seen.hold, now)
    row.in_flight = holds.running(row.holds)


def _describe(row: ClientSession, client: Client) -> None:
    row.key_id, row.key_name = client.key_id, client.key_name
    row.ip, row.user_agent = client.ip, client.user_agent


def _latest(names: Iterable[str], before: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*names, *before]))[:MOST_ACCOUNT_NAMES]


def _shown(row: ClientSession, now: datetime) -> LiveSession:
    is_blocked = row.blocked_until is not None and row.blocked_until > now
    return LiveSession(
        id=SessionId(row.scope, row.digest),
        client=Client(row.digest, row.ip, row.user_agent, row.key_id, row.key_name),
        first_seen_at=row.first_seen_at,
        last_seen_at=row.last_seen_at,
        expires_at=row.expires_at,
        requests=row.requests,
        in_flight=holds.running(holds.fresh(row.holds, now)),
        account_names=tuple(row.account_names),
        is_alive=row.expires_at > now,
        blocked_until=row.blocked_until if is_blocked else None,
    )
