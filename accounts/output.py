"""An account as commands and scripts see it."""

from datetime import datetime
from typing import Any

from accounts.models import Account


def fields(account: Account) -> dict[str, Any]:
    """The public facts of an account: no secret, times in ISO 8601."""
    return {
        "id": account.pk,
        "name": account.name,
        "kind": str(account.kind),
        "status": str(account.status),
        "status_reason": account.status_reason,
        "status_changed_at": _iso(account.status_changed_at),
        "rate_limited_until": _iso(account.rate_limited_until),
        "expires_at": _iso(account.expires_at),
        "created_at": _iso(account.created_at),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
