"""Client keys in the admin: issued and shown once, renamed, revoked."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.utils import timezone

from claudeproxy import add_page, durations
from claudeproxy.list_page import ListAdmin
from clients import issuing
from clients.forms import AddClientKeyForm, ChangeClientKeyForm
from clients.issuing import IssuedKey
from clients.models import ClientKey
from clients.querysets import ClientKeyQuerySet


class StateFilter(admin.SimpleListFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("valid", "valid"), ("expired", "expired"), ("revoked", "revoked")]

    def queryset(self, request: HttpRequest, queryset: Any) -> ClientKeyQuerySet:
        keys: ClientKeyQuerySet = queryset
        now = timezone.now()
        match self.value():
            case "valid":
                return keys.valid(now)
            case "expired":
                return keys.expired(now)
            case "revoked":
                return keys.revoked()
        return keys


@admin.register(ClientKey)
class ClientKeyAdmin(ListAdmin[ClientKey]):
    list_display = ("name", "status", "role", "sessions", "ends", "created")
    list_filter = (StateFilter, "role")
    search_fields = ("name",)

    form = ChangeClientKeyForm
    fields = ("name", "session_limit", "status", "role", "ends", "created")
    readonly_fields = ("status", "role", "ends", "created")

    add_form_template = "admin/change_form.html"
    change_form_template = "clients/key.html"

    actions = ("revoke", "expire")

    # --- columns and fields

    @admin.display
    def status(self, key: ClientKey) -> str:
        state, words = _describe(key, timezone.now())
        return render_to_string(
            "claudeproxy/_status_badge.html", {"status": state, "word": words}
        )

    @admin.display(ordering="session_limit")
    def sessions(self, key: ClientKey) -> str:
        if key.session_limit is None:
            return "shared limit"
        return f"{key.session_limit} of its own"

    @admin.display(ordering="expires_at")
    def ends(self, key: ClientKey) -> str:
        if key.revoked_at is not None:
            return _when(key.revoked_at)
        return _when(key.expires_at, otherwise="never by itself")

    @admin.display(ordering="created_at")
    def created(self, key: ClientKey) -> str:
        return _when(key.created_at)

    # --- actions

    @admin.action(description="Revoke for good", permissions=["change"])
    def revoke(self, request: HttpRequest, keys: QuerySet[ClientKey]) -> None:
        self._end(request, keys, issuing.revoke, "revoked")

    @admin.action(description="Expire now", permissions=["change"])
    def expire(self, request: HttpRequest, keys: QuerySet[ClientKey]) -> None:
        self._end(request, keys, issuing.expire, "expired")

    def _end(
        self,
        request: HttpRequest,
        keys: QuerySet[ClientKey],
        verb: Callable[..., bool],
        done: str,
    ) -> None:
        ended, skipped = 0, []
        for key in keys:
            if verb(key, now=timezone.now()):
                ended += 1
                issuing.record(done, key, actor=_actor(request))
            else:
                skipped.append(key.name)
        report = f"{ended} {done}, {len(skipped)} skipped"
        if skipped:
            report += f" (ended before: {', '.join(skipped)})"
        self.message_user(
            request, f"{report}.", messages.WARNING if skipped else messages.SUCCESS
        )

    # --- pages

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        # Not Django's own view, which answers with a redirect: the key must be on the
        # page that answers, because it is kept nowhere.
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = AddClientKeyForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            issued = form.save()
            if issued is not None:
                self.log_addition(request, issued.row, [{"added": {}}])
                issuing.record("issued", issued.row, actor=_actor(request))
                return self._show_once(request, issued)
        return add_page.render(
            self,
            request,
            form,
            title="Create client key",
            form_url=form_url,
            extra_context=extra_context,
        )

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = {
            "title": "Client key",
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
        }
        return super().change_view(
            request, object_id, form_url, {**context, **(extra_context or {})}
        )

    def _show_once(self, request: HttpRequest, issued: IssuedKey) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "Client key created",
            "opts": self.opts,
            "name": issued.row.name,
            "key": issued.key.reveal(),
            "base_url": request.build_absolute_uri("/").rstrip("/"),
        }
        response = TemplateResponse(request, "clients/key_shown_once.html", context)
        response["Cache-Control"] = "no-store"
        return response

    def save_model(
        self, request: HttpRequest, obj: ClientKey, form: Any, change: bool
    ) -> None:
        # Only what the page edits: the rest of the row may be older than the database.
        obj.save(update_fields=["name", "session_limit"])

    def delete_model(self, request: HttpRequest, obj: ClientKey) -> None:
        issuing.delete(obj, actor=_actor(request))

    def delete_queryset(
        self, request: HttpRequest, queryset: QuerySet[ClientKey]
    ) -> None:
        for key in queryset:
            issuing.delete(key, actor=_actor(request))


def _actor(request: HttpRequest) -> str:
    return request.user.get_username()


def _describe(key: ClientKey, now: datetime) -> tuple[str, str]:
    """The state of a key, as a name for the style sheet and in words."""
    if key.revoked_at is not None:
        return "revoked", "revoked"
    if not key.is_valid(now):
        return "expired", "expired"
    if key.expires_at is None:
        return "valid", "valid"
    return "valid", f"expires in {durations.describe(key.expires_at - now)}"


def _when(at: datetime | None, otherwise: str = "") -> str:
    return render_to_string(
        "claudeproxy/_when.html",
        {"at": at, "now": timezone.now(), "otherwise": otherwise},
    )
