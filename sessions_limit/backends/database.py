"""Sessions in the database: exact on SQLite and on PostgreSQL.

Whoever changes a scope locks it first: its row on PostgreSQL, the whole database on
SQLite. All times are PostgreSQL's own, read once the lock is held, so that machines
need not agree on theirs; with SQLite there is only one machine. `dialects.py` knows how
each is asked.

A clock that was set back would keep sessions alive for longer, and revive dead ones.
So each scope keeps the latest time it saw, and if the clock is behind it, all deadlines
of the scope are moved back by as much.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.models import F, Q, QuerySet

from sessions_limit.backends import dialects, holds, statements
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
from sessions_limit.backends.dialects import Dialect
from sessions_limit.keys import Client, SessionId
from sessions_limit.models import ClientSession

# The lock is held for no more than these at a time.
_RENEWED_AT_ONCE = 500
_PRUNED_AT_ONCE = 1000
# For a lock of another's; each worker holds it for milliseconds.
_LONGEST_WAIT = timedelta(seconds=3)


class DatabaseBackend:
    """The store that is always there: the gateway's own database."""

    def __init__(self, using: str = DEFAULT_DB_ALIAS) -> None:
        self._using = using
        self.offset = timedelta()  # how far tests have moved the clock

    def acquire(self, entry: Entry) -> Answer:
        with self._locked(entry.id.scope) as now:
            row, full_until = self._look(entry, now)
            refused = _refusal(entry, row, full_until, now)
            is_new = row.expires_at <= now
            if refused or not is_new:
                self._database.spare_disk()  # there is nothing that a crash must keep
            if refused:
                return refused
            if is_new:
                _begin(row, now)
            row.expires_at = max(row.expires_at, now + entry.ttl)
            _note(row, entry, now)
            self._store(row)
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
            named = self._rows().filter(scope=session.scope, digest=session.digest)
            row = named.first()
            if row is None:
                return False
            row.expires_at = min(row.expires_at, now)
            row.revoked_at = now
            row.blocked_until = now + block if block else None
            row.generation += 1
            row.holds, row.in_flight = {}, 0
            self._store(row)
            return True

    def news(self) -> News:
        with self._translated():
            since = self._database.now(self.offset) - REVOKED_KEPT
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
            now = self._database.now(self.offset)
            found = self._rows().filter(
                Q(expires_at__gt=now) | Q(blocked_until__gt=now)
            )
            return [_shown(row, now) for row in found.order_by("-last_seen_at", "pk")]

    def prune(self) -> int:
        with self._translated():
            now = self._database.now(self.offset)
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

    def close(self) -> None:
        """Django closes its connections itself."""

    # --- the lock and the clock

    @contextlib.contextmanager
    def _locked(self, scope: str) -> Iterator[datetime]:
        """Keep all others out of the scope; yields the time."""
        with self._translated(), self._database.transaction():
            last, now = self._database.lock(scope, self.offset)
            if now < last:
                self._move_deadlines(scope, last - now)
            yield now

    @property
    def _database(self) -> Dialect:
        return dialects.of(connections[self._using], _LONGEST_WAIT)

    def _move_deadlines(self, scope: str, back: timedelta) -> None:
        self._rows().filter(scope=scope).update(expires_at=F("expires_at") - back)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Error as error:
            raise StoreAwayError(type(error).__name__) from error

    # --- rows

    def _rows(self) -> QuerySet[ClientSession]:
        return ClientSession.objects.using(self._using)

    def _look(
        self, entry: Entry, now: datetime
    ) -> tuple[ClientSession, datetime | None]:
        """Find a session, or begin one; and until when its scope is full, if it is."""
        connection = connections[self._using]
        scope, digest = entry.id
        [(full_until, *values)] = self._database.ask(
            statements.LOOK, scope, now, entry.limit - 1, scope, digest
        )
        row = statements.read_session(connection, values) or _new_row(entry.id, now)
        return row, statements.read_time(connection, full_until)

    def _is_full(self, scope: str, limit: int, now: datetime) -> bool:
        return bool(self._database.ask(statements.FULL_UNTIL, scope, now, limit - 1))

    def _store(self, row: ClientSession) -> None:
        values = statements.values_of(connections[self._using], row)
        self._database.execute(statements.STORE, *values)

    def _store_all(self, rows: Iterable[ClientSession]) -> None:
        connection = connections[self._using]
        self._database.execute_many(
            statements.STORE, [statements.values_of(connection, row) for row in rows]
        )

    def _renew(
        self, scope: str, renewals: Sequence[Renewal], now: datetime
    ) -> dict[SessionId, Standing]:
        digests = [renewal.id.digest for renewal in renewals]
        found = self._rows().filter(scope=scope, digest__in=digests)
        rows = {row.digest: row for row in found}
        standings, renewed, is_any_new = {}, [], False
        for renewal in renewals:
            row = rows.get(renewal.id.digest) or _new_row(renewal.id, now)
            is_new = row.expires_at <= now
            standing = self._standing(row, renewal, now)
            standings[renewal.id] = standing
            if standing is Standing.ALIVE:
                is_any_new |= is_new
                row.requests += renewal.requests
                row.account_names = _latest(renewal.account_names, row.account_names)
                _note(row, renewal, now)
                renewed.append(row)
        self._store_all(renewed)
        if not is_any_new:
            self._database.spare_disk()  # what a crash undoes is renewed again
        return standings

    def _standing(
        self, row: ClientSession, renewal: Renewal, now: datetime
    ) -> Standing:
        """Say how the session stands, and let it be alive if it may be."""
        if row.generation > renewal.generation:
            return Standing.REVOKED
        if row.expires_at <= now:
            if self._is_full(row.scope, renewal.limit, now):
                return Standing.LOST
            _begin(row, now)
            row.generation = renewal.generation
            row.expires_at = now + renewal.lifetime
            _note(row, renewal, now)
            self._store(row)  # the next one that comes back must see it
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


def _refusal(
    entry: Entry, row: ClientSession, full_until: datetime | None, now: datetime
) -> Refused | None:
    if row.blocked_until is not None and row.blocked_until > now:
        return Refused(Obstacle.BLOCKED, row.blocked_until - now)
    if row.expires_at <= now and full_until is not None:
        return Refused(Obstacle.FULL, full_until - now)
    others = holds.running(holds.fresh(row.holds, now), without=entry.hold.worker)
    if entry.max_requests and others + entry.hold.running > entry.max_requests:
        return Refused(Obstacle.BUSY, timedelta())
    return None


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
