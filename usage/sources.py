"""Where sums come from, as SQL: requests, hours and days, each in the same columns.

So one sum can be taken over a mixture of them. Requests are summed up in the database
and by the same statements on SQLite and PostgreSQL but for a few words of JSON.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Coalesce

from usage import histogram
from usage.models import (
    DailyMarginal,
    DailyUsage,
    HourlyMarginal,
    HourlyUsage,
    RequestRow,
)
from usage.rows import timestamp

Value = str | int

ROWS, HOURS, DAYS, HOUR_MARGINALS, DAY_MARGINALS = (
    f'"{model._meta.db_table}"'
    for model in (RequestRow, HourlyUsage, DailyUsage, HourlyMarginal, DailyMarginal)
)

# By what requests are summed up.
GROUP = ("account_id", "account_name", "key_id", "key_name", "model", "outcome")

# What marginal sums are by, and the columns that they keep of `GROUP`.
DIMENSIONS = {
    "account": ("account_id", "account_name"),
    "key": ("key_id", "key_name"),
    "model": ("model",),
    "outcome": ("outcome",),
    "": (),  # last: it is made of those before
}

# What is summed up, and what a request adds to it.
MEASURES = {
    "requests": "1",
    "input_tokens": "input_tokens",
    "write_5m_tokens": "write_5m_tokens",
    "write_1h_tokens": "write_1h_tokens",
    "read_tokens": "read_tokens",
    "output_tokens": "output_tokens",
    "web_searches": "web_searches",
    "cost": "COALESCE(cost, 0)",
    "notional_cost": "CASE WHEN is_notional THEN COALESCE(cost, 0) ELSE 0 END",
    "unpriced": "CASE WHEN is_unpriced THEN 1 ELSE 0 END",
    "incomplete": "CASE WHEN is_incomplete THEN 1 ELSE 0 END",
    "failed_attempts": "failed_attempts",
    "first_byte_ms": "COALESCE(first_byte_ms, 0)",
    "duration_ms": "COALESCE(duration_ms, 0)",
    "request_bytes": "request_bytes",
    "answer_bytes": "answer_bytes",
}
# Columns of histograms, and the bucket of a request.
COUNTS = {
    "first_byte_counts": "first_byte_bucket",
    "duration_counts": "duration_bucket",
}


@dataclass(frozen=True, slots=True)
class Source:
    """Rows of one table that count, and under which time they do.

    `where` may name the columns of `GROUP` and of the table, and has `%s` for each of
    `values`.
    """

    table: str
    at: str
    where: str
    values: tuple[Value, ...] = ()

    def measures(self) -> str:
        """SELECT what is summed up."""
        return self._summands(MEASURES)

    def whole(self) -> str:
        """SELECT what is summed up and histograms; of a request, its bucket."""
        return self._summands(MEASURES | COUNTS)

    def requests(self) -> str:
        """SELECT how many requests there are."""
        number = MEASURES["requests"] if self.table == ROWS else "requests"
        return self._select([f"{number} AS requests"], self.table, self.where)

    def buckets(self, column: str) -> str:
        """SELECT how many are in which bucket of a histogram."""
        if self.table == ROWS:
            bucket = COUNTS[column]
            shown = [f"{bucket} AS bucket", "1 AS n"]
            return self._select(shown, ROWS, f"({self.where}) AND {bucket} IS NOT NULL")
        if _is_postgres():
            # Keys one by one, not `jsonb_each`, which sets up a table for each row.
            each = f"jsonb_object_keys({column}) AS bucket"
            listed = self._select([column, each], self.table, self.where)
            columns = ", ".join(["at", *GROUP])
            return (
                f"SELECT {columns}, CAST(bucket AS INTEGER) AS bucket, "  # noqa: S608
                f"CAST({column}->>bucket AS BIGINT) AS n FROM ({listed}) AS listed"
            )
        shown = ["CAST(item.key AS INTEGER) AS bucket", "item.value AS n"]
        table = f"{self.table} CROSS JOIN json_each({self.table}.{column}) AS item"
        return self._select(shown, table, self.where)

    def _summands(self, columns: Mapping[str, str]) -> str:
        shown = [
            f"{value if self.table == ROWS else name} AS {name}"
            for name, value in columns.items()
        ]
        return self._select(shown, self.table, self.where)

    def _select(self, shown: Sequence[str], table: str, where: str) -> str:
        if self.table == ROWS and not _is_postgres():
            # SQLite, without statistics, would take that of accounts, keys or models.
            table = f"{table} INDEXED BY usage_row_hour"
        columns = ", ".join([f"{self.at} AS at", *GROUP, *shown])
        return f"SELECT {columns} FROM {table} WHERE {where}"  # noqa: S608  # ours


_ADD_UP = "add_up_histograms"


def _is_postgres() -> bool:
    return connection.vendor == "postgresql"


def sums(
    sources: Sequence[Source], by: Sequence[str], also: Sequence[str] = ()
) -> tuple[str, list[Value]]:
    """SELECT the sums over sources by columns among `at` and `GROUP`."""
    summed = [f"SUM({name}) AS {name}" for name in MEASURES]
    columns = ", ".join([*also, *by, *summed])
    union = " UNION ALL ".join(source.measures() for source in sources)
    return (
        f"SELECT {columns} FROM ({union}) AS parts{_group_by(by)}",  # noqa: S608
        _values(sources),
    )


def counts(sources: Sequence[Source], by: Sequence[str]) -> tuple[str, list[Value]]:
    """SELECT how many requests there are, by columns among `at` and `GROUP`."""
    columns = ", ".join(by)
    union = " UNION ALL ".join(source.requests() for source in sources)
    return (
        f"SELECT {columns}, SUM(requests) AS requests "  # noqa: S608
        f"FROM ({union}) AS parts{_group_by(by)}",
        _values(sources),
    )


def bucket_counts(
    sources: Sequence[Source], column: str, by: Sequence[str]
) -> tuple[str, list[Value]]:
    """SELECT the sum of histograms over sources, a row for each bucket."""
    by = [*by, "bucket"]
    union = " UNION ALL ".join(source.buckets(column) for source in sources)
    return (
        f"SELECT {', '.join(by)}, SUM(n) AS n "  # noqa: S608
        f"FROM ({union}) AS parts{_group_by(by)}",
        _values(sources),
    )


def whole(
    sources: Sequence[Source], kept: Sequence[str] = GROUP
) -> tuple[str, list[Value]]:
    """SELECT sums and histograms by what is kept of `GROUP`, as roll-ups have them.

    What is not kept is empty, or 0. SQLite must have been taught before.
    """
    shown = [name if name in kept else _nothing(name) for name in GROUP]
    summed = [f"SUM({name}) AS {name}" for name in MEASURES]
    by = ["at", *kept]
    if _is_postgres():
        parts, values = _parts(sources, by)
        packed = [
            f"COALESCE(jsonb_object_agg(CAST({column}_bucket AS VARCHAR), n) "
            f"FILTER (WHERE {column}_bucket IS NOT NULL), '{{}}') AS {column}"
            for column in COUNTS
        ]
    else:
        parts = " UNION ALL ".join(source.whole() for source in sources)
        values = _values(sources)
        packed = [f"{_ADD_UP}({column}) AS {column}" for column in COUNTS]
    columns = ", ".join(["at", *shown, *summed, *packed])
    return f"SELECT {columns} FROM ({parts}) AS parts{_group_by(by)}", values  # noqa: S608


def _parts(sources: Sequence[Source], by: Sequence[str]) -> tuple[str, list[Value]]:
    """SELECT sums, and below them the buckets of each histogram.

    PostgreSQL can join these to rows only on all columns that they are by, of which it
    knows too little to choose a good plan. Grouping them once more is cheap.
    """
    buckets = [f"{column}_bucket" for column in COUNTS]
    summed, values = sums(sources, by)
    nothing = ", ".join(f"CAST(NULL AS BIGINT) AS {name}" for name in [*buckets, "n"])
    parts = [f"SELECT summed.*, {nothing} FROM ({summed}) AS summed"]  # noqa: S608
    for column in COUNTS:
        counted, more = bucket_counts(sources, column, by)
        shown = [
            *by,
            *("NULL" for _ in MEASURES),
            *("bucket" if name == f"{column}_bucket" else "NULL" for name in buckets),
            "n",
        ]
        parts.append(f"SELECT {', '.join(shown)} FROM ({counted}) AS counted")  # noqa: S608
        values += more
    return " UNION ALL ".join(parts), values


def teach_sqlite() -> None:
    """Let SQLite add histograms up, for which it would need several passes by itself.

    What it learnt is forgotten with the connection.
    """
    if not _is_postgres():
        connection.ensure_connection()
        connection.connection.create_aggregate(_ADD_UP, 1, histogram.Adding)


def insert(table: str, at: str, sources: Sequence[Source]) -> tuple[str, list[Value]]:
    """INSERT what sources come to into a table of roll-ups."""
    columns = ", ".join([at, *GROUP, *MEASURES, *COUNTS])
    select, values = whole(sources)
    return f"INSERT INTO {table} ({columns}) {select}", values


def insert_marginal(
    table: str, at: str, dimension: str, sources: Sequence[Source]
) -> tuple[str, list[Value]]:
    """INSERT what sources come to by one dimension into a table of marginal sums."""
    columns = ", ".join([at, *GROUP, *MEASURES, *COUNTS])
    select, values = whole(sources, DIMENSIONS[dimension])
    return (
        f"INSERT INTO {table} (dimension, {columns}) "  # noqa: S608  # ours
        f"SELECT '{dimension}', whole.* FROM ({select}) AS whole",
        values,
    )


def _nothing(column: str) -> str:
    """Of a marginal sum, a column that it is not by."""
    return f"0 AS {column}" if column.endswith("_id") else f"'' AS {column}"


def hours_of(rows: QuerySet[RequestRow]) -> list[datetime]:
    """The hours that have some of these requests, in order; the requests are few."""
    # Of a bare column, SQLite reads all hours there are from its index instead.
    hour = Coalesce("hour", "hour")
    return sorted(rows.order_by().values_list(hour, flat=True).distinct())


def time_value(at: datetime) -> str:
    """A time as a value of a statement."""
    return timestamp(at.replace(tzinfo=None))


def as_time(value: datetime | str) -> datetime:
    """A time as a database returned it: SQLite may leave it a text, and no zone."""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def as_day(value: date | str) -> date:
    """A day as a database returned it."""
    return date.fromisoformat(value) if isinstance(value, str) else value


def moment(at: datetime) -> str:
    """The SQL for a time that is the same for every row."""
    literal = f"'{time_value(at)}'"
    return f"TIMESTAMPTZ {literal}" if _is_postgres() else literal


def day_of(column: str) -> str:
    """The day, in UTC, of a column of times."""
    if _is_postgres():
        return f"CAST({column} AT TIME ZONE 'UTC' AS DATE)"
    return f"DATE({column})"


def _group_by(by: Sequence[str]) -> str:
    return f" GROUP BY {', '.join(by)}" if by else ""


def _values(sources: Sequence[Source]) -> list[Value]:
    return [value for source in sources for value in source.values]
