"""The usage app's background jobs; rules for jobs are in `claudeproxy/jobs.py`."""

from datetime import timedelta

from django.utils import timezone

from claudeproxy.conf import conf
from claudeproxy.leases import lease
from usage import rollups

# Longer than the cluster lets a job run.
_LEASE = timedelta(seconds=90)
# A job that is longer at it leaves the rest to the next run.
_ROLL_UP_SECONDS = 30
_PRUNE_SECONDS = 15
_NAME = "usage_sums"  # both change the same marks


def roll_up() -> str:
    """Bring the sums of hours and days up to date."""
    with lease(_NAME, lasts=_LEASE) as is_mine:
        if not is_mine:
            return "another job is at it"
        done = rollups.roll_up(seconds=_ROLL_UP_SECONDS)
        return f"{done.rows} requests{'' if done.is_done else ', more to come'}"


def prune() -> str:
    """Delete requests that are older than `USAGE_RETENTION`."""
    with lease(_NAME, lasts=_LEASE) as is_mine:
        if not is_mine:
            return "another job is at it"
        done = rollups.prune(
            now=timezone.now(), retention=conf.usage_retention, seconds=_PRUNE_SECONDS
        )
        return f"{done.rows} requests{'' if done.is_done else ', more to come'}"
