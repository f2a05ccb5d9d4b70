"""Prices in the admin: the shipped ones to read and to overrule, one's own to keep."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import Field, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest

from claudeproxy.list_page import ListAdmin
from usage import log_admin  # noqa: F401  # registers the log of requests
from usage.models import PriceRow

_RATES = ("input", "output", "write_5m", "write_1h", "read")
_LABELS = {
    "input": "Input",
    "output": "Output",
    "write_5m": "Cache write, 5 minutes",
    "write_1h": "Cache write, 1 hour",
    "read": "Cache read",
    "tier_above": "Above, in tokens",
    "batch_factor": "Factor for batches",
    "us_factor": "Factor for the US",
}


class OriginFilter(admin.SimpleListFilter):
    title, parameter_name = "origin", "origin"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("shipped", "shipped"), ("own", "own")]

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[PriceRow]
    ) -> QuerySet[PriceRow]:
        chosen = self.value()
        return queryset.filter(is_own=chosen == "own") if chosen else queryset


def _column(name: str) -> Callable[[PriceRow], str]:
    """A column of prices, without the zeros that say nothing."""

    @admin.display(description=_LABELS[name].lower(), ordering=name)
    def show(price: PriceRow) -> str:
        return f"{getattr(price, name).normalize():f}"

    return show


@admin.register(PriceRow)
class PriceAdmin(ListAdmin[PriceRow]):
    list_display = ("model", "since", *map(_column, _RATES), "whose")
    list_filter = (OriginFilter,)
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

    @admin.display(description="from", ordering="effective_from")
    def since(self, price: PriceRow) -> str:
        return price.effective_from.isoformat()

    @admin.display(description="origin", ordering="is_own")
    def whose(self, price: PriceRow) -> str:
        return "own" if price.is_own else "shipped"

    def formfield_for_dbfield(
        self, db_field: Field[Any, Any], request: HttpRequest, **kwargs: Any
    ) -> Any:
        field = super().formfield_for_dbfield(db_field, request, **kwargs)
        name = db_field.name.removeprefix("fast_")
        label = _LABELS.get(name) or _LABELS.get(name.removeprefix("tier_"))
        if field is not None and label:
            field.label = label
        if db_field.name == "effective_from" and field is not None:
            field.help_text = "This day in UTC, and each that follows."
        return field

    @admin.display
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
