"""The panel of the ledger: whether what requests leave behind is stored and summed up.

Read from outside of the workers that keep it: from their files and from the database.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.db.models import Min

from claudeproxy.conf import conf
from usage import journal
from usage.models import RequestRow, RollupState

# Sums are brought up to date every five minutes.
_BEHIND = timedelta(minutes=20)


@dataclass(frozen=True)
class LedgerPanel:
    """What is the matter with the ledger, if anything is."""

    waiting_bytes: int
    behind_since: datetime | None

    def __bool__(self) -> bool:
        return bool(self.waiting_bytes or self.behind_since)


def load(now: datetime) -> LedgerPanel:
    """Look at the journal, and at the first request that is not summed up: 2 queries."""
    state = RollupState.objects.first() or RollupState()
    oldest = RequestRow.objects.filter(pk__gt=state.rolled_to).aggregate(
        at=Min("started_at")
    )["at"]
    is_behind = oldest is not None and oldest < now - _BEHIND
    return LedgerPanel(
        waiting_bytes=count_waiting(conf.data_dir / "journal"),
        behind_since=oldest if is_behind else None,
    )
