"""Puts rows of requests into the table, many at once and none twice.

A batch is one statement with one parameter, which the database takes apart. Building
instances and binding forty values for each row would cost the worker several times as
much, on the core that serves requests.
"""

from collections.abc import Sequence
from functools import cache

import msgspec
import structlog
from django.db import (
    DataError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
    transaction,
)

from usage.models import RequestRow
from usage.rows import Row

_log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()
# Nothing is wrong with the rows; the database cannot be asked.
_AWAY = (OperationalError, InterfaceError)


def insert(rows: Sequence[Row]) -> int:
    """Store rows, but those that are there already; return how many cannot be stored.

    Errors: django.db.Error if the database cannot be asked; then nothing is stored.
    """
    if not rows:
        return 0
    try:
        _insert(rows)
    except (DataError, IntegrityError):
        # One that the table does not take must not hold up all that come after it.
        return sum(not _is_stored(row) for row in rows)
    return 0


def _is_stored(row: Row) -> bool:
    try:
        _insert([row])
    except (DataError, IntegrityError) as error:
        _log.error(
            "usage_row_refused", request_id=row.request_id, error=type(error).__name__
        )
        return False
    return True


def _insert(rows: Sequence[Row]) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_statement(connection.vendor), [_encoder.encode(rows).decode()])


@cache
def _statement(vendor: str) -> str:
    by_name = {field.name: field for field in RequestRow._meta.concrete_fields}
    fields = [by_name[name] for name in Row.__struct_fields__]
    columns = ", ".join(f'"{field.column}"' for field in fields)
    if vendor == "postgresql":
        values = ", ".join(
            f"(value->>{place})::{field.db_type(connection)}"
            for place, field in enumerate(fields)
        )
        source = "jsonb_array_elements(%s::jsonb)"
    else:
        values = ", ".join(
            f"json_extract(value, '$[{place}]')" for place in range(len(fields))
        )
        source = "json_each(%s)"
    return (
        f'INSERT INTO "{RequestRow._meta.db_table}" ({columns}) '  # noqa: S608  # ours
        f"SELECT {values} FROM {source} WHERE true "
        "ON CONFLICT (request_id) DO NOTHING"
    )
