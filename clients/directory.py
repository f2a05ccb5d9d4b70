"""The issued keys as a worker keeps them in memory: found by digest, no query."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from clients.models import ClientKey


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key that was issued, and whether it still counts."""

    id: int
    name: str
    role: str
    expires_at: datetime | None
    is_revoked: bool


def load() -> Mapping[bytes, KnownKey]:
    """Read all keys; the mapping goes from SHA-256 digest to key."""
    return {
        bytes(row.digest): KnownKey(
            id=row.pk,
            name=row.name,
            role=row.role,
            expires_at=row.expires_at,
            is_revoked=row.revoked_at is not None,
        )
        for row in ClientKey.objects.all()
    }
