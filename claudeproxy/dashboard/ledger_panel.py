"""The panel of the ledger: whether what requests leave behind is stored and summed up.

Read from outside of the workers that keep it: from their files and from the database.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from claudeproxy.conf import conf
from usage import journal
from usage.models import RequestRow, RollupState

# What is written is stored within a second, and summed up every five minutes.
_UNSTORED = timedelta(minutes=2)
_BEHIND = timedelta(minutes=20)


@dataclass(frozen=True)
class LedgerPanel:
    """What is the matter with the ledger, if anything is."""

    waiting_bytes: int
    waiting_since: datetime | None
    behind_since: datetime | None

    def __bool__(self) -> bool:
        return bool(self.waiting_bytes or self.behind_since)


def load(now: datetime) -> LedgerPanel:
    """Look at the journal, and at the first request not summed up, in two queries."""
    state = RollupState.objects.first() or RollupState()
    new = RequestRow.objects.filter(pk__gt=state.rolled_to).order_by("pk")
    oldest = new.values_list("started_at", flat=True).first()
    waiting = journal.backlog(conf.data_dir / "journal")
    is_late = waiting.since is not None and waiting.since < now - _UNSTORED
    return LedgerPanel(
        waiting_bytes=waiting.bytes if is_late else 0,
        waiting_since=waiting.since if is_late else None,
        behind_since=oldest if oldest and oldest < now - _BEHIND else None,
    )
