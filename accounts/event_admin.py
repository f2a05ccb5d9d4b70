"""What happened to accounts, in the admin: a list to read."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from accounts import cells
from accounts.models import AccountEvent
from claudeproxy.list_page import ListAdmin, TimeFilter


class NewStatusFilter(admin.ChoicesFieldListFilter):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = "new status"


@admin.register(AccountEvent)
class AccountEventAdmin(ListAdmin[AccountEvent]):
    list_display = ("when", "account_link", "previous", "badge", "reason", "actor")
    list_display_links = None
    list_filter = (
        ("to_status", NewStatusFilter),
        ("at", TimeFilter),
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
        return cells.when(event.at)

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
        return cells.status_badge(event.from_status) if event.from_status else "new"

    @admin.display(description="to", ordering="to_status")
    def badge(self, event: AccountEvent) -> str:
        return cells.status_badge(event.to_status)
