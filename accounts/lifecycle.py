"""Every change of an account's status, and nowhere else.

Each verb is one compare-and-set in the database plus one `AccountEvent`, in one
transaction. It returns True if this call made the move and False if the account was
no longer where the caller saw it: losing a race is an answer, not an error.
"""

from datetime import datetime
from typing import Any

from django.db import transaction

from accounts.errors import IllegalMoveError
from accounts.models import Account, AccountEvent
from accounts.status import ALLOWED_MOVES, AccountStatus

_REASON_LENGTH = 300


def activate(account: Account, *, actor: str, reason: str, now: datetime) -> bool:
    """Let the account serve again."""
    was_limited = account.status == AccountStatus.RATE_LIMITED
    return _move(
        account,
        AccountStatus.ACTIVE,
        actor=actor,
        reason=reason,
        now=now,
        **({"recovered_at": now} if was_limited else {}),
    )


def deactivate(account: Account, *, actor: str, reason: str, now: datetime) -> bool:
    """Take the account out until somebody activates it."""
    return _move(account, AccountStatus.INACTIVE, actor=actor, reason=reason, now=now)


def limit(
    account: Account, *, until: datetime, actor: str, reason: str, now: datetime
) -> bool:
    """Take the account out until its rate limit ends."""
    return _move(
        account,
        AccountStatus.RATE_LIMITED,
        actor=actor,
        reason=reason,
        now=now,
        rate_limited_until=until,
    )


def recover(account: Account, *, actor: str, now: datetime) -> bool:
    """Write down that the account's rate limit has ended."""
    if account.status != AccountStatus.RATE_LIMITED:
        raise IllegalMoveError(account.name, account.status, AccountStatus.ACTIVE)
    return _move(
        account,
        AccountStatus.ACTIVE,
        actor=actor,
        reason="rate limit ended",
        now=now,
        recovered_at=account.rate_limited_until or now,
    )


def invalidate(account: Account, *, actor: str, reason: str, now: datetime) -> bool:
    """Take the account out because its credential was refused."""
    return _move(account, AccountStatus.INVALID, actor=actor, reason=reason, now=now)


def record_added(account: Account, *, actor: str, now: datetime) -> None:
    """Write the first event of a new account."""
    AccountEvent.objects.create(
        account=account,
        account_name=account.name,
        at=now,
        actor=actor,
        to_status=account.status,
        reason="added",
    )


def _move(
    account: Account,
    to: AccountStatus,
    *,
    actor: str,
    reason: str,
    now: datetime,
    **fields: Any,
) -> bool:
    source = AccountStatus(account.status)
    if to not in ALLOWED_MOVES[source]:
        raise IllegalMoveError(account.name, source, to)
    changes = {
        "status": to,
        "status_reason": reason[:_REASON_LENGTH],
        "status_changed_at": now,
        "rate_limited_until": None,
        "updated_at": now,
        **fields,
    }
    with transaction.atomic():
        mine = Account.objects.filter(pk=account.pk, status=source)
        if mine.update(**changes) != 1:
            return False
        AccountEvent.objects.create(
            account=account,
            account_name=account.name,
            at=now,
            actor=actor,
            from_status=source,
            to_status=to,
            reason=reason[:_REASON_LENGTH],
        )
    for name, value in changes.items():
        setattr(account, name, value)
    return True
