"""A worker's door to `accounts.ownership`: a bounded memory before the database."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import structlog
from django.db import Error, IntegrityError

from accounts import ownership
from accounts.ownership import Possession
from accounts.pool import PooledAccount
from accounts.status import ObjectKind
from claudeproxy import db
from proxy import errors

_log = structlog.get_logger(__name__)

T = TypeVar("T")

# About 250 bytes each: 5 MB when full.
_CAPACITY = 20_000
# How long it is believed that nobody has an id, and of how many ids.
_MISS_PERIOD = timedelta(seconds=60)
_MOST_MISSES = 1_000
# How long a request waits for the database, and how much is kept for it meanwhile.
_PATIENCE = timedelta(seconds=5)
_MOST_UNWRITTEN = 5_000


def _now() -> datetime:
    return datetime.now(UTC)


class Owners:
    """Object id → id of the account it belongs to."""

    def __init__(
        self, *, capacity: int = _CAPACITY, clock: Callable[[], datetime] = _now
    ) -> None:
        self._capacity = capacity
        self._clock = clock
        self._known: OrderedDict[str, tuple[int, datetime | None]] = OrderedDict()
        self._misses: OrderedDict[str, tuple[datetime, frozenset[int]]] = OrderedDict()
        # What the database did not take; it goes with what is stored next.
        self._unwritten: OrderedDict[str, Possession] = OrderedDict()

    async def find(
        self, object_ids: Collection[str], pool: Iterable[PooledAccount]
    ) -> dict[str, int]:
        """Return the owners of these objects, as far as known: one query at most.

        An account that is no longer in *pool* was deleted, and owns nothing.

        Errors: NoAccountAvailableError if the database could not be asked.
        """
        if not object_ids:
            return {}
        now, there = self._clock(), {account.id for account in pool}
        found: dict[str, int] = {}
        for object_id in object_ids:
            account_id = self._recall(object_id, now)
            if account_id in there:
                found[object_id] = account_id
        missing = [object_id for object_id in object_ids if object_id not in found]
        if missing:
            try:
                stored = await _run(partial(ownership.owners, missing, now=now))
            except (Error, TimeoutError) as error:
                _log.warning("owners_not_read", error=type(error).__name__)
                raise errors.owners_not_read() from error
            for object_id, (account_id, expires_at) in stored.items():
                self._keep(object_id, account_id, expires_at)
                if account_id in there:
                    found[object_id] = account_id
        return found

    async def remember(self, seen: Collection[Possession]) -> None:
        """Store whose these objects are, if that is new.

        A database that is away costs no answer: it is told later, with what is new
        then.
        """
        now = self._clock()
        news = [
            possession
            for possession in seen
            if self._recall(possession.object_id, now) != possession.account_id
        ]
        if not news:
            return
        for possession in news:
            self._keep(
                possession.object_id, possession.account_id, possession.expires_at
            )
            self._misses.pop(possession.object_id, None)
        news = [*self._unwritten.values(), *news]
        self._unwritten.clear()
        try:
            await _run(partial(ownership.remember, news, now=now))
        except (Error, TimeoutError) as error:
            _log.warning("owner_not_stored", error=type(error).__name__)
            if not isinstance(error, IntegrityError):  # an account that was deleted
                self._postpone(news)
        except asyncio.CancelledError:
            self._postpone(news)  # it may not have been begun
            raise

    def _postpone(self, news: Iterable[Possession]) -> None:
        for possession in news:
            self._unwritten[possession.object_id] = possession
        while len(self._unwritten) > _MOST_UNWRITTEN:
            self._unwritten.popitem(last=False)

    async def forget(self, kind: ObjectKind, object_id: str, account_id: int) -> None:
        """The account has no object of this kind and id any more."""
        self._known.pop(object_id, None)
        self._unwritten.pop(object_id, None)
        work = partial(ownership.forget, object_id, kind, account_id=account_id)
        try:
            await _run(work)
        except (Error, TimeoutError) as error:
            _log.warning("owner_not_forgotten", error=type(error).__name__)

    def note_miss(self, object_id: str, asked: Iterable[PooledAccount]) -> None:
        """None of these accounts has an object of this id."""
        ids = frozenset(account.id for account in asked)
        self._misses[object_id] = (self._clock() + _MISS_PERIOD, ids)
        self._misses.move_to_end(object_id)
        if len(self._misses) > _MOST_MISSES:
            self._misses.popitem(last=False)

    def is_missed(self, object_id: str, pool: Iterable[PooledAccount]) -> bool:
        """Was it found lately that none of these accounts has an object of this id?"""
        miss = self._misses.get(object_id)
        if miss is None:
            return False
        until, asked = miss
        return until > self._clock() and all(account.id in asked for account in pool)

    def _recall(self, object_id: str, now: datetime) -> int | None:
        known = self._known.get(object_id)
        if known is None:
            return None
        account_id, expires_at = known
        if expires_at is not None and expires_at <= now:
            del self._known[object_id]
            return None
        self._known.move_to_end(object_id)
        return account_id

    def _keep(
        self, object_id: str, account_id: int, expires_at: datetime | None
    ) -> None:
        self._known[object_id] = (account_id, expires_at)
        self._known.move_to_end(object_id)
        if len(self._known) > self._capacity:
            self._known.popitem(last=False)


async def _run(work: Callable[[], T]) -> T:
    """Have the database do something; TimeoutError if that takes too long."""
    async with asyncio.timeout(_PATIENCE.total_seconds()):
        return await db.run(work)
