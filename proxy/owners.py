"""A worker's door to `accounts.ownership`: a bounded memory before the database."""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from django.db import Error

from accounts import ownership
from accounts.ownership import Possession
from accounts.pool import PooledAccount
from accounts.status import ObjectKind
from claudeproxy import db
from proxy import errors

_log = structlog.get_logger(__name__)

# About 250 bytes each: 5 MB when full.
_CAPACITY = 20_000
# How long it is believed that nobody has an id, and of how many ids.
_MISS_PERIOD = timedelta(seconds=60)
_MOST_MISSES = 1_000


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
        self._misses: OrderedDict[str, datetime] = OrderedDict()

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
                stored = await db.run(partial(ownership.owners, missing, now=now))
            except Error as error:
                _log.warning("owners_not_read", error=type(error).__name__)
                raise errors.owners_not_read() from error
            for object_id, (account_id, expires_at) in stored.items():
                self._keep(object_id, account_id, expires_at)
                if account_id in there:
                    found[object_id] = account_id
        return found

    async def remember(self, seen: Collection[Possession]) -> None:
        """Store whose these objects are, if that is new.

        A database that is away costs no answer: who asks for the object later finds it
        by asking the accounts.
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
        try:
            await db.run(partial(ownership.remember, news, now=now))
        except Error as error:
            _log.warning("owner_not_stored", error=type(error).__name__)

    async def forget(self, kind: ObjectKind, object_id: str, account_id: int) -> None:
        """The account has no object of this kind and id any more."""
        self._known.pop(object_id, None)
        work = partial(ownership.forget, object_id, kind, account_id=account_id)
        try:
            await db.run(work)
        except Error as error:
            _log.warning("owner_not_forgotten", error=type(error).__name__)

    def note_miss(self, object_id: str) -> None:
        """Nobody has an object of this id."""
        self._misses[object_id] = self._clock() + _MISS_PERIOD
        self._misses.move_to_end(object_id)
        if len(self._misses) > _MOST_MISSES:
            self._misses.popitem(last=False)

    def is_missed(self, object_id: str) -> bool:
        """Was it found lately that nobody has an object of this id?"""
        until = self._misses.get(object_id)
        return until is not None and until > self._clock()

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
