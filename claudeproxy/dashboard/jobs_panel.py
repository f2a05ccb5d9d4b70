"""The panel of background jobs: what failed, and whether they run at all."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Exists, Max, OuterRef
from django_q.models import Failure, Success, Task

from claudeproxy import schedules

_SHOWN = 10
# A job runs every minute; without one for so long, something is wrong.
_QUIET = timedelta(minutes=5)


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


def load(now: datetime) -> JobsPanel:
    """Gather the panel, in two queries."""
    better = Task.objects.filter(
        success=True, group=OuterRef("group"), stopped__gt=OuterRef("stopped")
    )
    rows = (
        Failure.objects.filter(~Exists(better))
        .order_by("-stopped")
        .values_list("group", "func", "id", "stopped")[: _SHOWN * 5]
    )
    failed: dict[str, FailedJob] = {}
    for group, func, task_id, stopped in rows:
        name = (group or func).removeprefix(schedules.PREFIX)
        failed.setdefault(name, FailedJob(name, task_id, stopped))
    last_run_at = Success.objects.aggregate(at=Max("stopped"))["at"]
    return JobsPanel(
        failed=tuple(failed.values())[:_SHOWN],
        last_run_at=last_run_at,
        is_quiet=last_run_at is None or last_run_at < now - _QUIET,
    )
