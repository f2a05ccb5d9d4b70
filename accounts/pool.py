"""The pool as a worker keeps it in memory: frozen facts, no ORM objects."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from accounts import capabilities
from accounts.models import Account
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret, WrongEncryptionKeyError

# An access token with less life than this is refreshed before it is used.
REFRESH_MARGIN = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class PooledAccount:
    """What choosing and using an account takes."""

    id: int
    name: str
    kind: AccountKind
    status: AccountStatus
    rate_limited_until: datetime | None
    recovered_at: datetime | None
    expires_at: datetime | None
    credential: Secret
    # No refresh is tried before then.
    refresh_retry_at: datetime | None = None
    # The ids of its models, and every name they answer to; None: not known.
    model_ids: tuple[str, ...] = ()
    models: frozenset[str] | None = None
    organization_uuid: str = ""
    # Can its credential be decrypted with the keys there are?
    is_readable: bool = True


def load() -> tuple[PooledAccount, ...]:
    """Read all accounts, in the order of their ids."""
    return tuple(
        PooledAccount(
            id=account.pk,
            name=account.name,
            kind=AccountKind(account.kind),
            status=AccountStatus(account.status),
            rate_limited_until=account.rate_limited_until,
            recovered_at=account.recovered_at,
            expires_at=account.expires_at,
            credential=account.credential,
            refresh_retry_at=account.refresh_retry_at,
            model_ids=tuple(model["id"] for model in account.capabilities or ()),
            models=capabilities.names(account.capabilities),
            organization_uuid=account.organization_uuid,
            is_readable=_is_readable(account.credential),
        )
        for account in Account.objects.order_by("pk")
    )


def _is_readable(credential: Secret) -> bool:
    try:
        credential.reveal()
    except WrongEncryptionKeyError:
        return False
    return True
