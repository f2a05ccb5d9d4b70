"""Let an account serve again, after its credential was checked where that is due.

A credential that was refused has to be accepted by the provider first, also if the
account was switched off in between. The provider is asked outside of any transaction;
the move itself is made by `lifecycle`.
"""

from datetime import datetime
from http import HTTPStatus

from accounts import lifecycle, probe
from accounts.errors import AccountError
from accounts.models import Account
from accounts.probe import Finding
from accounts.status import AccountStatus


class CheckFailedError(AccountError):
    """The credential was refused before, and was not accepted now."""

    def __init__(self, account: Account, finding: Finding) -> None:
        super().__init__(
            f"Account {account.name} stays {account.get_status_display()}: "
            f"{finding.message}"
        )
        if finding.refused:
            self.http_status = HTTPStatus.CONFLICT
        else:
            self.http_status = HTTPStatus.BAD_GATEWAY
            self.error_type = "api_error"


def needs_check(account: Account) -> bool:
    """Was the credential refused, the last that is known of it?"""
    if account.status == AccountStatus.INACTIVE:
        latest = account.events.first()
        return latest is not None and latest.from_status == AccountStatus.INVALID
    return account.status == AccountStatus.INVALID


def activate(
    account: Account,
    *,
    actor: str,
    reason: str,
    now: datetime,
    finding: Finding | None = None,
) -> bool:
    """Let the account serve again; False if somebody else moved it just now.

    *finding* is what a check has just said, if one was made. Errors: CheckFailedError
    if the credential has to work and does not, IllegalMoveError as in `lifecycle`.
    """
    if finding is None and needs_check(account):
        finding = probe.check(account)
    if finding is not None and not finding.works:
        raise CheckFailedError(account, finding)
    return lifecycle.activate(account, actor=actor, reason=reason, now=now)
