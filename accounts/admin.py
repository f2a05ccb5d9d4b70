"""Accounts in the admin: add, rename, move, check; and what happened to them."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

from accounts import lifecycle, probe, tokens, upkeep, views
from accounts.errors import IllegalMoveError
from accounts.forms import AddAccountForm, RenameAccountForm
from accounts.models import Account, AccountEvent
from accounts.status import ALLOWED_MOVES, AccountKind, AccountStatus
from accounts.tokens import Outcome
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


# How each end of a refresh is told, and how much it matters.
_REFRESHED: dict[Outcome, tuple[int, str]] = {
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


@dataclass(frozen=True)
class ModelRow:
    """A model as the page of an account prints it."""

    id: str
    name: str
    lifecycle: str
    context: str
    output: str
    features: str
    details: str


@admin.register(Account)
class AccountAdmin(_AccountModelAdmin):
    list_display = (
        "name",
        "kind",
        "organization",
        "badge",
        "reason",
        "since",
        "until",
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
        "used",
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

    def get_fields(
        self, request: HttpRequest, obj: Account | None = None
    ) -> Sequence[str]:
        if obj is not None and obj.kind == AccountKind.OAUTH:
            return self.fields
        return [name for name in self.fields if name not in self._token_fields]

    # --- columns and fields

    @admin.display(description="status", ordering="status")
    def badge(self, account: Account) -> str:
        return _status_badge(account.status)

    @admin.display(ordering="status_reason", empty_value="not given")
    def reason(self, account: Account) -> str:
        return account.status_reason

    @admin.display(ordering="status_changed_at")
    def since(self, account: Account) -> str:
        return _when(account.status_changed_at)

    @admin.display(ordering="rate_limited_until")
    def until(self, account: Account) -> str:
        return _when(account.rate_limited_until, otherwise="no limit")

    @admin.display(ordering="organization_name", empty_value="not known")
    def organization(self, account: Account) -> str:
        return _with_line(account.organization_name, account.organization_uuid)

    @admin.display(description="holder", empty_value="not known")
    def held_by(self, account: Account) -> str:
        if account.kind == AccountKind.API_KEY:
            return "not known: the provider names no holder of a key"
        return _with_line(account.holder_name, account.holder)

    @admin.display(description="token ends", ordering="expires_at")
    def token(self, account: Account) -> str:
        if account.kind == AccountKind.API_KEY:
            return "a key does not"
        ends = _when(account.expires_at, otherwise="not known")
        if not account.last_refresh_error:
            return ends
        return format_html("{} {}", ends, _badge("trouble", "refresh failed"))

    @admin.display(description="last used", ordering="last_used_at")
    def used(self, account: Account) -> str:
        return _when(account.last_used_at, otherwise="never")

    @admin.display(description="last refresh")
    def last_refresh(self, account: Account) -> str:
        return _when(account.last_refresh_at, otherwise="none so far")

    @admin.display(description="last refresh error", empty_value="none")
    def refresh_trouble(self, account: Account) -> str:
        if account.refresh_failures < 2:
            return account.last_refresh_error
        return f"{account.last_refresh_error} ({account.refresh_failures} in a row)"

    @admin.display(description="next refresh")
    def next_refresh(self, account: Account) -> str:
        if account.refresh_token is None:
            return "none: the account has no refresh token"
        if account.status in {AccountStatus.INACTIVE, AccountStatus.INVALID}:
            return f"none while the account is {account.get_status_display()}"
        now = timezone.now()
        if account.refresh_retry_at and account.refresh_retry_at > now:
            return _when(account.refresh_retry_at)
        if (
            account.expires_at is None
            or account.expires_at - upkeep.REFRESH_AHEAD < now
        ):
            return "with the next request or hourly job"
        return format_html(
            "by the first hourly job after {}",
            _when(account.expires_at - upkeep.REFRESH_AHEAD),
        )

    @admin.display(description="last rate limit ended")
    def last_limit(self, account: Account) -> str:
        return _when(account.recovered_at, otherwise="no limit so far")

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
        # One that was refused serves again only if the provider accepts it now.
        invalid = [a for a in accounts if a.status == AccountStatus.INVALID]
        refused = set()
        for account, finding in _check_all(invalid):
            if not finding.works:
                refused.add(account)
                self.message_user(
                    request,
                    f"Account {account.name} stays invalid: {finding.message}",
                    messages.ERROR,
                )
        if others := [account for account in accounts if account not in refused]:
            self._move(request, others, lifecycle.activate, "activated in the admin")

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
        for account in accounts:
            try:
                result = tokens.ensure_fresh(account.pk, force=True, is_patient=False)
            except ClaudeProxyError as error:
                level, text = messages.ERROR, f"cannot be refreshed: {error}"
            else:
                level, text = _REFRESHED[result.outcome]
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
        pages = (("connect", views.connect), ("connect/code", views.enter_code))
        buttons = (
            ("activate", self._act_on_one(self.activate)),
            ("deactivate", self._act_on_one(self.deactivate)),
            ("check", self._act_on_one(self.check_credential)),
            ("refresh", self._act_on_one(self.refresh_token)),
            ("models", self._act_on_one(self.read_models)),
            ("sign_in", views.sign_in_again),
        )
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
        context = {
            **self.admin_site.each_context(request),
            "title": "Add account",
            "adminform": helpers.AdminForm(
                form,  # type: ignore[arg-type]  # it lays out any form
                [(None, {"fields": list(form.fields)})],
                {},
                model_admin=self,
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
            "title": account.name,
            "subtitle": None,
            "now": timezone.now(),
            "can_activate": AccountStatus.ACTIVE in moves,
            "can_deactivate": AccountStatus.INACTIVE in moves,
            "is_oauth": account.kind == AccountKind.OAUTH,
            "must_sign_in": account.kind == AccountKind.OAUTH
            and account.status == AccountStatus.INVALID,
            "models": _model_rows(account.capabilities),
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
        events = AccountEvent.objects.filter(account=object_id).count()
        context = {"events_count": events, **(extra_context or {})}
        return super().delete_view(request, object_id, context)

    def save_model(
        self, request: HttpRequest, obj: Account, form: Any, change: bool
    ) -> None:
        # Only what the page edits: the rest of the row may be older than the database.
        obj.save(update_fields=["name", "updated_at"])


class NewStatusFilter(admin.ChoicesFieldListFilter):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = "new status"


class WhenFilter(admin.DateFieldListFilter):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = "time"


@admin.register(AccountEvent)
class AccountEventAdmin(_EventModelAdmin):
    list_display = ("when", "account_link", "previous", "badge", "reason", "actor")
    list_display_links = None
    list_filter = (
        ("to_status", NewStatusFilter),
        ("at", WhenFilter),
        ("account", admin.RelatedOnlyFieldListFilter),
    )
    list_select_related = ("account",)
    search_fields = ("account_name", "reason", "actor")
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
        return _status_badge(event.from_status) if event.from_status else "new"

    @admin.display(description="to", ordering="to_status")
    def badge(self, event: AccountEvent) -> str:
        return _status_badge(event.to_status)


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


def _model_rows(models: Iterable[dict[str, Any]] | None) -> list[ModelRow] | None:
    return None if models is None else [_model_row(model) for model in models]


def _model_row(model: dict[str, Any]) -> ModelRow:
    features = [str(name).replace("_", " ") for name in model.get("features") or ()]
    return ModelRow(
        id=model["id"],
        name=model.get("name") or model["id"],
        lifecycle=model.get("lifecycle") or "",
        context=_thousands(model.get("max_input_tokens")),
        output=_thousands(model.get("max_tokens")),
        features=", ".join(name for name in features if "." not in name),
        details=", ".join(name for name in features if "." in name),
    )


def _thousands(number: int | None) -> str:
    return "not known" if number is None else f"{number:,}"


def _with_line(words: str, identifier: str) -> str:
    """A name with its id below; "" if neither is known."""
    if not (words and identifier):
        return words or identifier
    return format_html('{}<span class="identifier">{}</span>', words, identifier)


def _status_badge(status: str) -> str:
    return _badge(status, AccountStatus(status).label)


def _badge(status: str, word: str) -> str:
    return render_to_string(
        "claudeproxy/_status_badge.html", {"status": status, "word": word}
    )


def _when(at: datetime | None, otherwise: str = "") -> str:
    return render_to_string(
        "claudeproxy/_when.html",
        {"at": at, "now": timezone.now(), "otherwise": otherwise},
    )
