"""What a worker knows of the database without asking it: the pool and the client keys.

Read whole once a second and on demand, so that the way of a request has no query. If
the database is away, what was read last goes on counting.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

import structlog
from django.db import Error as DatabaseError

from accounts import pool
from accounts.pool import PooledAccount
from claudeproxy import db
from clients import directory
from clients.directory import KnownKey
from proxy.background import repeated

_log = structlog.get_logger(__name__)

_INTERVAL_SECONDS = 1.0
# However many unknown keys come in, the database is asked this often at most.
_LEAST_AGE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Contents:
    """One reading of the database."""

    accounts: tuple[PooledAccount, ...] = ()
    keys: Mapping[bytes, KnownKey] = field(default_factory=dict)


def read() -> Contents:
    """Read accounts and keys."""
    return Contents(pool.load(), directory.load())


class Snapshot:
    """The latest reading, kept fresh by a task of its own."""

    def __init__(self, read: Callable[[], Contents] = read) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")
        self._is_failing = False
        self.contents = Contents()
        # Until the first reading succeeds, nothing may be concluded from the contents.
        self.is_loaded = False

    @contextlib.asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator[None]:
        """Read now, and again every second until the context ends."""
        await self.refresh()
        async with repeated(self.refresh, seconds=_INTERVAL_SECONDS):
            yield

    def find(self, account_id: int) -> PooledAccount | None:
        """Return an account of the latest reading."""
        return next((a for a in self.contents.accounts if a.id == account_id), None)

    async def refresh(self) -> None:
        """Read again: whatever is in the database at this call is seen afterwards.

        Calls that come together share one reading, and one follows another after a
        moment at the earliest.
        """
        called_at = monotonic()
        async with self._lock:
            if self._read_at > called_at:
                return
            await asyncio.sleep(self._read_at + _LEAST_AGE_SECONDS - called_at)
            self._read_at = monotonic()
            try:
                self.contents = await db.run(self._read)
            except DatabaseError as error:
                self._note_failure(error)
            else:
                self.is_loaded, self._is_failing = True, False

    def _note_failure(self, error: DatabaseError) -> None:
        if not self._is_failing:
            _log.warning("snapshot_kept", error=type(error).__name__)
        self._is_failing = True
