"""Background jobs in the admin."""

import html
import re
from datetime import timedelta

import pytest
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django_q.models import Failure, OrmQ, Schedule, Success, Task

from claudeproxy import schedules
from claudeproxy.jobs_admin import JOB_PAGES, ReadOnlyAdmin

pytestmark = pytest.mark.django_db

SCHEDULES = reverse("admin:django_q_schedule_changelist")
FAILURES = reverse("admin:django_q_failure_changelist")
TRACEBACK = "Traceback (most recent call last):\nValueError: out of <b>luck</b>"


def text(response) -> str:
    """What a reader sees: no tags, single blanks."""
    without_tags = re.sub(r"<[^>]+>", " ", response.content.decode())
    return re.sub(r"\s+", " ", html.unescape(without_tags))


def make_task(name: str = "nightly", *, success: bool = True, **fields) -> Task:
    stopped = timezone.now() - timedelta(minutes=5, seconds=30)
    return Task.objects.create(
        id=name,
        name=name,
        func="math.sqrt",
        group=name,
        success=success,
        started=stopped - timedelta(seconds=1.5),
        stopped=stopped,
        **fields,
    )


def make_schedule(name: str = "nightly", **fields) -> Schedule:
    return Schedule.objects.create(
        **{"name": name, "func": "math.sqrt", "schedule_type": "D", **fields}
    )


@pytest.mark.parametrize("model", [Schedule, Success, Failure, OrmQ])
def test_jobs_have_our_pages_and_cannot_be_edited(model) -> None:
    model_admin = admin.site.get_model_admin(model)
    assert type(model_admin) is JOB_PAGES[model]
    assert isinstance(model_admin, ReadOnlyAdmin)


@pytest.mark.parametrize("name", ["add", "delete"])
def test_schedules_cannot_be_made_or_removed(admin_client: Client, name: str) -> None:
    args = [] if name == "add" else [make_schedule().pk]
    url = reverse(f"admin:django_q_schedule_{name}", args=args)
    assert admin_client.get(url).status_code == 403


def test_schedules_cannot_be_edited(admin_client: Client) -> None:
    url = reverse("admin:django_q_schedule_change", args=[make_schedule().pk])
    assert admin_client.post(url, {"func": "os.abort"}).status_code == 403


def test_schedule_that_has_not_run_says_so(admin_client: Client) -> None:
    make_schedule(next_run=timezone.now() + timedelta(hours=3, seconds=30))
    shown = text(admin_client.get(SCHEDULES)).replace("\xa0", " ")
    assert "has not run yet" in shown
    assert "in 3 hours" in shown
    assert "daily" in shown


@pytest.mark.parametrize(
    ("success", "word", "page"),
    [(True, "succeeded", "success"), (False, "failed", "failure")],
)
def test_schedule_says_how_it_went_and_leads_there(
    admin_client: Client, success: bool, word: str, page: str
) -> None:
    task = make_task(success=success)
    make_schedule()
    response = admin_client.get(SCHEDULES)
    assert f"{word} " in text(response)
    url = reverse(f"admin:django_q_{page}_change", args=[task.id])
    assert url in response.content.decode()
    assert admin_client.get(url).status_code == 200


@pytest.mark.parametrize(("minutes", "words"), [(1, "minute"), (15, "15 minutes")])
def test_schedule_of_minutes_says_how_many(
    admin_client: Client, minutes: int, words: str
) -> None:
    make_schedule(schedule_type="I", minutes=minutes)
    assert f" {words} " in text(admin_client.get(SCHEDULES))


@pytest.mark.parametrize("success", [True, False])
def test_schedule_keeps_its_last_result_while_the_next_run_is_under_way(
    admin_client: Client, success: bool
) -> None:
    make_task(success=success)
    make_schedule(task="queued-and-not-ended")
    word = "succeeded" if success else "failed"
    assert re.search(rf"daily .* {word} ", text(admin_client.get(SCHEDULES)))


def test_schedule_shows_the_latest_of_its_runs(admin_client: Client) -> None:
    make_task(success=True)
    make_schedule()
    make_task("later", success=False)
    Task.objects.filter(id="later").update(group="nightly", stopped=timezone.now())
    shown = text(admin_client.get(SCHEDULES))
    assert "failed" in shown
    assert "succeeded" not in shown


def test_every_declared_schedule_is_there_with_what_it_does(
    admin_client: Client,
) -> None:
    shown = text(admin_client.get(SCHEDULES))
    for job in schedules.SCHEDULES:
        assert job.group in shown
    assert "Return accounts whose rate limit has ended to active." in shown
    assert "Not scheduled" not in shown


def test_a_declared_schedule_that_is_missing_is_named(admin_client: Client) -> None:
    Schedule.objects.filter(name="claudeproxy:heartbeat").delete()
    shown = text(admin_client.get(SCHEDULES))
    assert "Not scheduled: claudeproxy:heartbeat." in shown


def test_every_declared_schedule_says_what_it_does(admin_client: Client) -> None:
    assert "not declared here" not in text(admin_client.get(SCHEDULES))
    make_schedule()
    assert "not declared here" in text(admin_client.get(SCHEDULES))


def test_schedules_take_as_many_queries_for_many_as_for_one(
    admin_client: Client,
) -> None:
    def count_queries() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert admin_client.get(SCHEDULES).status_code == 200
        return len(queries)

    make_schedule("first")
    make_task("first")
    before = count_queries()
    for number in range(9):
        make_schedule(f"schedule {number}")
        make_task(f"schedule {number}")
    assert count_queries() == before


def test_failures_say_what_happened_in_one_line(admin_client: Client) -> None:
    make_task(success=False, result=TRACEBACK)
    shown = text(admin_client.get(FAILURES))
    assert "ValueError: out of <b>luck</b>" in shown
    assert "Traceback" not in shown


def test_failure_shows_its_call_and_the_whole_traceback(admin_client: Client) -> None:
    task = make_task(success=False, result=TRACEBACK, args=(4,), kwargs={"x": "y"})
    url = reverse("admin:django_q_failure_change", args=[task.id])
    shown = html.unescape(admin_client.get(url).content.decode())
    assert "math.sqrt(4, x='y')" in shown
    assert "Traceback (most recent call last):" in shown


def test_failure_without_a_result_says_so(admin_client: Client) -> None:
    make_task(success=False)
    assert "not recorded" in text(admin_client.get(FAILURES))


def test_failure_can_be_run_again(admin_client: Client) -> None:
    task = make_task(success=False, args=(4,))
    response = admin_client.post(
        FAILURES, {"action": "run_again", "_selected_action": [task.pk]}, follow=True
    )
    assert "1 queued again." in text(response)
    assert not Task.objects.exists()
    job = OrmQ.objects.get()
    assert (job.func(), job.args()) == ("math.sqrt", (4,))


def test_queue_shows_what_waits(admin_client: Client) -> None:
    task = make_task(success=False, args=(4,))
    admin_client.post(FAILURES, {"action": "run_again", "_selected_action": [task.pk]})
    shown = text(admin_client.get(reverse("admin:django_q_ormq_changelist")))
    assert "math.sqrt" in shown


def test_success_shows_how_long_it_took(admin_client: Client) -> None:
    make_task()
    shown = text(admin_client.get(reverse("admin:django_q_success_changelist")))
    assert "1.50 s" in shown
    assert "5 minutes ago" in shown.replace("\xa0", " ")
