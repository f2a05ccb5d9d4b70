"""What answers of the provider mean for an account, written down.

They come from requests that ran a moment ago, so each holds only if the account is
still what the request saw.
"""

from datetime import datetime

from django.utils import timezone

from accounts import lifecycle
from accounts.models import Account
from accounts.status import AccountStatus
from claudeproxy.crypto import Secret

ACTOR = "gateway"


def limit(account_id: int, until: datetime, reason: str) -> bool:
    """Take an account that serves out until its rate limit ends."""
    now = timezone.now()
    account = Account.objects.filter(pk=account_id).first()
    if account is not None and _has_recovered(account, now):
        # It serves from that moment on, but nobody has written it down yet.
        lifecycle.recover(account, actor=ACTOR, now=now)
    if account is None or account.status != AccountStatus.ACTIVE:
        return False
    return lifecycle.limit(account, until=until, actor=ACTOR, reason=reason, now=now)


def refuse(account_id: int, credential: Secret, reason: str) -> bool:
    """Take an account out whose credential was refused, unless it has another now."""
    account = Account.objects.filter(
        pk=account_id,
        status__in=(AccountStatus.ACTIVE, AccountStatus.RATE_LIMITED),
    ).first()
    if account is None or account.credential != credential:
        return False
    return lifecycle.invalidate(account, actor=ACTOR, reason=reason, now=timezone.now())


def _has_recovered(account: Account, now: datetime) -> bool:
    return (
        account.status == AccountStatus.RATE_LIMITED
        and account.rate_limited_until is not None
        and account.rate_limited_until <= now
    )
