"""An admin list that answers only the filters it shows, and searches of some length.

Django's own takes any lookup on any column: patterns that no database can read, and
guesses at columns that no page shows. A search of very many words is more than SQLite
can parse.
"""

from datetime import datetime, timedelta
from typing import Any, TypeVar

from django import forms
from django.contrib import admin
from django.contrib.admin.views.main import (
    SEARCH_VAR,
    ChangeList,
    ChangeListSearchForm,
)
from django.db.models import Model
from django.http import HttpRequest
from django.utils import timezone

M = TypeVar("M", bound=Model)

_DAY = timedelta(days=1)
_LONGEST_SEARCH = 200
# What Django's filters put into the address.
_LOOKUPS = frozenset({"exact", "gte", "in", "isnull", "lt"})


class _SearchForm(ChangeListSearchForm):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[SEARCH_VAR] = forms.CharField(
            required=False,
            strip=False,
            max_length=_LONGEST_SEARCH,
            error_messages={
                "max_length": "Search for at most %(limit_value)d characters. "
                "This is the list without a search."
            },
        )


class _List(ChangeList):
    search_form_class = _SearchForm


class ListAdmin(admin.ModelAdmin[M]):
    """A ModelAdmin whose list takes only what its own links and fields send."""

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return _List

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        name, _, rest = lookup.partition("__")
        is_known = not rest or rest.rpartition("__")[2] in _LOOKUPS
        return (
            is_known
            and name in map(_name_of, self.get_list_filter(request))
            and "\x00" not in value  # PostgreSQL cannot hold it
            and super().lookup_allowed(lookup, value, request)
        )


class TimeFilter(admin.DateFieldListFilter):
    """Days, up to now; a link may have any two times in its address."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = "time"
        # Days before it are counted by the calendar, and so begin at midnight too.
        # Where midnight comes twice, the day begins with the first one.
        today = timezone.localtime().replace(
            hour=0, minute=0, second=0, microsecond=0, fold=0
        )
        self.links = (
            ("Any time", {}),
            ("Today", self._since(today)),
            ("Since yesterday", self._since(today - _DAY)),
            ("Past 7 days", self._since(today - 7 * _DAY)),
            ("Past 30 days", self._since(today - 30 * _DAY)),
        )

    def _since(self, at: datetime) -> dict[str, Any]:
        return {self.lookup_kwarg_since: str(at)}


def _name_of(list_filter: Any) -> str:
    """What a filter's part of the address begins with."""
    if isinstance(list_filter, type):
        return str(list_filter.parameter_name)  # type: ignore[attr-defined]
    return str(list_filter if isinstance(list_filter, str) else list_filter[0])
