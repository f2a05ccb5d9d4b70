"""Named questions about accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import models

from accounts.status import AccountStatus

if TYPE_CHECKING:
    from accounts.models import Account


class AccountQuerySet(models.QuerySet["Account"]):
    def active(self) -> AccountQuerySet:
        return self.filter(status=AccountStatus.ACTIVE)

    def count_by_status(self) -> dict[AccountStatus, int]:
        """How many accounts are in each of the four statuses, zeros included."""
        rows = self.order_by().values("status").annotate(n=models.Count("pk"))
        found = {row["status"]: row["n"] for row in rows}
        return {status: found.get(status, 0) for status in AccountStatus}
