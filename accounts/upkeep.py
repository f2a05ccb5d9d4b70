"""What happens to accounts while nobody looks: refresh, recover, retire, look again."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

import structlog
from django.utils import timezone

from accounts import capabilities, lifecycle, tokens
from accounts.models import Account
from accounts.status import AccountKind
from accounts.tokens import Result
from claudeproxy import durations
from claudeproxy.conf import conf

_log = structlog.get_logger(__name__)

# The job runs every hour: what would end before the one after next is refreshed now.
REFRESH_AHEAD = timedelta(minutes=75)
ACTOR = "upkeep"


def refresh_tokens(
    accounts: Iterable[Account], *, force: bool = False
) -> Iterator[tuple[Account, Result]]:
    """Refresh one account after the other; yields each with how it went."""
    for account in accounts:
        yield (
            account,
            tokens.ensure_fresh(account.pk, margin=REFRESH_AHEAD, force=force),
        )


def recover_limited(*, now: datetime) -> list[Account]:
    """Write down which rate limits have ended; return the accounts that recovered."""
    recovered = [
        account
        for account in Account.objects.limit_ended(now)
        if lifecycle.recover(account, actor=ACTOR, now=now)
    ]
    for account in recovered:
        _log.info("account_recovered", account_id=account.pk, account=account.name)
    return recovered


def deactivate_idle(*, now: datetime) -> list[Account]:
    """Switch off accounts that served nothing for ACCOUNTS_IDLE_THRESHOLD.

    Does nothing unless ACCOUNTS_AUTO_DEACTIVATE is on. An account that was added or
    activated later than that is not idle yet.
    """
    if not conf.deactivates_idle:
        return []
    threshold = conf.idle_threshold
    reason = f"idle: unused for {durations.describe(threshold)}"
    retired = [
        account
        for account in Account.objects.idle_since(now - threshold)
        if lifecycle.deactivate(account, actor=ACTOR, reason=reason, now=now)
    ]
    for account in retired:
        _log.info("account_idle", account_id=account.pk, account=account.name)
    return retired


def look_at_capabilities(account: Account) -> bool:
    """Read again which models the account has; False if that did not succeed."""
    if account.kind == AccountKind.OAUTH:
        tokens.ensure_fresh(account.pk)
        # With the token that is there now; a deleted account is asked for nothing.
        account = Account.objects.filter(pk=account.pk).first() or account
    is_read = capabilities.refresh(account, now=timezone.now())
    if not is_read:
        _log.warning("capabilities_not_read", account_id=account.pk)
    return is_read
