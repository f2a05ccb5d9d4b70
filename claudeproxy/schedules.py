"""Which background jobs run, and how often: declared here, kept so in the database.

django-q2 reads its schedules from a table that anything can write to. `sync` makes the
rows under our prefix equal to `SCHEDULES`; it runs whenever the gateway starts and
after every migration. Rows without the prefix are somebody else's and stay.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from django.core.checks import CheckMessage, Error, register
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models.signals import post_migrate
from django.dispatch import receiver
from django.utils import timezone
from django.utils.module_loading import import_string
from django_q.models import Schedule
from django_q.tasks import async_task

from claudeproxy.conf import conf

PREFIX = "claudeproxy:"

Literal: TypeAlias = str | int | bool | None


@dataclass(frozen=True)
class ScheduledJob:
    """One job and its rhythm.

    The cluster looks every 30 seconds for jobs that are due, for the first time 30
    seconds after it started; what cannot wait for that also runs `at_start`.
    """

    name: str
    func: str
    every: timedelta
    args: tuple[Literal, ...] = ()
    at_start: bool = False

    @property
    def group(self) -> str:
        """What the row is called, and the runs that come of it."""
        return PREFIX + self.name


def _session_jobs() -> tuple[ScheduledJob, ...]:
    """What operators may leave out: the session limit is right without it."""
    if not (conf.session_enabled and conf.session_cleanup_enabled):
        return ()
    return (
        ScheduledJob(
            name="prune_sessions",
            func="sessions_limit.tasks.prune_sessions",
            every=conf.session_cleanup_interval,
        ),
    )


SCHEDULES = (
    ScheduledJob(
        name="heartbeat",
        func="claudeproxy.jobs.heartbeat",
        every=timedelta(minutes=1),
        at_start=True,
    ),
    ScheduledJob(
        name="refresh_tokens",
        func="accounts.tasks.refresh_tokens",
        every=timedelta(hours=1),
        at_start=True,
    ),
    ScheduledJob(
        name="recover_accounts",
        func="accounts.tasks.recover_accounts",
        every=timedelta(minutes=1),
        at_start=True,
    ),
    ScheduledJob(
        name="deactivate_idle_accounts",
        func="accounts.tasks.deactivate_idle_accounts",
        every=timedelta(days=1),
    ),
    ScheduledJob(
        name="refresh_capabilities",
        func="accounts.tasks.refresh_capabilities",
        every=timedelta(days=1),
        at_start=True,
    ),
    ScheduledJob(
        name="prune_sign_ins",
        func="accounts.tasks.prune_sign_ins",
        every=timedelta(hours=1),
    ),
    *_session_jobs(),
    ScheduledJob(
        name="prune_owned_objects",
        func="accounts.tasks.prune_owned_objects",
        every=timedelta(hours=1),
    ),
    ScheduledJob(
        name="roll_up_usage",
        func="usage.tasks.roll_up",
        every=timedelta(minutes=5),
    ),
    ScheduledJob(
        name="prune_usage",
        func="usage.tasks.prune",
        every=timedelta(hours=1),
    ),
)


class SyncResult(NamedTuple):
    """How many rows had to be made, changed and removed."""

    made: int
    changed: int
    removed: int


def sync(jobs: Iterable[ScheduledJob] = SCHEDULES) -> SyncResult:
    """Make the rows under our prefix equal to *jobs*.

    Errors: ValidationError for a job that the table would not take; nothing is written
    then. One row that the cluster cannot read stops all of its schedules.
    """
    now = timezone.now()
    made = changed = removed = 0
    with transaction.atomic():
        ours = Schedule.objects.select_for_update().filter(name__startswith=PREFIX)
        rows: dict[str, list[Any]] = {}
        for row in ours.order_by("pk"):
            rows.setdefault(row.name, []).append(row)
        for job in jobs:
            # Names are not unique in the table, so there may be several of one job.
            first, *extra = rows.pop(job.group, []) or [Schedule(name=job.group)]
            is_new = first.pk is None
            if _shape(first, job, now):
                first.full_clean()
                first.save()
                made, changed = made + is_new, changed + (not is_new)
            removed += _delete(extra)
        removed += _delete(row for extra in rows.values() for row in extra)
    return SyncResult(made, changed, removed)


def _shape(row: Any, job: ScheduledJob, now: datetime) -> bool:
    """Give *row* the values that *job* declares; True if any was different."""
    wanted = _columns(job)
    is_changed = any(getattr(row, name) != value for name, value in wanted.items())
    for name, value in wanted.items():
        setattr(row, name, value)
    # A run further away than one interval was set for another rhythm, or by hand.
    if row.next_run is None or row.next_run > now + job.every:
        row.next_run = now
        is_changed = True
    return is_changed or row.pk is None


def _columns(job: ScheduledJob) -> dict[str, Any]:
    kinds = {timedelta(hours=1): Schedule.HOURLY, timedelta(days=1): Schedule.DAILY}
    kind = kinds.get(job.every, Schedule.MINUTES)
    return {
        "func": job.func,
        "args": repr(job.args) if job.args else None,
        "kwargs": None,
        "hook": None,
        "schedule_type": kind,
        "minutes": job.every // timedelta(minutes=1)
        if kind == Schedule.MINUTES
        else None,
        "cron": None,
        "repeats": -1,
        "cluster": None,
        "intended_date_kwarg": None,
    }


def _delete(rows: Iterable[Any]) -> int:
    keys = [row.pk for row in rows]
    Schedule.objects.filter(pk__in=keys).delete()
    return len(keys)


def enqueue_at_start(jobs: Iterable[ScheduledJob] = SCHEDULES) -> None:
    """Queue the jobs that do not wait for the cluster's first look."""
    for job in jobs:
        if job.at_start:
            async_task(job.func, *job.args, group=job.group)


@receiver(post_migrate)
def sync_after_migrate(*, sender: Any, using: str, **_: Any) -> None:
    """Keep the rows in step once django-q2's own tables are migrated."""
    # The signal comes for every app in turn, and its tables may not be there (yet).
    if sender.name == "django_q" and using == DEFAULT_DB_ALIAS and _table_is_ready():
        sync()


def _table_is_ready() -> bool:
    connection = connections[DEFAULT_DB_ALIAS]
    table = Schedule._meta.db_table
    with connection.cursor() as cursor:
        if table not in connection.introspection.table_names(cursor):
            return False
        found = connection.introspection.get_table_description(cursor, table)
    wanted = {field.column for field in Schedule._meta.local_fields}
    return wanted <= {column.name for column in found}


@register
def check_schedules(**_: Any) -> list[CheckMessage]:
    """Every scheduled job can be imported, and its rhythm is one the table can hold."""
    return [message for job in SCHEDULES for message in _problems(job)]


def _problems(job: ScheduledJob) -> Iterable[CheckMessage]:
    try:
        if not callable(import_string(job.func)):
            yield _error(job, f"{job.func} cannot be called")
    except ImportError as error:
        yield _error(job, f"{job.func} cannot be imported: {error}")
    if job.every < timedelta(minutes=1) or job.every % timedelta(minutes=1):
        yield _error(job, "its interval is not one or more whole minutes")


def _error(job: ScheduledJob, what: str) -> Error:
    return Error(
        f"Scheduled job {job.name!r}: {what}.",
        hint="Correct its entry in claudeproxy/schedules.py.",
        id="claudeproxy.E004",
    )
