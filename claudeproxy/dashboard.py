"""What the admin's index shows, as one object; the template only prints it.

A person sees the accounts and the keys that their permissions let them view. The number
of queries does not depend on the number of rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from django.contrib.auth.models import AnonymousUser, User

from accounts.models import Account, AccountEvent
from accounts.status import AccountStatus
from clients.models import ClientKey
from clients.querysets import KeyCounts

_ACCOUNTS_SHOWN = 20
_EVENTS_SHOWN = 10

Visitor: TypeAlias = User | AnonymousUser


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
class AccountsPanel:
    health: Health
    counts: tuple[StatusCount, ...]
    total: int
    first: tuple[Account, ...]
    not_shown: int
    events: tuple[AccountEvent, ...]
    may_add: bool


@dataclass(frozen=True)
class KeysPanel:
    counts: KeyCounts
    may_add: bool


@dataclass(frozen=True)
class Overview:
    """The whole page; a panel is None for somebody who may not see it."""

    now: datetime
    base_url: str
    accounts: AccountsPanel | None
    keys: KeysPanel | None


def load(user: Visitor, *, base_url: str, now: datetime) -> Overview:
    """Gather the page for this user."""
    return Overview(
        now=now,
        base_url=base_url,
        accounts=(
            _load_accounts(now, may_add=user.has_perm("accounts.add_account"))
            if user.has_perm("accounts.view_account")
            else None
        ),
        keys=(
            KeysPanel(
                counts=ClientKey.objects.count_by_state(now),
                may_add=user.has_perm("clients.add_clientkey"),
            )
            if user.has_perm("clients.view_clientkey")
            else None
        ),
    )


def _load_accounts(now: datetime, *, may_add: bool) -> AccountsPanel:
    counts = Account.objects.count_by_status()
    total = sum(counts.values())
    first = tuple(Account.objects.most_urgent_first()[:_ACCOUNTS_SHOWN])
    return AccountsPanel(
        health=judge(Account.objects.usable(now).count(), counts),
        counts=tuple(StatusCount(status, count) for status, count in counts.items()),
        total=total,
        first=first,
        not_shown=max(0, total - len(first)),
        events=tuple(AccountEvent.objects.select_related("account")[:_EVENTS_SHOWN]),
        may_add=may_add,
    )


def judge(usable: int, counts: Mapping[AccountStatus, int]) -> Health:
    """Put the health of the gateway into words.

    Two accounts that can serve are healthy, one is degraded, none is unhealthy.
    """
    total = sum(counts.values())
    others = _describe_others(usable, counts)
    if total == 0:
        return Health(
            "unhealthy", "No account has been added yet, so no request can be served."
        )
    if usable == 0:
        return Health("unhealthy", f"No account can serve. {others}")
    if usable > 1:
        return Health("healthy", f"{usable} of {total} accounts can serve. {others}")
    if total == 1:
        return Health(
            "degraded", "The only account can serve; a second one would back it up."
        )
    return Health(
        "degraded", f"1 of {total} accounts can serve, and none backs it up. {others}"
    )


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
