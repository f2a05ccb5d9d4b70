"""Named questions about client keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import models
from django.db.models import Count, Q

if TYPE_CHECKING:
    from datetime import datetime

    from clients.models import ClientKey  # noqa: F401  # the base class names it


@dataclass(frozen=True)
class KeyCounts:
    """How many keys open the gateway, and how many have ended in which way."""

    valid: int
    expired: int
    revoked: int


class ClientKeyQuerySet(models.QuerySet["ClientKey"]):
    def valid(self, now: datetime) -> ClientKeyQuerySet:
        return self.filter(_valid(now))

    def expired(self, now: datetime) -> ClientKeyQuerySet:
        return self.filter(_expired(now))

    def revoked(self) -> ClientKeyQuerySet:
        return self.filter(_REVOKED)

    def count_by_state(self, now: datetime) -> KeyCounts:
        counts = self.aggregate(
            valid=Count("pk", filter=_valid(now)),
            expired=Count("pk", filter=_expired(now)),
            revoked=Count("pk", filter=_REVOKED),
        )
        return KeyCounts(**counts)


_REVOKED = Q(revoked_at__isnull=False)
_NOT_REVOKED = Q(revoked_at__isnull=True)


def _expired(now: datetime) -> Q:
    return _NOT_REVOKED & Q(expires_at__lte=now)


def _valid(now: datetime) -> Q:
    return _NOT_REVOKED & (Q(expires_at__isnull=True) | Q(expires_at__gt=now))
