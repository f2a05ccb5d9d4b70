"""Finds requests in the log: a page or all of them, the newest first.

Whoever reads many goes from chunk to chunk by where the last one ended, so no query is
long, none counts, and what comes meanwhile moves nothing.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.db.models import Q, QuerySet

from usage.models import DailyMarginal, RequestRow, RollupState
from usage.outcome import EndReason, Outcome
from usage.reports import Only

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_PLACE = re.compile(r"(\d{1,17})-(\d{1,18})", re.ASCII)
_LAST_CHARACTER = "\U0010ffff"
_CHUNK_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which requests: from `since` on and before `until`; None: no bound."""

    since: datetime | None = None
    until: datetime | None = None
    only: Only = field(default_factory=Only)
    request_id: str = ""

    def rows(self) -> QuerySet[RequestRow]:
        """These requests, the newest first."""
        rows = RequestRow.objects.filter(**self.only.conditions())
        if self.only.account_ids is not None:
            rows = rows.filter(account_id__in=self.only.account_ids)
        if self.since is not None:
            rows = rows.filter(started_at__gte=self.since)
        if self.until is not None:
            rows = rows.filter(started_at__lt=self.until)
        if self.request_id:
            rows = with_beginning(rows, self.request_id)
        return rows.order_by("-started_at", "-pk")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the log a chunk ended: the next one begins behind it."""

    started_at: datetime
    pk: int

    @classmethod
    def of(cls, row: RequestRow) -> "Place":
        return cls(row.started_at, row.pk)

    @classmethod
    def parse(cls, text: str) -> "Place | None":
        """Read what `str` wrote; None for anything else."""
        match = _PLACE.fullmatch(text)
        if match is None:
            return None
        return cls(_EPOCH + int(match[1]) * _MICROSECOND, int(match[2]))

    def __str__(self) -> str:
        return f"{(self.started_at - _EPOCH) // _MICROSECOND}-{self.pk}"

    def behind(self, rows: QuerySet[RequestRow]) -> QuerySet[RequestRow]:
        # The first condition says no more than the second, but a database can look it
        # up in an index.
        return rows.filter(
            Q(started_at__lt=self.started_at) | Q(pk__lt=self.pk),
            started_at__lte=self.started_at,
        )


# What is read of each where many are.
_COLUMNS = (
    "request_id",
    "started_at",
    "account_id",
    "account_name",
    "key_name",
    "model_asked",
    "model",
    "status",
    "end_reason",
    "failed_attempts",
    "first_byte_ms",
    "duration_ms",
    "answer_bytes",
    "input_tokens",
    "write_5m_tokens",
    "write_1h_tokens",
    "read_tokens",
    "output_tokens",
    "cost",
)


def chunk(wanted: Wanted, after: Place | None, size: int) -> list[RequestRow]:
    """Read the next requests behind a place, as far as an export shows them."""
    rows = wanted.rows().only(*_COLUMNS)
    return list((rows if after is None else after.behind(rows))[:size])


def chunks(wanted: Wanted) -> Iterator[list[RequestRow]]:
    """Read all of them, some at a time."""
    after = None
    while rows := chunk(wanted, after, _CHUNK_ROWS):
        yield rows
        after = Place.of(rows[-1])


def with_beginning(rows: QuerySet[RequestRow], request_id: str) -> QuerySet[RequestRow]:
    """Those whose request id is so, or begins so."""
    if connection.vendor == "sqlite":
        # It would look at every row for a LIKE. Its order is that of the characters.
        return rows.filter(
            request_id__gte=request_id, request_id__lt=request_id + _LAST_CHARACTER
        )
    return rows.filter(request_id__startswith=request_id)


def id_of(what: str, name: str) -> int | None:
    """The id of the account or key that was called so last; None if none ever was.

    Names are those in the log: whoever was never asked or never asked has none there.
    """
    column, name_column = f"{what}_id", f"{what}_name"
    at = RollupState.objects.first() or RollupState()
    newest = (
        RequestRow.objects.filter(pk__gt=at.rolled_to, **{name_column: name})
        .order_by("-pk")
        .values_list(column, flat=True)
    )
    summed_up = (
        DailyMarginal.objects.filter(dimension=what, **{name_column: name})
        .order_by("-day", "-pk")
        .values_list(column, flat=True)
    )
    for ids in (newest, summed_up):
        found = ids.first()
        if found is not None:
            return int(found)
    return None


def known(what: str) -> list[tuple[int | str, str]]:
    """What the log may be narrowed to: accounts or keys with their names, or models.

    As of the last roll-up; the latest name of each.
    """
    found = DailyMarginal.objects.filter(dimension=what).order_by("day", "pk")
    if what == "model":
        models = found.exclude(model="").values_list("model", flat=True)
        return [(model, model) for model in sorted(set(models))]
    names = dict(found.values_list(f"{what}_id", f"{what}_name"))
    return sorted(names.items(), key=lambda it: (it[1], it[0]))


# Which outcomes a reason can have: there is an index of these.
OUTCOMES = {
    EndReason.COMPLETE: (Outcome.SERVED, Outcome.REFUSED, Outcome.FAILED),
    EndReason.REJECTED: (Outcome.SERVED, Outcome.REFUSED, Outcome.FAILED),
    EndReason.CLIENT_GONE: (Outcome.GONE,),
    EndReason.REVOKED: (Outcome.REFUSED,),
}


def ended_so(rows: QuerySet[RequestRow], reason: EndReason) -> QuerySet[RequestRow]:
    """Those that ended for this reason."""
    outcomes = OUTCOMES.get(reason, (Outcome.FAILED,))
    rows = rows.filter(end_reason=reason)
    # Where it says little, the index would only lead astray.
    return rows.filter(outcome=outcomes[0]) if len(outcomes) == 1 else rows


def attempts_made(row: RequestRow) -> int:
    """How often an account was asked: the failures, and the attempt that answered."""
    has_answer = row.status < 400 or row.end_reason == EndReason.CLIENT_GONE
    return row.failed_attempts + bool(row.account_id and has_answer)
