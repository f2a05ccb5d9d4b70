"""Has model lists read again when a caller asks for a model that nobody has."""

import asyncio
from time import monotonic

from django.utils import timezone

from accounts import upkeep
from accounts.models import Account
from claudeproxy import db
from proxy.snapshot import Snapshot

# However often unknown models are asked for, the provider is asked this often.
_LEAST_SECONDS = 300.0


class Catalogue:
    """A worker's door to `accounts.capabilities`."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._lock = asyncio.Lock()
        self._read_at = float("-inf")

    async def refresh(self) -> None:
        """Read the lists of all usable accounts, unless that was done lately."""
        async with self._lock:
            if monotonic() - self._read_at < _LEAST_SECONDS:
                return
            await db.run_long(_read_all)
            await self._snapshot.refresh()
            self._read_at = monotonic()


def _read_all() -> None:
    for account in Account.objects.usable(timezone.now()):
        upkeep.look_at_capabilities(account)
