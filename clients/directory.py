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
    # How many sessions it may have, apart from all others; None: it shares the limit.
    session_limit: int | None = None

    def why_ended(self, now: datetime) -> str | None:
        """Say why the key opens nothing any more, and what to do; None if it does."""
        if self.is_revoked:
            return "This key has been revoked. Ask the operator for a new one."
        if self.expires_at is not None and self.expires_at <= now:
            return "This key has expired. Ask the operator for a new one."
        return None


def load(*digests: bytes) -> Mapping[bytes, KnownKey]:
    """Read all keys, or those of some digests; the mapping goes from SHA-256 digest."""
    rows = ClientKey.objects.order_by()
    if digests:
        rows = rows.filter(digest__in=digests)
    rows = rows.only(
        *("digest", "name", "role", "expires_at", "revoked_at", "session_limit")
    )
    return {
        bytes(row.digest): KnownKey(
            id=row.pk,
            name=row.name,
            role=row.role,
            expires_at=row.expires_at,
            is_revoked=row.revoked_at is not None,
            session_limit=row.session_limit,
        )
        for row in rows.iterator()
    }
