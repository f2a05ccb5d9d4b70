"""The gateway in figures: `GET /api/admin/statistics`.

It is put together here because it is about accounts, sessions and usage alike. All of
it is read from what workers share, so any of them gives the same answer.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Min, Q
from django.db.models.functions import Coalesce
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from accounts import upkeep
from accounts.models import Account
from accounts.status import AccountKind, AccountStatus, health_of
from claudeproxy.conf import conf
from sessions_limit import backends
from sessions_limit.backends.base import StoreAwayError
from usage import journal, reports
from usage.models import RequestRow
from usage.outcome import Outcome
from usage.reports import Line
from usage.serializers import LineSerializer

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
# Failures are counted by reason from this many requests, the latest, at most.
_FAILED_READ = 10_000
_REASONS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class AccountFigures:
    """Accounts by status, and how their tokens are."""

    usable: int
    by_status: dict[str, int]
    needing_refresh: int
    oldest_token_age_seconds: int | None

    @property
    def total(self) -> int:
        return sum(self.by_status.values())


@dataclass(frozen=True, slots=True)
class SessionFigures:
    """Client sessions of this moment."""

    live: int
    blocked: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Attempts that failed in one way."""

    blame: str
    reason: str
    attempts: int


@dataclass(frozen=True, slots=True)
class UsageFigures:
    """What requests of a span came to, and how many of them failed."""

    line: Line
    by_outcome: dict[str, int]

    @property
    def error_rate(self) -> float | None:
        """The share of requests that failed; None if there were none."""
        failed = self.by_outcome[Outcome.FAILED]
        return round(failed / self.line.requests, 6) if self.line.requests else None


@dataclass(frozen=True, slots=True)
class Statistics:
    at: datetime
    health: str
    accounts: AccountFigures
    sessions: SessionFigures | None
    today: Line
    last_24_hours: UsageFigures
    failures_last_hour: list[FailureCount]
    backlog: journal.Backlog


def load(now: datetime) -> Statistics:
    """Gather the figures; so many queries, however much there is."""
    accounts = load_accounts(now)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return Statistics(
        at=now,
        health=health_of(accounts.usable),
        accounts=accounts,
        sessions=load_sessions(),
        today=reports.total(midnight, now),
        last_24_hours=load_usage(now - _DAY, now),
        failures_last_hour=load_failures(now - _HOUR),
        backlog=journal.backlog(conf.data_dir / "journal"),
    )


def load_accounts(now: datetime) -> AccountFigures:
    by_status = Account.objects.count_by_status()
    has_token = Q(
        kind=AccountKind.OAUTH,
        status__in=(AccountStatus.ACTIVE, AccountStatus.RATE_LIMITED),
    )
    found = Account.objects.aggregate(
        usable=Count("pk", filter=Q(pk__in=Account.objects.usable(now).values("pk"))),
        needing_refresh=Count(
            "pk", filter=has_token & Q(expires_at__lte=now + upkeep.REFRESH_AHEAD)
        ),
        oldest=Min(Coalesce("last_refresh_at", "created_at"), filter=has_token),
    )
    age = None if found["oldest"] is None else now - found["oldest"]
    return AccountFigures(
        usable=found["usable"],
        by_status={status.value: count for status, count in by_status.items()},
        needing_refresh=found["needing_refresh"],
        oldest_token_age_seconds=age and max(0, int(age.total_seconds())),
    )


def load_sessions() -> SessionFigures | None:
    """Count sessions; None if they are not limited, or their store does not answer."""
    if not conf.session_enabled:
        return None
    try:
        with backends.opened() as store:
            found = store.live()
    except StoreAwayError:
        return None
    return SessionFigures(
        live=sum(session.is_alive for session in found),
        blocked=sum(session.blocked_until is not None for session in found),
        in_flight=sum(session.in_flight for session in found),
    )


def load_usage(since: datetime, until: datetime) -> UsageFigures:
    found = reports.counts_by_outcome(None, since, until).get(None, {})
    return UsageFigures(
        line=reports.total(since, until),
        by_outcome={it.value: found.get(it.value, 0) for it in Outcome},
    )


def load_failures(since: datetime) -> list[FailureCount]:
    """Count the attempts of requests since then that failed, the most frequent first.

    Reasons are in the rows alone, so this is for a span as short as an hour.
    """
    rows = (
        RequestRow.objects.filter(started_at__gte=since, failed_attempts__gt=0)
        .order_by("-started_at")
        .values_list("attempts", flat=True)[:_FAILED_READ]
    )
    counts = Counter(
        (attempt["blame"], attempt["reason"])
        for attempts in rows
        for attempt in attempts
    )
    return [
        FailureCount(blame, reason, count)
        for (blame, reason), count in counts.most_common(_REASONS_SHOWN)
    ]


# --- the endpoint ---------------------------------------------------------------------


class _AccountsSerializer(serializers.Serializer[Any]):
    total = serializers.IntegerField(read_only=True)
    usable = serializers.IntegerField(
        read_only=True, help_text="Active, or rate limited until a time that is over."
    )
    by_status = serializers.DictField(
        child=serializers.IntegerField(), read_only=True, help_text="All four of them."
    )
    needing_refresh = serializers.IntegerField(
        read_only=True, help_text="In use, with an access token that ends soon."
    )
    oldest_token_age_seconds = serializers.IntegerField(
        read_only=True,
        allow_null=True,
        help_text="Since it was refreshed; null if no account in use has one.",
    )


class _SessionsSerializer(serializers.Serializer[Any]):
    live = serializers.IntegerField(read_only=True)
    blocked = serializers.IntegerField(read_only=True)
    in_flight = serializers.IntegerField(
        read_only=True, help_text="Requests that run, as workers said a second ago."
    )


class _DaySerializer(serializers.Serializer[Any]):
    requests = LineSerializer(read_only=True, source="line")
    by_outcome = serializers.DictField(child=serializers.IntegerField(), read_only=True)
    error_rate = serializers.FloatField(
        read_only=True, allow_null=True, help_text="0 to 1; null without requests."
    )


class _FailureSerializer(serializers.Serializer[Any]):
    blame = serializers.CharField(read_only=True)
    reason = serializers.CharField(read_only=True)
    attempts = serializers.IntegerField(read_only=True)


class _LedgerSerializer(serializers.Serializer[Any]):
    waiting_bytes = serializers.IntegerField(
        read_only=True,
        source="bytes",
        help_text="In the journals of this machine, and not in the database yet.",
    )
    waiting_files = serializers.IntegerField(read_only=True, source="files")


class StatisticsSerializer(serializers.Serializer[Any]):
    at = serializers.DateTimeField(read_only=True)
    health = serializers.ChoiceField(
        ["healthy", "degraded", "unhealthy"],
        read_only=True,
        help_text="Two or more usable accounts, one, none.",
    )
    accounts = _AccountsSerializer(read_only=True)
    sessions = _SessionsSerializer(
        read_only=True,
        allow_null=True,
        help_text="Null if sessions are not limited, or their store does not answer.",
    )
    today = LineSerializer(read_only=True, help_text="Since midnight, UTC.")
    last_24_hours = _DaySerializer(
        read_only=True, help_text="With all of the hour in which they began."
    )
    failures_last_hour = _FailureSerializer(
        many=True,
        read_only=True,
        help_text="Attempts that failed, most frequent first.",
    )
    ledger = _LedgerSerializer(read_only=True, source="backlog")


class StatisticsViewSet(ViewSet):
    @extend_schema(summary="The gateway in figures", responses=StatisticsSerializer)
    def show(self, request: Request) -> Response:
        return Response(StatisticsSerializer(load(timezone.now())).data)
