"""Named questions about accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models
from django.db.models import Case, Q, Value, When

from accounts.status import AccountKind, AccountStatus

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from accounts.models import Account  # noqa: F401  # the base class names it


class AccountQuerySet(models.QuerySet["Account"]):
    def active(self) -> AccountQuerySet:
        return self.filter(status=AccountStatus.ACTIVE)

    def usable(self, now: datetime) -> AccountQuerySet:
        """Accounts that may serve: a limit that has run out counts no more."""
        return self.filter(
            Q(status=AccountStatus.ACTIVE)
            | Q(status=AccountStatus.RATE_LIMITED, rate_limited_until__lte=now)
        )

    def due_for_refresh(self, now: datetime, ahead: timedelta) -> AccountQuerySet:
        """Accounts in use whose access token ends within *ahead*."""
        may_try = Q(refresh_retry_at__isnull=True) | Q(refresh_retry_at__lte=now)
        return self.filter(
            may_try,
            kind=AccountKind.OAUTH,
            status__in=(AccountStatus.ACTIVE, AccountStatus.RATE_LIMITED),
            refresh_token__isnull=False,
            expires_at__lte=now + ahead,
        )

    def limit_ended(self, now: datetime) -> AccountQuerySet:
        """Accounts that are still called rate limited, but are so no more."""
        return self.filter(
            status=AccountStatus.RATE_LIMITED, rate_limited_until__lte=now
        )

    def idle_since(self, at: datetime) -> AccountQuerySet:
        """Active accounts that were neither used nor activated or added after *at*."""
        is_unused = Q(last_used_at__isnull=True) | Q(last_used_at__lte=at)
        return self.active().filter(is_unused, status_changed_at__lte=at)

    def most_urgent_first(self) -> AccountQuerySet:
        """In the order in which a person should look at them."""
        order = (
            AccountStatus.INVALID,
            AccountStatus.RATE_LIMITED,
            AccountStatus.INACTIVE,
            AccountStatus.ACTIVE,
        )
        ranks = [
            When(status=status, then=Value(rank)) for rank, status in enumerate(order)
        ]
        return self.order_by(Case(*ranks), "name")

    def count_by_status(self) -> dict[AccountStatus, int]:
        """How many accounts are in each of the four statuses, zeros included."""
        rows = self.order_by().values("status").annotate(n=models.Count("pk"))
        found = {row["status"]: row["n"] for row in rows}
        return {status: found.get(status, 0) for status in AccountStatus}
