"""Keeps the sums of hours and days in step with requests, and prunes these.

Requests count once they are below a mark, their id; hours that have requests above it
are summed up anew from all of theirs, so a step that was interrupted or is repeated
changes nothing. An hour whose requests may be pruned already is never summed up anew:
what comes late for it is added, and pruned in the same transaction.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from time import monotonic
from typing import Any

import msgspec
from django.db import connection, transaction
from django.db.models import Max

from usage import sources
from usage.models import (
    DailyMarginal,
    DailyUsage,
    HourlyUsage,
    RequestRow,
    RollupState,
)
from usage.prices import from_nano
from usage.sources import (
    DAY_MARGINALS,
    DAYS,
    DIMENSIONS,
    HOUR_MARGINALS,
    HOURS,
    ROWS,
    Source,
    Value,
)

_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_STEP_ROWS = 200_000
_PRUNE_ROWS = 1000
_STATE = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run did, and whether anything is left for the next one."""

    rows: int
    is_done: bool


def state() -> RollupState:
    """How far roll-ups and pruning have come."""
    return RollupState.objects.get_or_create(pk=_STATE)[0]


def roll_up(*, seconds: float) -> Progress:
    """Bring the sums up to date, for about so long; for one process at a time."""
    began = monotonic()
    rows = 0
    sources.teach_sqlite()
    while True:
        at = state()
        newest = _newest_id()
        if newest <= at.rolled_to:
            return Progress(rows, is_done=True)
        if monotonic() - began > seconds:
            return Progress(rows, is_done=False)
        up_to = min(newest, at.rolled_to + _STEP_ROWS)
        rows += _roll_up_to(up_to, at)


def rebuild() -> None:
    """Sum up anew every hour that has all its requests; for one process at a time."""
    sources.teach_sqlite()
    at = state()
    newest = _newest_id()
    # First, or what came late for pruned hours would be passed over.
    _roll_up_to(newest, at)
    kept = RequestRow.objects.filter(pk__lte=newest)
    if at.pruned_before is not None:
        kept = kept.filter(hour__gte=at.pruned_before)
    hours = kept.order_by("hour").values_list("hour", flat=True).distinct()
    for day, of_day in groupby(hours, key=_day_of):
        _recompute(day, list(of_day), newest)


def prune(*, now: datetime, retention: timedelta, seconds: float) -> Progress:
    """Delete requests that are older than that and summed up, for about so long.

    For one process at a time, and not beside `roll_up`.
    """
    began = monotonic()
    at = state()
    horizon = (now - retention).replace(minute=0, second=0, microsecond=0)
    if at.pruned_before is None or at.pruned_before < horizon:
        # From here on, these hours are only added to.
        RollupState.objects.filter(pk=_STATE).update(pruned_before=horizon)
        at.pruned_before = horizon
    old = RequestRow.objects.filter(hour__lt=at.pruned_before, pk__lte=at.rolled_to)
    rows = 0
    while batch := list(
        old.order_by("hour").values_list("pk", flat=True)[:_PRUNE_ROWS]
    ):
        RequestRow.objects.filter(pk__in=batch).delete()
        rows += len(batch)
        if monotonic() - began > seconds:
            return Progress(rows, is_done=False)
    return Progress(rows, is_done=True)


def _newest_id() -> int:
    """The id below which no request can appear any more."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            # Ids are given out before they are to be seen: wait for who has one.
            with connection.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {ROWS} IN SHARE MODE")
        return RequestRow.objects.aggregate(newest=Max("pk"))["newest"] or 0


def _roll_up_to(up_to: int, at: RollupState) -> int:
    """Sum up hours with requests up to that id; return how many these are."""
    new = RequestRow.objects.filter(pk__gt=at.rolled_to, pk__lte=up_to)
    count = new.count()
    touched = sources.hours_of(new)
    pruned_before = at.pruned_before
    for day, of_day in groupby(touched, key=_day_of):
        hours = list(of_day)
        fresh = [it for it in hours if pruned_before is None or it >= pruned_before]
        if fresh:
            _recompute(day, fresh, up_to)
        if late := sorted(set(hours) - set(fresh)):
            _add(day, late, at.rolled_to, up_to)
    RollupState.objects.filter(pk=_STATE).update(rolled_to=up_to)
    return count


def _recompute(day: date, hours: list[datetime], up_to: int) -> None:
    """Sum up hours of a day from their requests, and the day from its hours."""
    these, values = _one_of(hours)
    rows = Source(ROWS, "hour", f"{these} AND id <= %s", (*values, up_to))
    with _tuned_transaction():
        _delete(HOURS, these, values)
        _execute(*sources.insert(HOURS, "hour", [rows]))
        _recompute_marginals(hours)
        _recompute_day(day)


def _add(day: date, hours: list[datetime], after: int, up_to: int) -> None:
    """Add requests to hours that have lost others, and delete them."""
    these, values = _one_of(hours)
    new = f"{these} AND id > %s AND id <= %s"
    parts = [
        Source(HOURS, "hour", these, values),
        Source(ROWS, "hour", new, (*values, after, up_to)),
    ]
    with _tuned_transaction(), connection.cursor() as cursor:
        statement, parameters = sources.whole(parts)
        cursor.execute(statement, parameters)
        sums = [_hourly(row) for row in cursor.fetchall()]
        _delete(HOURS, these, values)
        HourlyUsage.objects.bulk_create(sums)
        _recompute_marginals(hours)
        _recompute_day(day)
        late = RequestRow.objects.filter(hour__in=hours, pk__gt=after, pk__lte=up_to)
        late.delete()


def _hourly(row: tuple[Any, ...]) -> HourlyUsage:
    names = ("hour", *sources.GROUP, *sources.MEASURES, *sources.COUNTS)
    values = dict(zip(names, row, strict=True))
    values["hour"] = sources.as_time(values["hour"])
    for name in sources.COUNTS:
        if isinstance(values[name], str):
            values[name] = msgspec.json.decode(values[name])
    for name in ("cost", "notional_cost"):
        values[name] = from_nano(int(values[name]))
    return HourlyUsage(**values)


def _recompute_marginals(hours: list[datetime]) -> None:
    these, values = _one_of(hours)
    # Their index has the dimension first.
    _delete(HOUR_MARGINALS, f"dimension IN {tuple(DIMENSIONS)} AND {these}", values)
    for dimension in DIMENSIONS:
        part = Source(HOURS, "hour", these, values)
        if not dimension:
            # Those by outcome have all that is in the hours, in fewer rows.
            of_outcomes = f"dimension = 'outcome' AND {these}"
            part = Source(HOUR_MARGINALS, "hour", of_outcomes, values)
        _execute(*sources.insert_marginal(HOUR_MARGINALS, "hour", dimension, [part]))


@contextmanager
def _tuned_transaction() -> Iterator[None]:
    with transaction.atomic():
        if connection.vendor == "postgresql":
            # It takes sums of JSON for huge, and would compile each statement for
            # longer than it then runs; and it would sort a busy day on the disk.
            _execute("SET LOCAL jit = off; SET LOCAL work_mem = '32MB'", ())
        yield


def _one_of(hours: list[datetime]) -> tuple[str, tuple[Value, ...]]:
    """The condition that a row is of one of these hours, which are in order."""
    span = "hour >= %s AND hour <= %s"
    ends = (hours[0], hours[-1])
    if hours[-1] - hours[0] == (len(hours) - 1) * _HOUR:
        # PostgreSQL takes each condition more for fewer rows, and sorts what is many.
        return span, tuple(map(sources.time_value, ends))
    # By the span, it knows that these are few before it has looked at them.
    listed = ", ".join(["%s"] * len(hours))
    values = (*ends, *hours)
    return f"{span} AND hour IN ({listed})", tuple(map(sources.time_value, values))


def _delete(table: str, where: str, values: Sequence[Value]) -> None:
    _execute(f"DELETE FROM {table} WHERE {where}", values)  # noqa: S608  # ours


def _recompute_day(day: date) -> None:
    start = datetime.combine(day, time(), UTC)
    span = "hour >= %s AND hour < %s"
    values: tuple[Value, ...] = (
        sources.time_value(start),
        sources.time_value(start + _DAY),
    )
    at_day = sources.day_of("hour")
    DailyUsage.objects.filter(day=day).delete()
    _execute(*sources.insert(DAYS, "day", [Source(HOURS, at_day, span, values)]))
    DailyMarginal.objects.filter(day=day).delete()
    for dimension in DIMENSIONS:
        of_dimension = f"dimension = '{dimension}' AND {span}"
        part = Source(HOUR_MARGINALS, at_day, of_dimension, values)
        _execute(*sources.insert_marginal(DAY_MARGINALS, "day", dimension, [part]))


def _execute(statement: str, values: Sequence[Value]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def _day_of(hour: datetime) -> date:
    return hour.astimezone(UTC).date()
