"""Sessions in the database: exact on SQLite and on PostgreSQL.

Whoever changes a session locks its scope first: a row on PostgreSQL, the whole database
on SQLite. Only one that comes in on PostgreSQL does without: it is stored if nobody has
changed the scope since it was looked at, and locks it if somebody has. Sessions that
have ended are pruned without asking: they decide nothing.

All times are PostgreSQL's own, so that machines need not agree on theirs; with SQLite
there is only one machine. `dialects.py` knows how each is asked.

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
# A refusal stores nothing, but the clock that it saw: not at each of many in a row.
_CLOCK_NOTED_WITHIN = timedelta(seconds=1)


class DatabaseBackend:
    """The store that is always there: the gateway's own database.

    Each call does its own transactions, and is in none of its caller's.
    """

    def __init__(self, using: str = DEFAULT_DB_ALIAS) -> None:
        self._using = using
        self.offset = timedelta()  # how far tests have moved the clock

    def acquire(self, entry: Entry) -> Answer:
        database = self._database
        if database.can_swap_unlocked:
            # Nearly always nobody else is at the scope, and nobody has to be kept out.
            with self._translated():
                answer = self._attempt(entry, database)
            if answer is not None:
                return answer
        with self._locked(entry.id.scope):
            answer = self._attempt(entry, database, is_locked=True)
            if answer is None:
                # All other reasons ended with the lock.
                raise StoreAwayError("the clock was set back in this very moment")
            if isinstance(answer, Refused):
                database.spare_disk()  # there is nothing that a crash must keep
            return answer

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
            database = self._database
            now = database.now(self.offset)
            pruned = 0
            while count := database.prune(now, now - REVOKED_KEPT, _PRUNED_AT_ONCE):
                pruned += count
            return pruned

    def close(self) -> None:
        """Django closes its connections itself."""

    # --- letting in

    def _attempt(
        self, entry: Entry, database: Dialect, *, is_locked: bool = False
    ) -> Answer | None:
        """Look, decide, and store if all is still as it was seen.

        None: it is not, or the clock has to be noted, for which it takes the lock.
        """
        sight = database.look(entry.id, entry.limit, self.offset)
        if sight is None or sight.now < sight.last:
            return None  # the scope is new, or the clock was set back
        now = sight.now
        connection = connections[self._using]
        row = _new_row(entry.id, now)
        statements.remember(connection, row, sight.remembered)
        full_until = statements.read_time(connection, sight.full_until)
        refused = _refusal(entry, row, full_until, now)
        if refused:
            is_noted = is_locked or now - sight.last < _CLOCK_NOTED_WITHIN
            return refused if is_noted else None
        is_new = row.expires_at <= now
        if is_new:
            _begin(row, now)
        row.expires_at = max(row.expires_at, now + entry.ttl)
        _note(row, entry, now)
        # A crash may undo what is only prolonged.
        is_stored = database.swap(sight, row, is_durable=is_new)
        return Entered(row.generation) if is_stored else None

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

    def _is_full(self, scope: str, limit: int, now: datetime) -> bool:
        return bool(self._database.ask(statements.full_until(limit), scope, now))

    def _store(self, row: ClientSession) -> None:
        self._database.execute(statements.STORE, *statements.values_of(row))

    def _store_all(self, rows: Iterable[ClientSession]) -> None:
        values = [statements.values_of(row) for row in rows]
        self._database.execute_many(statements.STORE, values)

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
