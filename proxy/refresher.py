"""Has an account's access token refreshed before a request uses it.

All requests of a worker that wait for one account share one attempt; workers and jobs
share it through the lease in the database (`accounts.tokens`).
"""

import asyncio
from datetime import datetime, timedelta
from functools import partial
from time import monotonic

import structlog
from django.db import Error as DatabaseError

from accounts import tokens
from accounts.pool import REFRESH_MARGIN, PooledAccount
from accounts.tokens import Outcome, Result
from claudeproxy import db
from claudeproxy.crypto import Secret
from proxy.snapshot import Snapshot

_log = structlog.get_logger(__name__)

# What leaves the account without a token to use, even if the old one has time left.
_HOPELESS = {Outcome.INVALID, Outcome.GONE}


class Refresher:
    """A worker's door to `accounts.tokens`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._attempts: dict[int, asyncio.Task[Result]] = {}

    async def fresh(
        self, account: PooledAccount, now: datetime
    ) -> PooledAccount | None:
        """Return the account with a token to use now, or None if it has none."""
        if account.expires_at is None or account.expires_at - now >= REFRESH_MARGIN:
            return account
        begun_at = monotonic()
        result = await self._share_attempt(account.id)
        now += timedelta(seconds=monotonic() - begun_at)
        current = self._snapshot.find(account.id)
        if result.outcome in _HOPELESS or current is None:
            return None
        # An old token is as good as ever until its time is up.
        lives = current.expires_at is None or current.expires_at > now
        return current if lives else None

    async def replace(self, account: PooledAccount) -> PooledAccount | bool:
        """Return the account with another token than the one that was refused.

        Shape: True if it will have none, False if that is not known: trouble on the
        way to a new token says nothing about the account.
        """
        # The attempt that is joined may be one that knows of no refusal.
        for _ in range(2):
            result = await self._share_attempt(account.id, refused=account.credential)
            current = self._snapshot.find(account.id)
            if result.outcome in _HOPELESS or current is None:
                return True
            if current.credential != account.credential:
                return current
        return False

    async def _share_attempt(
        self, account_id: int, refused: Secret | None = None
    ) -> Result:
        attempt = self._attempts.get(account_id)
        if attempt is None:
            attempt = asyncio.create_task(self._attempt(account_id, refused))
            self._attempts[account_id] = attempt
            attempt.add_done_callback(lambda _: self._attempts.pop(account_id))
        # A caller who leaves takes nobody else's refresh with him.
        return await asyncio.shield(attempt)

    async def _attempt(self, account_id: int, refused: Secret | None) -> Result:
        refresh = partial(tokens.ensure_fresh, account_id, refused=refused)
        try:
            result = await db.run_long(refresh)
        except DatabaseError as error:
            _log.warning("token_refresh_failed", error=type(error).__name__)
            result = Result(Outcome.FAILED, "the database could not be asked")
        await self._snapshot.refresh()
        return result
