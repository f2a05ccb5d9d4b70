"""The background job of the session limit; rules for jobs: `claudeproxy/jobs.py`."""

from datetime import timedelta

from claudeproxy.leases import lease
from sessions_limit import backends

# Longer than the cluster lets a job run.
_LEASE = timedelta(seconds=90)


def prune_sessions() -> str:
    """Forget sessions that have ended; the limit is right without it."""
    with lease("prune_sessions", lasts=_LEASE) as is_mine:
        if not is_mine:
            return "another cluster is at it"
        with backends.opened() as store:
            return f"{store.prune()} forgotten"
