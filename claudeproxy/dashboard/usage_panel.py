"""The panel of usage: what was asked of the gateway in a span, and what it cost.

For all there is, or for one account, one key or the accounts of one organization.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import urlencode

from django.contrib.auth.models import AnonymousUser, User
from django.db.models import Model
from django.urls import reverse
from django.utils import timezone

from accounts.models import Account
from claudeproxy.dashboard import readings, spans, usage_charts
from claudeproxy.dashboard.spans import CHOICES, Choice
from claudeproxy.dashboard.usage_charts import Named, Tile
from claudeproxy.shapes import Chart, Ranking
from clients.models import ClientKey
from usage.reports import By, Line, Only
from usage.rows import NOBODY

_EVERYTHING = Only()
_LOG = "admin:usage_requestrow_changelist"


@dataclass(frozen=True)
class SpanLink:
    """A span to choose, and whether it is the one that is shown."""

    choice: Choice
    is_shown: bool


@dataclass(frozen=True)
class UsagePanel:
    """What was used; without requests there are no tiles and no charts."""

    spans: tuple[SpanLink, ...]
    shown: Choice
    zone: str
    log_url: str
    tiles: tuple[Tile, ...] = ()
    charts: tuple[Chart, ...] = ()
    rankings: tuple[Ranking, ...] = ()


def may_see(user: User | AnonymousUser) -> bool:
    """Whether a person may read what was used."""
    return user.has_perm("usage.view_requestrow")


def load(
    user: User | AnonymousUser,
    *,
    span: str,
    now: datetime,
    only: Only = _EVERYTHING,
) -> UsagePanel | None:
    """Gather the panel for this user, in a fixed number of queries; None: not theirs.

    Hours and days are told in Django's current time zone, which is the operator's.
    Names of accounts and keys are for those who may see accounts and keys.
    """
    if not may_see(user):
        return None
    zone = timezone.get_current_timezone()
    chosen = spans.choose(span, now, zone)
    by = [By.MODEL]
    if only.key_id is None and user.has_perm("clients.view_clientkey"):
        by.insert(0, By.KEY)
    if only.account_id is None and user.has_perm("accounts.view_account"):
        by.append(By.ACCOUNT)
    found = readings.read(chosen, only, by)
    panel = UsagePanel(
        spans=tuple(SpanLink(it, it == chosen.choice) for it in CHOICES),
        shown=chosen.choice,
        zone=str(zone),
        log_url=_log_url(only),
    )
    if not found.total.line.requests:
        return panel
    return replace(
        panel,
        tiles=usage_charts.tiles(found, chosen.buckets),
        charts=usage_charts.over_time(found, chosen.buckets),
        rankings=tuple(
            ranking
            for it in by
            for ranking in usage_charts.rankings(
                f"{it.value}s", _named(it, found.by[it], only)
            )
        ),
    )


def _named(by: By, lines: Collection[Line], only: Only) -> Iterable[Named]:
    """Give lines the names that people know today, and their pages."""
    match by:
        case By.ACCOUNT:
            return _rows_named(lines, Account, "no account was reached")
        case By.KEY:
            return _rows_named(lines, ClientKey, "no valid key")
    return [_model_named(line, only) for line in lines]


def _model_named(line: Line, only: Only) -> Named:
    if not line.group:
        return Named(line, "no model named")
    return Named(line, line.group, _log_url(replace(only, model=line.group)))


def _rows_named(
    lines: Collection[Line], model: type[Account] | type[ClientKey], nobody: str
) -> list[Named]:
    # All of them, not those of the lines: there are few, and SQLite takes only so many
    # parameters.
    names: Mapping[int, str] = dict(model.objects.values_list("pk", "name"))
    return [_row_named(line, model, names, nobody) for line in lines]


def _row_named(
    line: Line, model: type[Model], names: Mapping[int, str], nobody: str
) -> Named:
    if line.group == NOBODY:
        return Named(line, nobody)
    if line.group not in names:
        return Named(line, f"{line.name} (deleted)")
    opts = model._meta
    view = f"admin:{opts.app_label}_{opts.model_name}_change"
    return Named(line, names[line.group], reverse(view, args=[line.group]))


def _log_url(only: Only) -> str:
    """The log of these requests; empty for those of several accounts: it has none."""
    if only.account_ids is not None:
        return ""
    query = urlencode(only.conditions())
    return f"{reverse(_LOG)}?{query}" if query else reverse(_LOG)
