"""What was last seen of accounts' limits: kept in memory, written every few seconds."""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple, TypeAlias

from django.db import transaction

from accounts import quota
from accounts.models import Account, QuotaWindow
from accounts.quota import Window

# What has not changed is written again this often: how old it is can be told.
_INTERVAL = timedelta(minutes=1)
# Names are the upstream's, groups of models nearly so: a bound for both.
_MOST_OF_AN_ACCOUNT = 60
_MOST_IN_MEMORY = 1_000
_FACTS = ("utilization", "limit", "remaining", "resets_at", "status")

# Name and group of models: what tells the windows of an account apart.
Name: TypeAlias = tuple[str, str]


class Sighting(NamedTuple):
    """The headers of an answer, not read yet."""

    account_id: int
    seen_at: datetime
    headers: list[tuple[bytes, bytes]]
    # The models that share the buckets of this answer; None: they are none of messages.
    model_group: str | None

    @property
    def windows(self) -> tuple[Window, ...]:
        return quota.read(self.headers, self.seen_at, model_group=self.model_group)


class Sightings:
    """One worker's memory of the latest answers, by account and group of models.

    Plans have limits that only the answers of some models show, so those of each group
    are kept.
    """

    def __init__(self) -> None:
        self._latest: dict[tuple[int, str | None], Sighting] = {}

    def note(
        self,
        account_id: int,
        headers: list[tuple[bytes, bytes]],
        now: datetime,
        *,
        model_group: str | None,
    ) -> None:
        """An answer came; it is read when it is written, not on its way."""
        if quota.is_told(headers):
            self._keep(Sighting(account_id, now, headers, model_group))

    def take(self) -> list[Sighting]:
        """Return what should be written, and count it as written."""
        taken, self._latest = list(self._latest.values()), {}
        return taken

    def put_back(self, taken: Iterable[Sighting]) -> None:
        """It could not be written; what came since then is newer."""
        for sighting in taken:
            if (sighting.account_id, sighting.model_group) not in self._latest:
                self._keep(sighting)

    def _keep(self, sighting: Sighting) -> None:
        key = (sighting.account_id, sighting.model_group)
        if key in self._latest or len(self._latest) < _MOST_IN_MEMORY:
            self._latest[key] = sighting


def write(sightings: Collection[Sighting]) -> None:
    """Store what was seen, unless something newer is stored: of another worker."""
    latest: dict[tuple[int, Name], QuotaWindow] = {}
    for sighting in sorted(sightings, key=lambda it: it.seen_at):
        for window in sighting.windows:
            row = _row(sighting, window)
            key = sighting.account_id, _name(row)
            _keep_used(row, latest.get(key))
            latest[key] = row
    if not latest:
        return
    ids = {account_id for account_id, _ in latest}
    with transaction.atomic():
        # Their rows are the lock: who comes second compares with what the first stored,
        # and no account is deleted in between.
        accounts = Account.objects.select_for_update(no_key=True).filter(pk__in=ids)
        existing = set(accounts.order_by("pk").values_list("pk", flat=True))
        stored = {
            (row.account_id, _name(row)): row
            for row in QuotaWindow.objects.filter(account__in=existing)
        }
        for key, row in latest.items():
            _keep_used(row, stored.get(key))
        due = {
            key: row
            for key, row in latest.items()
            if key[0] in existing and _is_news(row, stored.get(key))
        }
        if not due:
            return
        QuotaWindow.objects.bulk_create(
            due.values(),
            update_conflicts=True,
            unique_fields=["account", "name", "model_group"],
            update_fields=[*_FACTS, "seen_at"],
        )
        for account_id in {account_id for account_id, _ in due.keys() - stored.keys()}:
            _forget_oldest(account_id)


def _row(sighting: Sighting, window: Window) -> QuotaWindow:
    return QuotaWindow(
        account_id=sighting.account_id,
        name=window.name,
        model_group=window.model_group,
        seen_at=sighting.seen_at,
        **{fact: getattr(window, fact) for fact in _FACTS},
    )


def _name(row: QuotaWindow) -> Name:
    return row.name, row.model_group


def _keep_used(row: QuotaWindow, before: QuotaWindow | None) -> None:
    """Keep what is used of a window, where an answer tells only of its reset or status.

    It is the same window if it resets at the same time.
    """
    if before is None or row.resets_at is None or row.utilization is not None:
        return
    if row.resets_at == before.resets_at:
        row.utilization = before.utilization


def _is_news(row: QuotaWindow, stored: QuotaWindow | None) -> bool:
    if stored is None:
        return True
    is_same = all(getattr(row, fact) == getattr(stored, fact) for fact in _FACTS)
    return row.seen_at > stored.seen_at + (_INTERVAL if is_same else timedelta())


def _forget_oldest(account_id: int) -> None:
    rows = QuotaWindow.objects.filter(account=account_id).order_by("-seen_at", "-pk")
    if surplus := list(rows.values_list("pk", flat=True)[_MOST_OF_AN_ACCOUNT:]):
        QuotaWindow.objects.filter(pk__in=surplus).delete()
