"""The accounts app's background jobs; rules for jobs are in `claudeproxy/jobs.py`.

Work that talks to the provider is one job for each account: one that is slow or fails
holds up no other, and each shows its own result.
"""

from collections.abc import Iterable
from datetime import timedelta

from django.utils import timezone
from django_q.tasks import async_task

from accounts import ownership, signin, tokens, upkeep
from accounts.models import Account
from accounts.tokens import Outcome
from claudeproxy.leases import lease

# Longer than the cluster lets a job run.
_LEASE = timedelta(seconds=90)


class RefreshFailedError(Exception):
    """Makes the cluster show the job as failed, and try it again."""


def refresh_tokens() -> str:
    """Queue a refresh for every account whose token ends soon."""
    due = Account.objects.due_for_refresh(timezone.now(), upkeep.REFRESH_AHEAD)
    return _for_each("accounts.tasks.refresh_token", due.values_list("pk", flat=True))


def refresh_token(account_id: int) -> str:
    """Refresh one account's token; waits for nobody who is at it already."""
    result = tokens.ensure_fresh(
        account_id, margin=upkeep.REFRESH_AHEAD, is_patient=False
    )
    if result.outcome is Outcome.FAILED:
        raise RefreshFailedError(result.message)
    return str(result.outcome.value)


def recover_accounts() -> str:
    """Return accounts whose rate limit has ended to `active`."""
    with lease("recover_accounts", lasts=_LEASE) as is_mine:
        if not is_mine:
            return "another cluster is at it"
        return f"{len(upkeep.recover_limited(now=timezone.now()))} recovered"


def deactivate_idle_accounts() -> str:
    """Switch off accounts that nobody used for long."""
    with lease("deactivate_idle_accounts", lasts=_LEASE) as is_mine:
        if not is_mine:
            return "another cluster is at it"
        return f"{len(upkeep.deactivate_idle(now=timezone.now()))} switched off"


def refresh_capabilities() -> str:
    """Queue a look at the models of every account that may serve."""
    usable = Account.objects.usable(timezone.now())
    return _for_each(
        "accounts.tasks.refresh_account_capabilities",
        usable.values_list("pk", flat=True),
    )


def refresh_account_capabilities(account_id: int) -> str:
    """Read one account's models again."""
    with lease(f"capabilities:{account_id}", lasts=_LEASE) as is_mine:
        account = Account.objects.filter(pk=account_id).first()
        if not is_mine or account is None:
            return "nothing to do"
        if not upkeep.look_at_capabilities(account):
            raise RefreshFailedError("the model list could not be read")
        return "read"


def prune_sign_ins() -> str:
    """Forget sign-ins that never came back."""
    return f"{signin.prune(now=timezone.now())} forgotten"


def prune_owned_objects() -> str:
    """Forget whose objects were that have expired."""
    return f"{ownership.prune(now=timezone.now())} forgotten"


def _for_each(func: str, account_ids: Iterable[int]) -> str:
    ids = list(account_ids)
    for account_id in ids:
        async_task(func, account_id, group=f"claudeproxy:{func.rpartition('.')[2]}")
    return f"{len(ids)} queued"
