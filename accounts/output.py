"""An account as commands and scripts see it."""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.utils import timezone

from accounts import quota_display
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
        "organization_uuid": account.organization_uuid,
        "organization_name": account.organization_name,
        "holder_name": account.holder_name,
        "last_used_at": _iso(account.last_used_at),
        "last_refresh_at": _iso(account.last_refresh_at),
        "last_refresh_error": account.last_refresh_error,
        "models": _model_ids(account),
        "quota": _quota(account),
    }


def _model_ids(account: Account) -> list[str] | None:
    """The ids of the models it may use; None if they have not been read."""
    if account.capabilities is None:
        return None
    return [model["id"] for model in account.capabilities]


def _quota(account: Account) -> list[dict[str, Any]]:
    """Its limits as answers last showed them, as the REST API has them."""
    return [
        {
            **asdict(seen),
            "model_group": seen.model_group or None,
            "status": seen.status or None,
            "resets_at": _iso(seen.resets_at),
            "seen_at": _iso(seen.seen_at),
        }
        for seen in quota_display.quotas(account.quota.all(), timezone.now())
    ]


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
