"""Puts rows of requests into the table, many at once and none twice.

It costs the core that serves requests, so no instances are built for it. PostgreSQL
gets a batch as one parameter, and takes it apart on a core of its own. SQLite runs in
the worker: it gets bare values, and many rows at a time, since the storing thread has
to wait for the worker's own after each statement.
"""

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any

import msgspec
import structlog
from django.db import (
    DataError,
    IntegrityError,
    connection,
    transaction,
)
from django.db.models import Field

from usage.models import RequestRow
from usage.rows import Row

_log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()
# SQLite's, in one statement; each has forty values.
_MOST_ROWS = 32
# A row makes no sense to the table; SQLite's driver says so of a number in its own way.
_REFUSED = (DataError, IntegrityError, OverflowError)


def insert(rows: Sequence[Row]) -> int:
    """Store rows, but those that are there already; return how many cannot be stored.

    Errors: django.db.Error if the database cannot be asked; then nothing is stored.
    """
    if not rows:
        return 0
    try:
        _insert(rows)
    except _REFUSED:
        # One that the table does not take must not hold up all that come after it.
        return sum(not _is_stored(row) for row in rows)
    return 0


def _is_stored(row: Row) -> bool:
    try:
        _insert([row])
    except _REFUSED as error:
        _log.error(
            "usage_row_refused", request_id=row.request_id, error=type(error).__name__
        )
        return False
    return True


def _insert(rows: Sequence[Row]) -> None:
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                batch = _encoder.encode(rows).decode()
                cursor.execute(_insertion(_each_of_json()), [batch])
        else:
            _insert_in_sqlite(rows)


def _insert_in_sqlite(rows: Sequence[Row]) -> None:
    start, size = 0, _MOST_ROWS
    while start < len(rows):
        # By powers of two, so that SQLite can keep the few statements that these are.
        while size > len(rows) - start:
            size //= 2
        these = rows[start : start + size]
        values = list(chain.from_iterable(map(msgspec.structs.astuple, these)))
        # Django would look for each placeholder in each statement.
        with connection.wrap_database_errors:
            connection.connection.execute(_insertion(_each_of_values(size)), values)
        start += size


@cache
def _insertion(source: str) -> str:
    columns = ", ".join(f'"{field.column}"' for field in _fields())
    return (
        f'INSERT INTO "{RequestRow._meta.db_table}" ({columns}) {source} '
        "ON CONFLICT (request_id) DO NOTHING"
    )


@cache
def _each_of_json() -> str:
    """Rows of an array of arrays."""
    values = ", ".join(
        f"(value->>{place})::{field.db_type(connection)}"
        for place, field in enumerate(_fields())
    )
    return f"SELECT {values} FROM jsonb_array_elements(%s::jsonb)"  # noqa: S608  # ours


@cache
def _each_of_values(count: int) -> str:
    """Rows whose values are bound one by one."""
    row = f"({', '.join('?' * len(_fields()))})"
    return f"VALUES {', '.join([row] * count)}"


def _fields() -> list[Field[Any, Any]]:
    by_name = {field.name: field for field in RequestRow._meta.concrete_fields}
    return [by_name[name] for name in Row.__struct_fields__]
