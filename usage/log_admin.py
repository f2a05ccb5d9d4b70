"""The request log in the admin: a list to search, and a page for each request.

The table is large: nothing here counts all of it, sorts by what has no index, or reads
from it what there is to choose from.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from claudeproxy.list_page import ListAdmin, TimeFilter
from usage import cells, pricing, request_log, story
from usage.models import RequestRow
from usage.outcome import EndReason

# Nobody turns more pages than these; filters and the search go further back.
_MOST_LISTED = 5000


class SomePages(Paginator[RequestRow]):
    """Pages of the first few thousand rows: to count all would read all."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[RequestRow] = self.object_list  # type: ignore[assignment]
        # In no order: then it stops as soon as there are enough of them.
        return rows.order_by().values("pk")[:_MOST_LISTED].count()


class _KnownFilter(admin.SimpleListFilter):
    """One of those that the roll-ups know."""

    what = ""

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[Any, str]]:
        known = request_log.known(self.what)
        chosen = self.value()
        if chosen and chosen not in {str(value) for value, _ in known}:
            known.append((chosen, f"{self.title} {chosen}"))
        return [(value, name or f"no {self.title}") for value, name in known]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[RequestRow]
    ) -> QuerySet[RequestRow]:
        chosen = self.value()
        return queryset.filter(**{self.what: chosen}) if chosen else queryset


class _KnownIdFilter(_KnownFilter):
    def queryset(
        self, request: HttpRequest, queryset: QuerySet[RequestRow]
    ) -> QuerySet[RequestRow]:
        chosen = self.value()
        if not chosen:
            return queryset
        is_id = chosen.isascii() and chosen.isdigit() and len(chosen) < 19
        if not is_id:
            return queryset.none()
        return queryset.filter(**{f"{self.what}_id": int(chosen)})


class AccountFilter(_KnownIdFilter):
    title, parameter_name, what = "account", "account_id", "account"


class KeyFilter(_KnownIdFilter):
    title, parameter_name, what = "key", "key_id", "key"


class ModelFilter(_KnownFilter):
    title, parameter_name, what = "model", "model", "model"


class EndReasonFilter(admin.SimpleListFilter):
    title, parameter_name = "end reason", "end_reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(reason.value, str(reason.label)) for reason in EndReason]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[RequestRow]
    ) -> QuerySet[RequestRow]:
        chosen = self.value()
        if not chosen:
            return queryset
        if chosen not in EndReason.values:
            return queryset.none()
        return request_log.ended_so(queryset, EndReason(chosen))


class OrganizationFilter(admin.SimpleListFilter):
    """For links from elsewhere: shown when it is in the address."""

    title, parameter_name = "organization", "organization_uuid"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        chosen = request.GET.get(self.parameter_name)
        return [(chosen, chosen)] if chosen else []

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[RequestRow]
    ) -> QuerySet[RequestRow]:
        chosen = self.value()
        return queryset.filter(organization_uuid=chosen) if chosen else queryset


class RequestList(ChangeList):
    """The list without other orders: the newest first is what has an index."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        # There is no other number to tell.
        self.full_result_count = self.result_count

    @property
    def is_cut(self) -> bool:
        return self.result_count >= _MOST_LISTED


@admin.register(RequestRow)
class RequestAdmin(ListAdmin[RequestRow]):
    list_display = (
        "when",
        "ended",
        "key",
        "model_name",
        "tokens",
        "costs",
        "took",
    )
    sortable_by = ()
    list_filter = (
        "outcome",
        EndReasonFilter,
        AccountFilter,
        KeyFilter,
        ModelFilter,
        ("started_at", TimeFilter),
        OrganizationFilter,
    )
    show_facets = admin.ShowFacets.NEVER
    show_full_result_count = False
    list_max_show_all = 0
    list_per_page = 50
    paginator = SomePages
    search_fields = ("request_id",)
    search_help_text = "A request id, or how it begins."
    change_list_template = "usage/request_list.html"

    # --- columns

    @admin.display(description="time")
    def when(self, row: RequestRow) -> str:
        return render_to_string("usage/_started_short.html", {"row": row})

    @admin.display(description="key, account")
    def key(self, row: RequestRow) -> str:
        return format_html(
            '{}<span class="identifier">{}</span>',
            row.key_name or "no key",
            row.account_name or "no account",
        )

    @admin.display(description="model")
    def model_name(self, row: RequestRow) -> str:
        return row.model or row.model_asked or "none"

    @admin.display(description="outcome")
    def ended(self, row: RequestRow) -> str:
        attempts = request_log.attempts_made(row)
        return format_html(
            '{}<span class="identifier">{}, {}{}</span>',
            cells.outcome_badge(row),
            cells.status(row),
            row.get_end_reason_display(),
            f", {attempts} attempts" if attempts > 1 else "",
        )

    @admin.display
    def tokens(self, row: RequestRow) -> str:
        return cells.tokens(row)

    @admin.display(description="cost")
    def costs(self, row: RequestRow) -> str:
        return cells.cost(row)

    @admin.display(description="duration")
    def took(self, row: RequestRow) -> str:
        return format_html(
            '{}<span class="identifier">first byte {}</span>',
            cells.milliseconds(row.duration_ms, "not known"),
            cells.milliseconds(row.first_byte_ms, "never"),
        )

    # --- the list

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        parent = super().get_changelist(request, **kwargs)
        return type("RequestList", (RequestList, parent), {})

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[RequestRow], search_term: str
    ) -> tuple[QuerySet[RequestRow], bool]:
        text = search_term.strip()
        if not text:
            return queryset, False
        return request_log.with_beginning(queryset, text), False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: RequestRow | None = None
    ) -> bool:
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: RequestRow | None = None
    ) -> bool:
        return False

    # --- the page of a request

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        row = self.get_object(request, object_id)
        if row is None:
            return super().change_view(request, object_id, form_url, extra_context)
        if request.method == "POST" or not self.has_view_permission(request, row):
            raise PermissionDenied
        context = {
            **self.admin_site.each_context(request),
            "title": f"Request {row.request_id}",
            "opts": self.opts,
            "row": row,
            "now": timezone.now(),
            "badge": cells.outcome_badge(row),
            "status": cells.status(row),
            "end": story.end(row),
            "routing": story.routing(row),
            "bill": story.bill(row, pricing.load()),
            "attempts": tuple(_attempts(row)),
            "attempts_made": request_log.attempts_made(row),
            "first_byte": cells.milliseconds(row.first_byte_ms, "none was sent"),
            "duration": cells.milliseconds(row.duration_ms, "not known"),
            "of_account": _narrowed(account_id=row.account_id),
            "of_key": _narrowed(key_id=row.key_id),
        }
        return TemplateResponse(request, "usage/request.html", context)


def _attempts(row: RequestRow) -> Iterator[dict[str, str]]:
    for attempt in row.attempts:
        yield {
            "account": attempt.get("account", ""),
            "blame": attempt.get("blame", ""),
            "reason": attempt.get("reason", ""),
            "took": cells.milliseconds(attempt.get("duration_ms"), "not known"),
            "waited": cells.milliseconds(attempt.get("waited_ms") or None, "no time"),
        }


def _narrowed(**filters: Any) -> str:
    """The address of the log with these filters; none for nobody."""
    if not any(filters.values()):
        return ""
    return f"{reverse('admin:usage_requestrow_changelist')}?{urlencode(filters)}"
