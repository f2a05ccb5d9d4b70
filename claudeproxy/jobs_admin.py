"""Admin pages of the background jobs: what runs when, and how it went.

Schedules are declared in the code and written by a command, so nobody edits them here.
"""

from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.db.models import F, Model, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.module_loading import import_string
from django_q.models import Failure, OrmQ, Schedule, Success, Task
from django_q.tasks import async_task

from claudeproxy import schedules

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = admin.ModelAdmin


class ReadOnlyAdmin(_ModelAdmin):
    show_facets = admin.ShowFacets.NEVER

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ScheduleAdmin(ReadOnlyAdmin):
    list_display = ("name", "purpose", "every", "next", "last_result")
    list_display_links = None
    search_fields = ("name", "func")
    ordering = ("next_run",)
    fields = ("name", "purpose", "func", "every", "next", "last_result")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # By group, not by the row's own note of a task: that one names the run that was
        # queued last, which may not have ended, and none of those at start.
        last = Task.objects.filter(group=OuterRef("name")).order_by("-stopped")
        rows: QuerySet[Any] = (
            super()
            .get_queryset(request)
            .annotate(
                last_id=Subquery(last.values("id")[:1]),
                last_stopped=Subquery(last.values("stopped")[:1]),
                last_success=Subquery(last.values("success")[:1]),
            )
        )
        return rows

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        declared = {job.group for job in schedules.SCHEDULES}
        known = Schedule.objects.filter(name__in=declared).values_list(
            "name", flat=True
        )
        if missing := sorted(declared - set(known)):
            self.message_user(
                request,
                f"Not scheduled: {', '.join(missing)}. They are as soon as the gateway "
                "is started again.",
                messages.WARNING,
            )
        return super().changelist_view(request, extra_context)

    @admin.display(description="what it does", empty_value="not declared here")
    def purpose(self, schedule: Any) -> str:
        return _purposes().get(schedule.name, "")

    @admin.display(ordering="schedule_type")
    def every(self, schedule: Any) -> str:
        if schedule.schedule_type == Schedule.MINUTES:
            return "minute" if schedule.minutes == 1 else f"{schedule.minutes} minutes"
        return str(schedule.get_schedule_type_display()).lower()

    @admin.display(description="next run", ordering="next_run")
    def next(self, schedule: Any) -> str:
        return _when(schedule.next_run, otherwise="never")

    @admin.display(description="last result")
    def last_result(self, schedule: Any) -> str:
        if schedule.last_id is None:
            return "has not run yet"
        page, word = (
            ("success", "succeeded") if schedule.last_success else ("failure", "failed")
        )
        return format_html(
            '<a href="{}">{}</a> {}',
            reverse(f"admin:django_q_{page}_change", args=[schedule.last_id]),
            render_to_string(
                "claudeproxy/_status_badge.html", {"status": page, "word": word}
            ),
            _when(schedule.last_stopped),
        )


class TaskAdmin(ReadOnlyAdmin):
    list_display: tuple[str, ...] = ("name", "func", "ended", "took")
    list_filter = ("func", "stopped")
    search_fields = ("name", "func", "group")
    ordering = ("-stopped",)
    fields = ("call", "ended", "took", "outcome")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        tasks: QuerySet[Any] = (
            super().get_queryset(request).annotate(duration=F("stopped") - F("started"))
        )
        return tasks

    @admin.display
    def call(self, task: Any) -> str:
        return _call(task.func, task.args, task.kwargs)

    @admin.display(ordering="stopped")
    def ended(self, task: Any) -> str:
        return _when(task.stopped)

    @admin.display(ordering="duration")
    def took(self, task: Any) -> str:
        return f"{task.time_taken():.2f} s"

    @admin.display(description="result", empty_value="nothing")
    def outcome(self, task: Any) -> str | None:
        if task.result is None:
            return None
        return format_html('<pre class="job-result" tabindex="0">{}</pre>', task.result)


class FailureAdmin(TaskAdmin):
    list_display = (*TaskAdmin.list_display, "error")
    actions = ("run_again",)

    @admin.display(empty_value="not recorded")
    def error(self, task: Any) -> str | None:
        """The last line of the traceback says what happened."""
        lines = str(task.result or "").strip().splitlines()
        return lines[-1][:200] if lines else None

    @admin.action(description="Run again", permissions=["delete"])
    def run_again(self, request: HttpRequest, tasks: QuerySet[Any]) -> None:
        queued = 0
        for task in tasks:
            async_task(
                task.func,
                *(task.args or ()),
                group=task.group,
                hook=task.hook,
                **(task.kwargs or {}),
            )
            task.delete()
            queued += 1
        self.message_user(request, f"{queued} queued again.", messages.SUCCESS)


class QueueAdmin(ReadOnlyAdmin):
    change_list_template = "claudeproxy/live_list.html"
    list_display = ("name", "func", "taken")
    fields = ("call", "taken")
    ordering = ("pk",)

    @admin.display
    def call(self, job: Any) -> str:
        return _call(job.func(), job.args(), job.kwargs())

    @admin.display(description="taken by a worker until", ordering="lock")
    def taken(self, job: Any) -> str:
        return _when(job.lock, otherwise="waiting")


@cache
def _purposes() -> dict[str, str]:
    """What each declared job does: the first line of its function's description."""
    return {
        job.group: (import_string(job.func).__doc__ or "")
        .strip()
        .partition("\n")[0]
        .replace("`", "")
        for job in schedules.SCHEDULES
    }


def _call(func: str, args: Any, kwargs: Any) -> str:
    words = [repr(value) for value in args or ()]
    words += [f"{name}={value!r}" for name, value in (kwargs or {}).items()]
    return f"{func}({', '.join(words)})"


def _when(at: datetime | None, otherwise: str = "") -> str:
    return render_to_string(
        "claudeproxy/_when.html",
        {"at": at, "now": timezone.now(), "otherwise": otherwise},
    )


# Whose page is which; the site registers these and none other for the four models.
JOB_PAGES: dict[type[Model], type[ReadOnlyAdmin]] = {
    Schedule: ScheduleAdmin,
    Success: TaskAdmin,
    Failure: FailureAdmin,
    OrmQ: QueueAdmin,
}
