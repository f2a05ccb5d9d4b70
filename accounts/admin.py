"""Accounts in the admin: add, rename, move, check; and what happened to them."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from accounts import (
    activation,
    cells,
    event_admin,  # noqa: F401  # registers the page of events
    lifecycle,
    oauth,
    probe,
    quota_display,
    removal,
    tokens,
    upkeep,
    views,
)
from accounts.activation import CheckFailedError
from accounts.errors import IllegalMoveError, OAuthNotConfiguredError
from accounts.forms import AddAccountForm, RenameAccountForm
from accounts.models import Account, OwnedObject
from accounts.status import ALLOWED_MOVES, AccountKind, AccountStatus
from accounts.tokens import Outcome
from claudeproxy import add_page
from claudeproxy.errors import ClaudeProxyError
from claudeproxy.list_page import ListAdmin

Verb = Callable[..., bool]

_EVENTS_SHOWN = 30
# Checks at one time; each may take as long as the upstream's timeout.
_PARALLEL_CHECKS = 8


# How each end of a refresh is told, and how much it matters.
REFRESH_WORDS: dict[Outcome, tuple[int, str]] = {
    Outcome.REFRESHED: (messages.SUCCESS, "has a new token."),
    Outcome.STILL_FRESH: (messages.SUCCESS, "has just been given a new token."),
    Outcome.UNDER_WAY: (messages.INFO, "is being given a new token by somebody else."),
    Outcome.POSTPONED: (messages.WARNING, "waits after earlier trouble: {}."),
    Outcome.FAILED: (
        messages.WARNING,
        "has no new token: {}. The old one is used while it lives.",
    ),
    Outcome.INVALID: (messages.ERROR, "has to sign in again: {}."),
    Outcome.GONE: (messages.WARNING, "has no token to refresh."),
}


@admin.register(Account)
class AccountAdmin(ListAdmin[Account]):
    list_display = (
        "name",
        "badge",
        "since",
        "until",
        "belongs_to",
        "token",
        "used",
    )
    list_filter = ("status", "kind")
    search_fields = ("name", "status_reason", "organization_name", "holder_name")

    form = RenameAccountForm
    _token_fields = ("last_refresh", "refresh_trouble", "next_refresh")
    readonly_fields = (
        "kind",
        "organization",
        "held_by",
        "credential",
        *_token_fields,
        "last_use",
        "last_limit",
        "added",
    )
    fields = ("name", *readonly_fields)
    add_form_template = "admin/change_form.html"
    change_form_template = "accounts/account.html"
    change_list_template = "accounts/account_list.html"
    delete_confirmation_template = "accounts/delete_confirmation.html"
    delete_selected_confirmation_template = "accounts/delete_selected_confirmation.html"

    actions = (
        "activate",
        "deactivate",
        "check_credential",
        "refresh_token",
        "read_models",
    )

    def get_fields(self, request: HttpRequest, obj: Account | None = None) -> list[Any]:
        is_oauth = obj is not None and obj.kind == AccountKind.OAUTH
        left_out = () if is_oauth else self._token_fields
        return [name for name in self.fields if name not in left_out]

    # --- columns and fields

    @admin.display(description="status", ordering="status")
    def badge(self, account: Account) -> str:
        return format_html(
            '{}<span class="status-reason">{}</span>',
            cells.status_badge(account.status),
            account.status_reason or "no reason given",
        )

    @admin.display(ordering="status_changed_at")
    def since(self, account: Account) -> str:
        return cells.when_short(account.status_changed_at)

    @admin.display(ordering="rate_limited_until")
    def until(self, account: Account) -> str:
        if cells.is_over(account.rate_limited_until):
            return "over, serves again"
        return cells.when_short(account.rate_limited_until, otherwise="no limit")

    @admin.display(description="organization", ordering="organization_name")
    def belongs_to(self, account: Account) -> str:
        if account.kind == AccountKind.API_KEY:
            return cells.with_line(account.organization_name, account.organization_uuid)
        return cells.with_line(account.organization_name, account.holder_name)

    @admin.display
    def organization(self, account: Account) -> str:
        return cells.with_line(account.organization_name, account.organization_uuid)

    @admin.display(description="holder")
    def held_by(self, account: Account) -> str:
        if account.kind == AccountKind.API_KEY:
            return "not known: the provider names no holder of a key"
        return cells.with_line(account.holder_name, account.holder)

    @admin.display(description="credential", ordering="expires_at")
    def token(self, account: Account) -> str:
        if account.kind == AccountKind.API_KEY:
            return "API key"
        ends = cells.when_short(account.expires_at, otherwise="at a time not known")
        verb = "ended" if cells.is_over(account.expires_at) else "ends"
        if not account.last_refresh_error:
            return format_html("token {} {}", verb, ends)
        return format_html(
            "token {} {} {}", verb, ends, cells.badge("trouble", "refresh failed")
        )

    @admin.display(description="last used", ordering="last_used_at")
    def used(self, account: Account) -> str:
        return cells.when_short(account.last_used_at, otherwise="never")

    @admin.display(description="last used")
    def last_use(self, account: Account) -> str:
        return cells.when(account.last_used_at, otherwise="never")

    @admin.display(description="last refresh")
    def last_refresh(self, account: Account) -> str:
        return cells.when(account.last_refresh_at, otherwise="none so far")

    @admin.display(description="last refresh error")
    def refresh_trouble(self, account: Account) -> str:
        if account.refresh_failures < 2:
            return account.last_refresh_error or "none"
        return f"{account.last_refresh_error} ({account.refresh_failures} in a row)"

    @admin.display(description="next refresh")
    def next_refresh(self, account: Account) -> str:
        if account.refresh_token is None:
            return "none: the account has no refresh token"
        if account.status in {AccountStatus.INACTIVE, AccountStatus.INVALID}:
            return f"none while the account is {account.get_status_display()}"
        now = timezone.now()
        if account.refresh_retry_at and account.refresh_retry_at > now:
            return cells.when(account.refresh_retry_at)
        if (
            account.expires_at is None
            or account.expires_at - upkeep.REFRESH_AHEAD < now
        ):
            return "with the next request or hourly job"
        return format_html(
            "by the first hourly job after {}",
            cells.when(account.expires_at - upkeep.REFRESH_AHEAD),
        )

    @admin.display(description="last rate limit ended")
    def last_limit(self, account: Account) -> str:
        return cells.when(account.recovered_at, otherwise="no limit so far")

    @admin.display
    def added(self, account: Account) -> str:
        return cells.when(account.created_at)

    @admin.display
    def credential(self, account: Account) -> str:
        if account.kind == AccountKind.API_KEY:
            return "API key, set"
        return format_html(
            "Access token, set; {} {}",
            "ended" if cells.is_over(account.expires_at) else "ends",
            cells.when(account.expires_at, otherwise="at a time not known"),
        )

    # --- actions

    @admin.action(description="Activate", permissions=["change"])
    def activate(self, request: HttpRequest, accounts: QuerySet[Account]) -> None:
        # Checked at one time, and not one after the other as the verb would.
        findings = dict(_check_all(a for a in accounts if activation.needs_check(a)))

        def activate(account: Account, **how: Any) -> bool:
            return activation.activate(account, finding=findings.get(account), **how)

        self._move(request, accounts, activate, "activated in the admin")

    @admin.action(description="Deactivate", permissions=["change"])
    def deactivate(self, request: HttpRequest, accounts: QuerySet[Account]) -> None:
        self._move(request, accounts, lifecycle.deactivate, "deactivated in the admin")

    @admin.action(description="Check credential", permissions=["change"])
    def check_credential(
        self, request: HttpRequest, accounts: QuerySet[Account]
    ) -> None:
        for account, finding in _check_all(accounts):
            self.message_user(
                request,
                f"Account {account.name}: {finding.message}",
                messages.SUCCESS if finding.works else messages.ERROR,
            )

    @admin.action(description="Refresh token now", permissions=["change"])
    def refresh_token(self, request: HttpRequest, accounts: QuerySet[Account]) -> None:
        try:
            oauth.require_configured()
        except OAuthNotConfiguredError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        for account in accounts:
            try:
                result = tokens.ensure_fresh(account.pk, force=True, is_patient=False)
            except ClaudeProxyError as error:
                level, text = messages.ERROR, f"cannot be refreshed: {error}"
            else:
                level, text = REFRESH_WORDS[result.outcome]
                text = text.format(result.message.rstrip("."))
            self.message_user(request, f"Account {account.name} {text}", level)

    @admin.action(description="Read models again", permissions=["change"])
    def read_models(self, request: HttpRequest, accounts: QuerySet[Account]) -> None:
        for account in accounts:
            try:
                is_read = upkeep.look_at_capabilities(account)
            except ClaudeProxyError as error:
                self.message_user(
                    request, f"Account {account.name}: {error}", messages.ERROR
                )
                continue
            self.message_user(
                request,
                f"Account {account.name}: its models were read."
                if is_read
                else f"Account {account.name}: the provider gave no list of models; "
                "what was known stays. Check credential says why.",
                messages.SUCCESS if is_read else messages.WARNING,
            )

    def _move(
        self,
        request: HttpRequest,
        accounts: Iterable[Account],
        verb: Verb,
        reason: str,
    ) -> None:
        moved, failed, skipped = 0, 0, []
        for account in accounts:
            try:
                is_moved = _try(verb, account, actor=_actor(request), reason=reason)
            except CheckFailedError as error:
                failed += 1
                self.message_user(request, str(error), messages.ERROR)
                continue
            if is_moved:
                moved += 1
            else:
                skipped.append(account.name)
        if failed and not moved and not skipped:
            return
        report = f"{moved} moved, {len(skipped)} skipped"
        if skipped:
            report += f" (cannot be moved from where they are: {', '.join(skipped)})"
        self.message_user(
            request, f"{report}.", messages.WARNING if skipped else messages.SUCCESS
        )

    # --- pages

    def get_urls(self) -> list[URLPattern]:
        pages = (("connect", views.connect), ("connect/code", views.enter_code))
        buttons = (
            ("activate", self._act_on_one(self.activate)),
            ("deactivate", self._act_on_one(self.deactivate)),
            ("check", self._act_on_one(self.check_credential)),
            ("refresh", self._act_on_one(self.refresh_token)),
            ("models", self._act_on_one(self.read_models)),
            ("sign_in", views.sign_in_again),
        )
        routes: list[tuple[str, str, Callable[..., HttpResponse]]]
        routes = [(f"{name}/", name, view) for name, view in pages]
        routes += [(f"<int:pk>/{name}/", name, require_POST(v)) for name, v in buttons]
        return [
            path(
                route,
                self.admin_site.admin_view(view),
                name=f"accounts_account_{name.replace('/', '_')}",
            )
            for route, name, view in routes
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
            if request.POST.get("back") == "overview":
                return HttpResponseRedirect(reverse("admin:index"))
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
                if form.cleaned_data["check_first"]:
                    self.message_user(request, views.models_in_words(account))
                return self.response_add(request, account)
        return add_page.render(
            self,
            request,
            form,
            title="Add account",
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
        account = self.get_object(request, object_id)
        if account is None:
            return super().change_view(request, object_id, form_url, extra_context)
        moves = ALLOWED_MOVES[AccountStatus(account.status)]
        now = timezone.now()
        context = {
            "title": account.name,
            "subtitle": None,
            "now": now,
            "can_activate": AccountStatus.ACTIVE in moves,
            "can_deactivate": AccountStatus.INACTIVE in moves,
            "is_oauth": account.kind == AccountKind.OAUTH,
            "must_sign_in": account.kind == AccountKind.OAUTH
            and account.status == AccountStatus.INVALID,
            "quota": quota_display.readings(account.quota.all(), now),
            "models": cells.model_rows(account.capabilities),
            "events": account.events.all()[:_EVENTS_SHOWN],
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
        }
        return super().change_view(
            request, object_id, form_url, {**context, **(extra_context or {})}
        )

    def delete_view(
        self,
        request: HttpRequest,
        object_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        account = self.get_object(request, object_id)
        context = {"events_count": account.events.count() if account else 0}
        return super().delete_view(
            request, object_id, {**context, **(extra_context or {})}
        )

    def get_deleted_objects(
        self, objs: Iterable[Account], request: HttpRequest
    ) -> tuple[list[str], dict[str, int], set[str], list[str]]:
        # Thousands of objects may belong to an account: their number says enough.
        accounts = list(objs)
        counts = {
            "accounts": len(accounts),
            "objects at the provider that are found through it": (
                OwnedObject.objects.filter(account__in=accounts).count()
            ),
        }
        return [str(account) for account in accounts], counts, set(), []

    def save_model(
        self, request: HttpRequest, obj: Account, form: Any, change: bool
    ) -> None:
        # Only what the page edits: the rest of the row may be older than the database.
        obj.save(update_fields=["name", "updated_at"])

    def delete_model(self, request: HttpRequest, obj: Account) -> None:
        removal.delete(obj, actor=_actor(request))

    def delete_queryset(
        self, request: HttpRequest, queryset: QuerySet[Account]
    ) -> None:
        for account in queryset:
            removal.delete(account, actor=_actor(request))


def _try(verb: Verb, account: Account, *, actor: str, reason: str) -> bool:
    try:
        return verb(account, actor=actor, reason=reason, now=timezone.now())
    except IllegalMoveError:
        return False


def _check_all(accounts: Iterable[Account]) -> list[tuple[Account, probe.Finding]]:
    rows = list(accounts)
    with ThreadPoolExecutor(max_workers=_PARALLEL_CHECKS) as threads:
        return list(zip(rows, threads.map(_check, rows), strict=True))


def _check(account: Account) -> probe.Finding:
    try:
        return probe.check(account)
    except ClaudeProxyError as error:
        return probe.Finding(works=False, refused=False, message=str(error))


def _actor(request: HttpRequest) -> str:
    return request.user.get_username()
