"""Delete accounts. Their events stay, and the log keeps who deleted them."""

import structlog
from django.db import transaction

from accounts.models import Account

_log = structlog.get_logger(__name__)


def delete(account: Account, *, actor: str) -> None:
    """Delete the account and its credential."""
    account_id = account.pk
    with transaction.atomic():
        # Whoever writes what belongs to it locks it first, too.
        Account.objects.select_for_update().filter(pk=account_id).first()
        deleted, _ = account.delete()
    if deleted:  # else by somebody else, just now
        _log.info(
            "account_deleted", account_id=account_id, name=account.name, actor=actor
        )
