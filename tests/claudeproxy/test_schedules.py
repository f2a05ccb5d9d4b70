import ast
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ValidationError
from django.utils import timezone
from django_q.models import OrmQ, Schedule

from claudeproxy import schedules
from claudeproxy.schedules import PREFIX, SCHEDULES, ScheduledJob, SyncResult

MINUTE = timedelta(minutes=1)
JOB = ScheduledJob("tidy", "claudeproxy.jobs.heartbeat", timedelta(minutes=5))
OTHER = ScheduledJob("other", "claudeproxy.jobs.heartbeat", MINUTE)


@pytest.fixture(autouse=True)
def empty_table(db: None) -> None:
    Schedule.objects.all().delete()


def row(**changes: Any) -> Any:
    """Make the row that JOB asks for, with some changes."""
    fields = {
        "name": JOB.group,
        "func": JOB.func,
        "schedule_type": Schedule.MINUTES,
        "minutes": 5,
        "next_run": timezone.now(),
    }
    return Schedule.objects.create(**{**fields, **changes})


def test_sync_makes_a_missing_row():
    assert schedules.sync([JOB]) == SyncResult(made=1, changed=0, removed=0)
    made = Schedule.objects.get()
    assert (made.name, made.func, made.minutes) == (JOB.group, JOB.func, 5)
    assert made.next_run <= timezone.now()
    assert made.repeats == -1


def test_sync_changes_nothing_the_second_time():
    schedules.sync([JOB, OTHER])
    assert schedules.sync([JOB, OTHER]) == SyncResult(0, 0, 0)


def test_sync_of_a_row_already_run_keeps_its_next_run():
    soon = timezone.now() + timedelta(minutes=3)
    row(next_run=soon)
    assert schedules.sync([JOB]) == SyncResult(0, 0, 0)
    assert Schedule.objects.get().next_run == soon


@pytest.mark.parametrize(
    "drift",
    [
        {"func": "os.abort"},
        {"args": "1, 2"},
        {"kwargs": "a=1"},
        {"hook": "os.abort"},
        {"minutes": 7},
        {"schedule_type": Schedule.DAILY},
        {"repeats": 0},
        {"cluster": "elsewhere"},
        {"intended_date_kwarg": "day"},
        {"next_run": None},
        {"next_run": timezone.now() + timedelta(days=9)},
    ],
    ids=lambda drift: next(iter(drift)),
)
def test_sync_mends_whatever_drifted(drift):
    row(**drift)
    assert schedules.sync([JOB]) == SyncResult(made=0, changed=1, removed=0)
    assert schedules.sync([JOB]) == SyncResult(0, 0, 0)
    assert Schedule.objects.get().next_run <= timezone.now() + JOB.every


def test_sync_removes_duplicates_and_what_is_no_longer_declared():
    oldest = row()
    row(func="os.abort")
    row(name=PREFIX + "forgotten")
    assert schedules.sync([JOB]) == SyncResult(made=0, changed=0, removed=2)
    assert Schedule.objects.get() == oldest


def test_sync_leaves_rows_of_others():
    row(name="backup")
    row(name=None)
    schedules.sync([])
    assert Schedule.objects.count() == 2


def test_sync_writes_nothing_if_one_job_is_not_valid():
    with pytest.raises(ValidationError):
        schedules.sync([JOB, replace(OTHER, func="")])
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    ("every", "kind", "minutes"),
    [
        (MINUTE, Schedule.MINUTES, 1),
        (timedelta(minutes=90), Schedule.MINUTES, 90),
        (timedelta(hours=1), Schedule.HOURLY, None),
        (timedelta(days=1), Schedule.DAILY, None),
        (timedelta(days=2), Schedule.MINUTES, 2 * 24 * 60),
    ],
)
def test_an_interval_becomes_the_kind_that_the_admin_names_best(every, kind, minutes):
    schedules.sync([replace(JOB, every=every)])
    made = Schedule.objects.get()
    assert (made.schedule_type, made.minutes) == (kind, minutes)
    assert made.calculate_next_run() - made.next_run == every


@pytest.mark.parametrize("args", [(), (1,), (1, "it's", True, None)])
def test_arguments_survive_the_table(args):
    schedules.sync([replace(JOB, args=args)])
    text = Schedule.objects.get().args
    # The same way as the cluster's scheduler reads them.
    assert (ast.literal_eval(text) if text else ()) == args


def test_jobs_at_start_are_queued_under_the_name_of_their_schedule():
    schedules.enqueue_at_start([JOB, replace(OTHER, at_start=True, args=(1,))])
    task = OrmQ.objects.get().task
    assert (task["func"], task["args"], task["group"]) == (
        OTHER.func,
        (1,),
        OTHER.group,
    )


def test_the_heartbeat_runs_every_minute_and_at_start():
    job = next(job for job in SCHEDULES if job.name == "heartbeat")
    assert job.every == MINUTE
    assert job.at_start


def test_every_declared_schedule_is_accepted_by_the_table():
    assert schedules.sync().made == len(SCHEDULES)


def test_names_are_unique():
    names = [job.name for job in SCHEDULES]
    assert len(set(names)) == len(names)


def test_migrating_keeps_the_rows_in_step():
    schedules.sync_after_migrate(
        sender=apps.get_app_config("django_q"), using="default"
    )
    assert Schedule.objects.count() == len(SCHEDULES)


@pytest.mark.parametrize(
    ("app", "using"), [("accounts", "default"), ("django_q", "elsewhere")]
)
def test_migrating_another_app_or_database_does_not_matter(app, using):
    schedules.sync_after_migrate(sender=apps.get_app_config(app), using=using)
    assert not Schedule.objects.exists()


def test_the_declared_schedules_pass_the_system_check():
    assert schedules.check_schedules() == []


@pytest.mark.parametrize(
    ("job", "complaint"),
    [
        (replace(JOB, func="claudeproxy.jobs.gone"), "cannot be imported"),
        (replace(JOB, func="nowhere.at.all"), "cannot be imported"),
        (replace(JOB, func="claudeproxy.schedules.PREFIX"), "cannot be called"),
        (replace(JOB, every=timedelta(seconds=30)), "whole minutes"),
        (replace(JOB, every=timedelta(seconds=90)), "whole minutes"),
    ],
)
def test_the_system_check_names_a_job_that_could_not_run(monkeypatch, job, complaint):
    monkeypatch.setattr(schedules, "SCHEDULES", (job,))
    (problem,) = schedules.check_schedules()
    assert problem.id == "claudeproxy.E004"
    assert "'tidy'" in problem.msg
    assert complaint in problem.msg
