"""When accounts were last used: kept in memory, written at most once a minute each."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.models import Q

from accounts.models import Account

_INTERVAL = timedelta(minutes=1)


class Activity:
    """One worker's memory of which accounts it used."""

    def __init__(self) -> None:
        self._used: dict[int, datetime] = {}
        self._written: dict[int, datetime] = {}

    def note(self, account_id: int, now: datetime) -> None:
        """The account serves a request; costs one dictionary entry."""
        self._used[account_id] = now

    def take_due(self, now: datetime) -> dict[int, datetime]:
        """Return what should be written now, and count it as written."""
        never = datetime.min.replace(tzinfo=now.tzinfo)
        due = {
            account_id: used
            for account_id, used in self._used.items()
            if now - self._written.get(account_id, never) >= _INTERVAL
        }
        for account_id in due:
            del self._used[account_id]
            self._written[account_id] = now
        return due


def write(used: Mapping[int, datetime]) -> None:
    """Store when accounts were used, unless another worker did in that minute."""
    for account_id, at in used.items():
        is_due = Q(last_used_at__isnull=True) | Q(last_used_at__lte=at - _INTERVAL)
        Account.objects.filter(is_due, pk=account_id).update(last_used_at=at)
