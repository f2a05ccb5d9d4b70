"""The panel of the ledger: whether what requests leave behind is stored and summed up.

Read from outside of the workers that keep it: from their files and from the database.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from claudeproxy.conf import conf
from usage.models import RequestRow, RollupState

# What is written is stored within a second, and summed up every five minutes.
_UNSTORED = timedelta(minutes=2)
_BEHIND = timedelta(minutes=20)


@dataclass(frozen=True)
class LedgerPanel:
    """What is the matter with the ledger, if anything is."""

    waiting_bytes: int
    behind_since: datetime | None

    def __bool__(self) -> bool:
        return bool(self.waiting_bytes or self.behind_since)


def load(now: datetime) -> LedgerPanel:
    """Look at the journal, and at the first request not summed up, in two queries."""
    state = RollupState.objects.first() or RollupState()
    new = RequestRow.objects.filter(pk__gt=state.rolled_to).order_by("pk")
    oldest = new.values_list("started_at", flat=True).first()
    return LedgerPanel(
        waiting_bytes=sum(_waiting(conf.data_dir / "journal", now)),
        behind_since=oldest if oldest and oldest < now - _BEHIND else None,
    )


def _waiting(directory: Path, now: datetime) -> Iterator[int]:
    """Sizes of files that should be gone: a worker writes to the last of its own."""
    files = defaultdict(list)
    for path in sorted(directory.glob("*.*.journal")):
        files[path.name.partition(".")[0]].append(path)
    for of_worker in files.values():
        for path in of_worker[:-1]:
            try:
                found = path.stat()
            except FileNotFoundError:
                continue  # stored meanwhile
            if datetime.fromtimestamp(found.st_mtime, UTC) < now - _UNSTORED:
                yield found.st_size
