"""What the admin's index shows, as one object; the template only prints it.

A person sees the accounts and the keys that their permissions let them view. The number
of queries does not depend on the number of rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeAlias

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Exists, F, Max, Min, OuterRef
from django_q.models import Failure, Success, Task

from accounts import upkeep
from accounts.models import Account, AccountEvent
from accounts.status import AccountKind, AccountStatus, health_of
from claudeproxy import schedules
from claudeproxy.conf import conf
from clients.models import ClientKey
from clients.querysets import KeyCounts
from sessions_limit import backends, listing
from sessions_limit.backends.base import StoreAwayError
from sessions_limit.keys import GLOBAL, scope_of

_ACCOUNTS_SHOWN = 20
_EVENTS_SHOWN = 10
_NOTICES_SHOWN = 10
_KEYS_SHOWN = 10
# How long it is worth saying that an idle account was switched off.
_RECENTLY = timedelta(days=7)
# A job runs every minute; without one for so long, something is wrong.
_QUIET = timedelta(minutes=5)

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
    retired: tuple[AccountNotice, ...]

    def __bool__(self) -> bool:
        return bool(self.invalid or self.troubled or self.retired)


@dataclass(frozen=True)
class FailedJob:
    """A job whose last run failed."""

    name: str
    task_id: str
    at: datetime


@dataclass(frozen=True)
class JobsPanel:
    failed: tuple[FailedJob, ...]
    last_run_at: datetime | None
    is_quiet: bool

    def __bool__(self) -> bool:
        return bool(self.failed or self.is_quiet)


@dataclass(frozen=True)
class AccountsPanel:
    health: Health
    notices: AccountNotices
    next_limit_ends_at: datetime | None
    counts: tuple[StatusCount, ...]
    total: int
    first: tuple[Account, ...]
    not_shown: int
    events: tuple[AccountEvent, ...]
    may_add: bool
    may_change: bool


@dataclass(frozen=True)
class KeysPanel:
    counts: KeyCounts
    may_add: bool


@dataclass(frozen=True)
class KeySessions:
    """A key with a limit of its own, and how many sessions it has."""

    key: ClientKey
    used: int


@dataclass(frozen=True)
class SessionsPanel:
    """How many sessions are alive; `trouble` says why that is not known."""

    is_limited: bool
    used: int = 0
    limit: int = 0
    keys: tuple[KeySessions, ...] = ()
    keys_not_shown: int = 0
    trouble: str = ""


@dataclass(frozen=True)
class Overview:
    """The whole page; a panel is None for somebody who may not see it."""

    now: datetime
    base_url: str
    accounts: AccountsPanel | None
    keys: KeysPanel | None
    sessions: SessionsPanel | None
    jobs: JobsPanel | None


def load(user: Visitor, *, base_url: str, now: datetime) -> Overview:
    """Gather the page for this user."""
    return Overview(
        now=now,
        base_url=base_url,
        accounts=(
            _load_accounts(
                now,
                may_add=user.has_perm("accounts.add_account"),
                may_change=user.has_perm("accounts.change_account"),
            )
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
        sessions=(
            _load_sessions(now, may_see_keys=user.has_perm("clients.view_clientkey"))
            if user.has_perm("sessions_limit.view_clientsession")
            else None
        ),
        jobs=_load_jobs(now) if user.has_perm("django_q.view_failure") else None,
    )


def _load_accounts(now: datetime, *, may_add: bool, may_change: bool) -> AccountsPanel:
    counts = Account.objects.count_by_status()
    total = sum(counts.values())
    first = tuple(Account.objects.most_urgent_first()[:_ACCOUNTS_SHOWN])
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
        retired=tuple(
            AccountNotice(event.account, event.reason, event.at)
            for event in retired[:_NOTICES_SHOWN]
            if event.account is not None
        ),
    )


def _load_sessions(now: datetime, *, may_see_keys: bool) -> SessionsPanel:
    if not conf.session_enabled:
        return SessionsPanel(is_limited=False)
    try:
        with backends.opened() as store:
            used = listing.count_alive(store.live())
    except StoreAwayError as error:
        return SessionsPanel(is_limited=True, trouble=str(error))
    shared_limit = conf.session_max_concurrent
    limited = ClientKey.objects.valid(now).filter(session_limit__isnull=False)
    own = [
        KeySessions(
            key,
            used[scope_of(key.pk, key.session_limit, shared_limit=shared_limit).name],
        )
        for key in (limited if may_see_keys else ())
    ]
    own.sort(key=lambda entry: -entry.used)
    return SessionsPanel(
        is_limited=True,
        used=used[GLOBAL],
        limit=shared_limit,
        keys=tuple(own[:_KEYS_SHOWN]),
        keys_not_shown=max(0, len(own) - _KEYS_SHOWN),
    )


def _load_jobs(now: datetime) -> JobsPanel:
    better = Task.objects.filter(
        success=True, group=OuterRef("group"), stopped__gt=OuterRef("stopped")
    )
    rows = (
        Failure.objects.filter(~Exists(better))
        .order_by("-stopped")
        .values_list("group", "func", "id", "stopped")[: _NOTICES_SHOWN * 5]
    )
    failed: dict[str, FailedJob] = {}
    for group, func, task_id, stopped in rows:
        name = (group or func).removeprefix(schedules.PREFIX)
        failed.setdefault(name, FailedJob(name, task_id, stopped))
    last_run_at = Success.objects.aggregate(at=Max("stopped"))["at"]
    return JobsPanel(
        failed=tuple(failed.values())[:_NOTICES_SHOWN],
        last_run_at=last_run_at,
        is_quiet=last_run_at is None or last_run_at < now - _QUIET,
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
