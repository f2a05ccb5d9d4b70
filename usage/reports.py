"""Reads what was used: by time, account, key, model and outcome, always up to now.

Days and hours that are summed up are read from their sums; requests that are not in
these yet are read one by one, with the rest of their hour. So a figure is exact at any
moment, and a report is five queries, however much it covers.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

from django.db import connection

from usage import histogram, sources
from usage.days import Days
from usage.models import RequestRow, RollupState
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


class By(Enum):
    """What a report has a line for."""

    HOUR = "hour"
    DAY = "day"
    ACCOUNT = "account"
    KEY = "key"
    MODEL = "model"
    OUTCOME = "outcome"


@dataclass(frozen=True, slots=True)
class Only:
    """Which requests count; None: all. The id 0 stands for no account and no key.

    `account_ids` are several accounts, such as those of an organization.
    """

    account_id: int | None = None
    account_ids: tuple[int, ...] | None = None
    key_id: int | None = None
    model: str | None = None
    outcome: str | None = None

    @property
    def dimensions(self) -> set[str]:
        """By what these are chosen."""
        chosen = {name.removesuffix("_id") for name in self.conditions()}
        return chosen if self.account_ids is None else chosen | {"account"}

    def conditions(self) -> dict[str, Value]:
        """Columns that have one value."""
        named: dict[str, Value | None] = {
            "account_id": self.account_id,
            "key_id": self.key_id,
            "model": self.model,
            "outcome": self.outcome,
        }
        return {name: value for name, value in named.items() if value is not None}


_EVERYTHING = Only()
_MONEY = frozenset({"cost", "notional_cost"})


@dataclass(frozen=True, slots=True)
class Latency:
    """How long something took, in milliseconds; None if it never happened."""

    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> "Latency":
        return cls(*(histogram.percentile(counts, it) for it in (0.5, 0.95, 0.99)))


@dataclass(slots=True)
class Line:
    """What the requests of a group come to.

    `group` is a time, a day, an id, a model or an outcome; None for all there is.
    `name` is what an account or key was called on the last of these days.
    """

    group: Any = None
    name: str = ""
    requests: int = 0
    input_tokens: int = 0
    write_5m_tokens: int = 0
    write_1h_tokens: int = 0
    read_tokens: int = 0
    output_tokens: int = 0
    web_searches: int = 0
    cost: Decimal = Decimal(0)
    notional_cost: Decimal = Decimal(0)  # the part of it that a plan covers
    unpriced: int = 0
    incomplete: int = 0
    failed_attempts: int = 0
    first_byte_ms: int = 0  # together, as all of these
    duration_ms: int = 0
    request_bytes: int = 0
    answer_bytes: int = 0
    first_byte: Latency = field(default_factory=lambda: Latency.of({}))
    duration: Latency = field(default_factory=lambda: Latency.of({}))

    def add(self, measures: Sequence[Any]) -> None:
        """Add sums, in the order of `sources.MEASURES`."""
        for name, value in zip(sources.MEASURES, measures, strict=True):
            number = int(value)
            amount = from_nano(number) if name in _MONEY else number
            setattr(self, name, getattr(self, name) + amount)


_COLUMNS: dict[By | None, tuple[str, ...]] = {
    None: (),
    By.HOUR: ("at",),
    By.DAY: ("at",),
    By.ACCOUNT: ("account_id", "account_name"),
    By.KEY: ("key_id", "key_name"),
    By.MODEL: ("model",),
    By.OUTCOME: ("outcome",),
}


def total(since: datetime, until: datetime, only: Only = _EVERYTHING) -> Line:
    """Sum up the requests that started in a span, widened to whole hours."""
    return next(iter(_lines(None, since, until, only)), Line())


def whole_hours(since: datetime, until: datetime) -> tuple[datetime, datetime]:
    """The span that a report covers when it is asked for this one."""
    return _floor(since), _ceiling(until)


def grouped(
    by: By | Days,
    since: datetime,
    until: datetime,
    only: Only = _EVERYTHING,
    *,
    has_latency: bool = True,
) -> list[Line]:
    """The same, with a line for each group that has requests, in their order.

    Days are those of UTC, unless others are given: these are groups by when they begin.
    Without latency it costs a third.
    """
    lines = _lines(by, since, until, only, has_latency=has_latency)
    return sorted(lines, key=lambda line: line.group)


def counts_by_outcome(
    by: By | Days | None, since: datetime, until: datetime, only: Only = _EVERYTHING
) -> dict[Any, dict[str, int]]:
    """How many requests of each group ended in which way; one group, None, if by none.

    Where percentiles are not wanted, this costs a fraction of a report.
    """
    columns = _columns_of(by)
    parts = _sources(by, since, until, only, "outcome")
    counts: dict[Any, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    statement, values = sources.counts(parts, [*columns, "outcome"])
    for *keys, outcome, requests in _fetch(statement, values):
        counts[_group(by, keys)][outcome] += int(requests)
    return {group: dict(of_group) for group, of_group in counts.items()}


def _lines(
    by: By | Days | None,
    since: datetime,
    until: datetime,
    only: Only,
    *,
    has_latency: bool = True,
) -> list[Line]:
    parts = _sources(by, since, until, only)
    columns = _columns_of(by)
    lines: dict[Any, Line] = {}
    # Who was renamed has several names, and is one line.
    is_named = by in {By.ACCOUNT, By.KEY}
    order = ["MAX(at)" if is_named else "0"]
    found = _fetch(*sources.sums(parts, columns, order))
    for _, *row in sorted(found, key=str):
        keys, measures = row[: len(columns)], row[len(columns) :]
        if measures[0] is None:
            continue  # the sum of nothing
        group = _group(by, keys)
        line = lines.setdefault(group, Line(group))
        line.add(measures)
        if is_named:
            line.name = keys[1]
    for column in sources.COUNTS if has_latency else ():
        counts: dict[Any, Counter[int]] = defaultdict(Counter)
        for *keys, bucket, number in _fetch(
            *sources.bucket_counts(parts, column, columns)
        ):
            counts[_group(by, keys)][bucket] += int(number)
        for group, line in lines.items():
            setattr(line, column.removesuffix("_counts"), Latency.of(counts[group]))
    return list(lines.values())


def _columns_of(by: By | Days | None) -> tuple[str, ...]:
    if isinstance(by, Days):
        return ("at",)
    return _COLUMNS[by]


def _group(by: By | Days | None, keys: Sequence[Any]) -> Any:
    if not keys:
        return None
    if isinstance(by, Days):
        return by.start_of(sources.as_time(keys[0]))
    if by is By.HOUR:
        return sources.as_time(keys[0])
    return sources.as_day(keys[0]) if by is By.DAY else keys[0]


def _fetch(statement: str, values: list[Value]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _sources(
    by: By | Days | None, since: datetime, until: datetime, only: Only, *also: str
) -> list[Source]:
    """What adds up to the span: days, hours beside them, and requests not summed up."""
    start, end = whole_hours(since, until)
    first_day, last_day = _whole_days(start, end)
    is_cut_by_hour = by is By.HOUR or isinstance(by, Days)
    has_days = not is_cut_by_hour and first_day < last_day
    conditions = only.conditions()
    chosen = "".join(f" AND {name} = %s" for name in conditions)
    if only.account_ids is not None:
        chosen += f" AND {_is_one_of('account_id', only.account_ids)}"
    more = tuple(conditions.values())

    dimensions = only.dimensions.union(also)
    if isinstance(by, By) and by.value in DIMENSIONS:
        dimensions.add(by.value)
    hour_table, day_table = HOURS, DAYS
    of_dimension = ""
    if len(dimensions) < 2:
        # These tables are a small part of the others.
        hour_table, day_table = HOUR_MARGINALS, DAY_MARGINALS
        of_dimension = f"dimension = '{next(iter(dimensions), '')}' AND "

    at_hour = "hour" if is_cut_by_hour else sources.day_of("hour")
    new_hours, is_late = _not_summed_up()
    span, values = _between("hour", start, end)
    names = [sources.time_value(hour) for hour in new_hours]
    is_new = _is_one_of("hour", names)
    parts = [
        Source(ROWS, at_hour, f"{span} AND {is_new}{chosen}", values + more),
        Source(ROWS, at_hour, f"{span} AND {is_late}{chosen}", values + more),
    ]
    spans = by.spans(end) if isinstance(by, Days) else [(start, end)]
    if has_days:
        new_days = sorted({hour.date() for hour in new_hours})
        days = first_day.isoformat(), last_day.isoformat()
        is_new_day = _is_one_of("day", map(str, new_days))
        where = f"day >= %s AND day < %s AND NOT ({is_new_day}){chosen}"
        parts.append(Source(day_table, "day", of_dimension + where, days + more))
        inner = [day for day in new_days if first_day <= day < last_day]
        spans = _beside_days(start, end, (first_day, last_day), inner)
    # A part for each span, so that each is looked up and nothing between them is read.
    for since, until in spans:
        span, values = _between("hour", since, until)
        # Only its own: all of them in each of 30 days would be long to read.
        own = names[bisect_left(new_hours, since) : bisect_left(new_hours, until)]
        is_old = f" AND NOT ({_is_one_of('hour', own)})" if own else ""
        where = f"{of_dimension}{span}{is_old}{chosen}"
        at = sources.moment(since) if isinstance(by, Days) else at_hour
        parts.append(Source(hour_table, at, where, values + more))
    return parts


def _between(
    column: str, since: datetime, until: datetime
) -> tuple[str, tuple[Value, ...]]:
    return (
        f"{column} >= %s AND {column} < %s",
        (sources.time_value(since), sources.time_value(until)),
    )


def _beside_days(
    start: datetime,
    end: datetime,
    days: tuple[date, date],
    inner: Iterable[date],
) -> list[tuple[datetime, datetime]]:
    """What of a span is read by the hour: its edges, and days that are not summed up.

    Days that follow each other are one.
    """
    first, last = map(_midnight, days)
    found = [(start, first), (last, end)]
    found += [(_midnight(day), _midnight(day + _DAY)) for day in inner]
    merged: list[tuple[datetime, datetime]] = []
    for since, until in sorted(it for it in found if it[0] < it[1]):
        if merged and merged[-1][1] == since:
            merged[-1] = merged[-1][0], until
        else:
            merged.append((since, until))
    return merged


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _not_summed_up() -> tuple[list[datetime], str]:
    """Hours with requests that are not in their sums, and the condition of late ones.

    Late are those that are to be added to an hour that has lost others. Both are read
    before the report and stand in it as values: PostgreSQL would misjudge how few they
    are. If sums are brought up to date meanwhile, these hours are still whole.
    """
    at = RollupState.objects.first() or RollupState()
    new = RequestRow.objects.filter(pk__gt=at.rolled_to)
    is_late = "1 = 0"
    if at.pruned_before is not None:
        new = new.filter(hour__gte=at.pruned_before)
        horizon = sources.time_value(at.pruned_before)
        is_late = f"id > {int(at.rolled_to)} AND hour < '{horizon}'"
    return sources.hours_of(new), is_late


def _is_one_of(column: str, values: Iterable[str | int]) -> str:
    listed = ", ".join(
        str(value) if isinstance(value, int) else f"'{value}'" for value in values
    )
    return f"{column} IN ({listed})" if listed else "1 = 0"


def _floor(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _ceiling(at: datetime) -> datetime:
    floor = _floor(at)
    return floor if floor == at else floor + _HOUR


def _whole_days(start: datetime, end: datetime) -> tuple[date, date]:
    """The first day that lies in the span, and the first one that does not any more."""
    first = start.date() if start.hour == 0 else start.date() + _DAY
    return first, end.date()
