"""What the admin's index shows, as one object.

A person sees what their permissions let them view. The number of queries does not
depend on the number of rows.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from django.contrib.auth.models import AnonymousUser, User

from claudeproxy.dashboard import (
    accounts_panel,
    jobs_panel,
    ledger_panel,
    sessions_panel,
    usage_panel,
)
from claudeproxy.dashboard.accounts_panel import AccountsPanel
from claudeproxy.dashboard.jobs_panel import JobsPanel
from claudeproxy.dashboard.ledger_panel import LedgerPanel
from claudeproxy.dashboard.sessions_panel import SessionsPanel
from claudeproxy.dashboard.usage_panel import UsagePanel
from clients.models import ClientKey
from clients.querysets import KeyCounts

Visitor: TypeAlias = User | AnonymousUser


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
    sessions: SessionsPanel | None
    jobs: JobsPanel | None
    ledger: LedgerPanel | None
    usage: UsagePanel | None


def load(user: Visitor, *, base_url: str, now: datetime, span: str = "") -> Overview:
    """Gather the page for this user, with what was used in a span of that name."""
    return Overview(
        now=now,
        base_url=base_url,
        accounts=(
            accounts_panel.load(
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
            sessions_panel.load(
                now, may_see_keys=user.has_perm("clients.view_clientkey")
            )
            if user.has_perm("sessions_limit.view_clientsession")
            else None
        ),
        jobs=jobs_panel.load(now) if user.has_perm("django_q.view_failure") else None,
        ledger=ledger_panel.load(now) if usage_panel.may_see(user) else None,
        usage=usage_panel.load(user, span=span, now=now),
    )
