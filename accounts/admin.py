"""Accounts in the admin: add, rename, move, check; and what happened to them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.template.loader import render_to_string
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from accounts import lifecycle, probe
from accounts.errors import IllegalMoveError
from accounts.forms import AddAccountForm, RenameAccountForm
from accounts.models import Account, AccountEvent
from accounts.status import ALLOWED_MOVES, AccountKind, AccountStatus
from claudeproxy.errors import ClaudeProxyError

if TYPE_CHECKING:
    _AccountModelAdmin = admin.ModelAdmin[Account]
    _EventModelAdmin = admin.ModelAdmin[AccountEvent]
else:
    _AccountModelAdmin = _EventModelAdmin = admin.ModelAdmin

Verb = Callable[..., bool]

_EVENTS_SHOWN = 30
# Checks at one time; each may take as long as the upstream's timeout.
_PARALLEL_CHECKS = 8


@admin.register(Account)
class AccountAdmin(_AccountModelAdmin):
    list_display = ("name", "kind", "badge", "status_reason", "since", "until")
    list_filter = ("status", "kind")
    search_fields = ("name", "status_reason")

    form = RenameAccountForm
    fields = ("name", "kind", "credential", "added")
    readonly_fields = ("kind", "credential", "added")
    add_form_template = "admin/change_form.html"
    change_form_template = "accounts/account.html"

    actions = ("activate", "deactivate", "check_credential")

    # --- columns and fields

    @admin.display(description="status", ordering="status")
    def badge(self, account: Account) -> str:
        return _badge(account.status)

    @admin.display(ordering="status_changed_at")
    def since(self, account: Account) -> str:
        return _when(account.status_changed_at)

    @admin.display(ordering="rate_limited_until")
    def until(self, account: Account) -> str:
        return _when(account.rate_limited_until, otherwise="no limit")

    @admin.display
    def added(self, account: Account) -> str:
        return _when(account.created_at)

    @admin.display
    def credential(self, account: Account) -> str:
        if account.kind == AccountKind.API_KEY:
            return "API key, set"
        return format_html(
            "Access token, set; ends {}",
            _when(account.expires_at, otherwise="at a time not known"),
        )

    # --- actions

    @admin.action(description="Activate", permissions=["change"])
    def activate(self, request: HttpRequest, accounts: QuerySet[Account]) -> None:
        self._move(request, accounts, lifecycle.activate, "activated in the admin")

    @admin.action(description="Deactivate", permissions=["change"])
    def deactivate(self, request: HttpRequest, accounts: QuerySet[Account]) -> None:
        self._move(request, accounts, lifecycle.deactivate, "deactivated in the admin")

    @admin.action(description="Check credential", permissions=["change"])
    def check_credential(
        self, request: HttpRequest, accounts: QuerySet[Account]
    ) -> None:
        rows = list(accounts)
        with ThreadPoolExecutor(max_workers=_PARALLEL_CHECKS) as threads:
            findings = threads.map(_check, rows)
        for account, finding in zip(rows, findings, strict=True):
            self.message_user(
                request,
                f"{account.name}: {finding.message}",
                messages.SUCCESS if finding.works else messages.ERROR,
            )

    def _move(
        self,
        request: HttpRequest,
        accounts: QuerySet[Account],
        verb: Verb,
        reason: str,
    ) -> None:
        moved, skipped = 0, []
        for account in accounts:
            if _try(verb, account, actor=_actor(request), reason=reason):
                moved += 1
            else:
                skipped.append(account.name)
        report = f"{moved} moved, {len(skipped)} skipped"
        if skipped:
            report += f" (cannot be moved from where they are: {', '.join(skipped)})"
        self.message_user(
            request, f"{report}.", messages.WARNING if skipped else messages.SUCCESS
        )

    # --- pages

    def get_urls(self) -> list[URLPattern]:
        return [
            path(
                f"<int:pk>/{name}/",
                self.admin_site.admin_view(require_POST(view)),
                name=f"accounts_account_{name}",
            )
            for name, view in (
                ("activate", self._act_on_one(self.activate)),
                ("deactivate", self._act_on_one(self.deactivate)),
                ("check", self._act_on_one(self.check_credential)),
            )
        ] + super().get_urls()

    def _act_on_one(
        self, action: Callable[[HttpRequest, QuerySet[Account]], None]
    ) -> Callable[[HttpRequest, int], HttpResponse]:
        """The view of a button: the action, for one account."""

        def view(request: HttpRequest, pk: int) -> HttpResponse:
            account = get_object_or_404(Account, pk=pk)
            if not self.has_change_permission(request, account):
                raise PermissionDenied
            action(request, Account.objects.filter(pk=pk))
            return HttpResponseRedirect(
                reverse("admin:accounts_account_change", args=[pk])
            )

        return view

    @method_decorator(sensitive_post_parameters("api_key"))
    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        # Not Django's own view: that one holds a transaction, and with it SQLite's
        # write lock, while the provider is asked.
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = AddAccountForm(request.POST if request.method == "POST" else None)
        if form.is_valid():
            account = form.save(actor=_actor(request), now=timezone.now())
            if account is not None:
                self.log_addition(request, account, [{"added": {}}])
                return self.response_add(request, account)
        context = {
            **self.admin_site.each_context(request),
            "title": "Add account",
            "adminform": helpers.AdminForm(
                form, [(None, {"fields": list(form.fields)})], {}, model_admin=self
            ),
            "errors": form.errors,
            "media": self.media,
            "inline_admin_formsets": [],
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
            **(extra_context or {}),
        }
        return self.render_change_form(request, context, add=True, form_url=form_url)

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        account = self.get_object(request, object_id)
        if account is None:
            return super().change_view(request, object_id, form_url, extra_context)
        moves = ALLOWED_MOVES[AccountStatus(account.status)]
        context = {
            "now": timezone.now(),
            "can_activate": AccountStatus.ACTIVE in moves,
            "can_deactivate": AccountStatus.INACTIVE in moves,
            "events": account.events.all()[:_EVENTS_SHOWN],
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
        }
        return super().change_view(
            request, object_id, form_url, {**context, **(extra_context or {})}
        )

    def save_model(
        self, request: HttpRequest, obj: Account, form: Any, change: bool
    ) -> None:
        # Only what the page edits: the rest of the row may be older than the database.
        obj.save(update_fields=["name", "updated_at"])


@admin.register(AccountEvent)
class AccountEventAdmin(_EventModelAdmin):
    list_display = ("when", "account_link", "previous", "badge", "reason", "actor")
    list_display_links = None
    list_filter = ("to_status", "at", ("account", admin.RelatedOnlyFieldListFilter))
    list_select_related = ("account",)
    search_fields = ("account_name", "reason", "actor")
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    fields = ("when", "account_link", "previous", "badge", "reason", "actor")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(
        self, request: HttpRequest, obj: AccountEvent | None = None
    ) -> bool:
        return False

    def has_delete_permission(
        self, request: HttpRequest, obj: AccountEvent | None = None
    ) -> bool:
        return False

    @admin.display(ordering="at")
    def when(self, event: AccountEvent) -> str:
        return _when(event.at)

    @admin.display(description="account", ordering="account_name")
    def account_link(self, event: AccountEvent) -> str:
        if event.account is None:
            return f"{event.account_name} (deleted)"
        return format_html(
            '<a href="{}">{}</a>',
            reverse("admin:accounts_account_change", args=[event.account.pk]),
            event.account,
        )

    @admin.display(description="from", ordering="from_status")
    def previous(self, event: AccountEvent) -> str:
        return _badge(event.from_status) if event.from_status else "new"

    @admin.display(description="to", ordering="to_status")
    def badge(self, event: AccountEvent) -> str:
        return _badge(event.to_status)


def _try(verb: Verb, account: Account, *, actor: str, reason: str) -> bool:
    try:
        return verb(account, actor=actor, reason=reason, now=timezone.now())
    except IllegalMoveError:
        return False


def _check(account: Account) -> probe.Finding:
    try:
        return probe.check(account)
    except ClaudeProxyError as error:
        return probe.Finding(works=False, refused=False, message=str(error))


def _actor(request: HttpRequest) -> str:
    return request.user.get_username()


def _badge(status: str) -> str:
    return render_to_string(
        "claudeproxy/_status_badge.html",
        {"status": status, "word": AccountStatus(status).label},
    )


def _when(at: datetime | None, otherwise: str = "") -> str:
    return render_to_string(
        "claudeproxy/_when.html",
        {"at": at, "now": timezone.now(), "otherwise": otherwise},
    )
