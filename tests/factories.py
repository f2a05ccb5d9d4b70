"""Rows and facts that tests start from; each test names only what matters to it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from accounts.models import Account
from accounts.pool import PooledAccount
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret
from clients import issuing
from clients.issuing import IssuedKey
from clients.models import ClientKeyRole

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_account(
    name: str = "ada",
    *,
    kind: AccountKind = AccountKind.API_KEY,
    status: AccountStatus = AccountStatus.ACTIVE,
    secret: str = "sk-ant-of-ada",  # noqa: S107  # planted
    **fields: Any,
) -> Account:
    """A stored account that the constraints accept, whatever its kind and status."""
    column = "api_key" if kind == AccountKind.API_KEY else "access_token"
    if status == AccountStatus.RATE_LIMITED:
        fields.setdefault("rate_limited_until", NOW + timedelta(hours=1))
    return Account.objects.create(
        name=name,
        kind=kind,
        status=status,
        status_changed_at=NOW,
        **{column: Secret(secret), **fields},
    )


def pooled(
    id: int = 1,
    *,
    name: str | None = None,
    kind: AccountKind = AccountKind.API_KEY,
    status: AccountStatus = AccountStatus.ACTIVE,
    rate_limited_until: datetime | None = None,
    recovered_at: datetime | None = None,
    expires_at: datetime | None = None,
    credential: str = "sk-ant-pooled",
) -> PooledAccount:
    """An account as a worker holds it in memory."""
    return PooledAccount(
        id=id,
        name=name or f"account-{id}",
        kind=kind,
        status=status,
        rate_limited_until=rate_limited_until,
        recovered_at=recovered_at,
        expires_at=expires_at,
        credential=Secret(credential),
    )


def make_client_key(
    name: str = "alice",
    role: ClientKeyRole = ClientKeyRole.USER,
    *,
    expires_at: datetime | None = None,
) -> IssuedKey:
    """A stored client key, with its text."""
    return issuing.issue(name, role, expires_at=expires_at)
