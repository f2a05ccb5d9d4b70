"""Prices in the admin: the shipped ones to read and to overrule, one's own to keep."""

from typing import Any

from django.contrib import admin
from django.forms import ModelForm
from django.http import HttpRequest

from claudeproxy.list_page import ListAdmin
from usage.models import PriceRow

_RATES = ("input", "output", "write_5m", "write_1h", "read")


@admin.register(PriceRow)
class PriceAdmin(ListAdmin[PriceRow]):
    list_display = ("model", "effective_from", *_RATES, "origin")
    list_filter = ("is_own",)
    search_fields = ("model",)
    show_facets = admin.ShowFacets.NEVER

    fieldsets = (
        (None, {"fields": ("model", "effective_from", "origin")}),
        ("US dollars per million tokens", {"fields": _RATES}),
        (
            "Fast mode",
            {
                "fields": [f"fast_{name}" for name in _RATES],
                "description": "Empty if the model has none.",
            },
        ),
        (
            "Long prompts",
            {
                "fields": ["tier_above", *(f"tier_{name}" for name in _RATES)],
                "description": "Empty if they cost the same.",
            },
        ),
        ("Besides", {"fields": ("web_search", "batch_factor", "us_factor")}),
    )
    readonly_fields = ("origin",)

    @admin.display(ordering="is_own")
    def origin(self, price: PriceRow) -> str:
        if price.pk is None or price.is_own:
            return "own: updates leave it alone"
        return "shipped: own as soon as it is saved here"

    def has_delete_permission(
        self, request: HttpRequest, obj: PriceRow | None = None
    ) -> bool:
        # A shipped one would be back after the next start.
        is_shipped = obj is not None and not obj.is_own
        return not is_shipped and super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        # It would not tell shipped prices from own ones.
        actions: dict[str, Any] = super().get_actions(request)
        actions.pop("delete_selected", None)
        return actions

    def save_model(
        self,
        request: HttpRequest,
        obj: PriceRow,
        form: ModelForm[PriceRow],
        change: bool,
    ) -> None:
        obj.is_own = True
        super().save_model(request, obj, form, change)
