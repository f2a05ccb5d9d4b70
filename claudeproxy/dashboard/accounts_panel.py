"""The panel of accounts: whether they can serve, how each is, what happened to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db.models import F, Min

from accounts import quota_display, upkeep
from accounts.models import Account, AccountEvent
from accounts.quota_display import Reading
from accounts.status import AccountKind, AccountStatus, health_of

_ACCOUNTS_SHOWN = 20
_EVENTS_SHOWN = 10
_NOTICES_SHOWN = 10
# How long it is worth saying that an idle account was switched off.
_RECENTLY = timedelta(days=7)


@dataclass(frozen=True)
class Health:
    """Whether the gateway can serve, in one word, and why in a sentence or two."""

    status: str
    why: str


@dataclass(frozen=True)
class StatusCount:
    status: AccountStatus
    count: int


@dataclass(frozen=True)
class AccountNotice:
    """An account that somebody should do something about, and what was the matter."""

    account: Account
    what: str
    at: datetime | None

    @property
    def can_sign_in(self) -> bool:
        return self.account.kind == AccountKind.OAUTH


@dataclass(frozen=True)
class AccountNotices:
    invalid: tuple[AccountNotice, ...]
    troubled: tuple[AccountNotice, ...]
    limited: tuple[AccountNotice, ...]
    retired: tuple[AccountNotice, ...]

    def __bool__(self) -> bool:
        return bool(self.invalid or self.troubled or self.limited or self.retired)


class AccountLine(NamedTuple):
    """An account, and the most important of its limits as they were seen."""

    account: Account
    quota: tuple[Reading, ...]


@dataclass(frozen=True)
class AccountsPanel:
    health: Health
    notices: AccountNotices
    next_limit_ends_at: datetime | None
    counts: tuple[StatusCount, ...]
    total: int
    first: tuple[AccountLine, ...]
    not_shown: int
    events: tuple[AccountEvent, ...]
    may_add: bool
    may_change: bool


def load(now: datetime, *, may_add: bool, may_change: bool) -> AccountsPanel:
    """Gather the panel, in as many queries for many accounts as for one."""
    counts = Account.objects.count_by_status()
    total = sum(counts.values())
    shown = Account.objects.most_urgent_first().prefetch_related("quota")
    first = tuple(
        AccountLine(account, quota_display.brief(account.quota.all(), now))
        for account in shown[:_ACCOUNTS_SHOWN]
    )
    return AccountsPanel(
        health=judge(Account.objects.usable(now).count(), counts),
        notices=_load_notices(now),
        next_limit_ends_at=Account.objects.filter(
            status=AccountStatus.RATE_LIMITED, rate_limited_until__gt=now
        ).aggregate(at=Min("rate_limited_until"))["at"],
        counts=tuple(StatusCount(status, count) for status, count in counts.items()),
        total=total,
        first=first,
        not_shown=max(0, total - len(first)),
        events=tuple(AccountEvent.objects.select_related("account")[:_EVENTS_SHOWN]),
        may_add=may_add,
        may_change=may_change,
    )


def _load_notices(now: datetime) -> AccountNotices:
    invalid = Account.objects.filter(status=AccountStatus.INVALID)
    in_use = (AccountStatus.ACTIVE, AccountStatus.RATE_LIMITED)
    troubled = Account.objects.filter(status__in=in_use).exclude(last_refresh_error="")
    limited = Account.objects.filter(
        status=AccountStatus.RATE_LIMITED, rate_limited_until__gt=now
    )
    # Idle accounts that are still as the job left them, not as a person did.
    retired = AccountEvent.objects.select_related("account").filter(
        actor=upkeep.ACTOR,
        to_status=AccountStatus.INACTIVE,
        at__gt=now - _RECENTLY,
        account__status=AccountStatus.INACTIVE,
        account__status_changed_at=F("at"),
    )
    return AccountNotices(
        invalid=tuple(
            AccountNotice(account, account.status_reason, account.status_changed_at)
            for account in invalid.order_by("-status_changed_at")[:_NOTICES_SHOWN]
        ),
        troubled=tuple(
            AccountNotice(account, account.last_refresh_error, account.refresh_retry_at)
            for account in troubled.order_by("expires_at")[:_NOTICES_SHOWN]
        ),
        limited=tuple(
            AccountNotice(account, account.status_reason, account.rate_limited_until)
            for account in limited.order_by("rate_limited_until")[:_NOTICES_SHOWN]
        ),
        retired=tuple(
            AccountNotice(event.account, event.reason, event.at)
            for event in retired[:_NOTICES_SHOWN]
            if event.account is not None
        ),
    )


def judge(usable: int, counts: Mapping[AccountStatus, int]) -> Health:
    """Put the health of the gateway into words."""
    return Health(health_of(usable), _why(usable, counts))


def _why(usable: int, counts: Mapping[AccountStatus, int]) -> str:
    total = sum(counts.values())
    others = _describe_others(usable, counts)
    if total == 0:
        return "No account has been added yet, so no request can be served."
    if usable == 0:
        return f"No account can serve. {others}"
    if usable > 1:
        return f"{usable} of {total} accounts can serve. {others}"
    if total == 1:
        return "The only account can serve; a second one would back it up."
    return f"1 of {total} accounts can serve, and none backs it up. {others}"


def _describe_others(usable: int, counts: Mapping[AccountStatus, int]) -> str:
    recovered = usable - counts[AccountStatus.ACTIVE]
    left_out = {
        **counts,
        AccountStatus.ACTIVE: 0,
        AccountStatus.RATE_LIMITED: counts[AccountStatus.RATE_LIMITED] - recovered,
    }
    words = [
        f"{count} {status.label}" for status, count in left_out.items() if count > 0
    ]
    return f"Not serving: {', '.join(words)}." if words else ""
