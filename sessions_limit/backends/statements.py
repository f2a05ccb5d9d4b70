"""What is asked for every request, in SQL that both databases understand.

The query builder would take longer to write these than the database to answer. How rows
become sessions and back is still Django's affair: its fields know both databases.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from sessions_limit.models import ClientSession

# In the order of the model, as it takes its values.
_FIELDS: list[Any] = [
    field for field in ClientSession._meta.concrete_fields if not field.primary_key
]
_NAMES = [field.name for field in _FIELDS]
_NAMING = ("scope", "digest")
_CHANGEABLE = [name for name in _NAMES if name not in _NAMING]
_TABLE = ClientSession._meta.db_table
_EXPIRES_AT = ClientSession._meta.get_field("expires_at")

# If as many are alive as may be: when the first of them ends. Where the limit was
# lowered more than one has to, so it is counted from the last: scope, now, limit - 1.
FULL_UNTIL = f"""
    SELECT expires_at FROM {_TABLE} WHERE scope = %s AND expires_at > %s
    ORDER BY expires_at DESC LIMIT 1 OFFSET %s
"""  # noqa: S608  # names of ours
# That and one session, in one row: NULL where there is none. Then: scope, digest.
LOOK = f"""
    SELECT ({FULL_UNTIL}), {", ".join(f"session.{name}" for name in _NAMES)}
    FROM (SELECT 1) AS always
    LEFT JOIN {_TABLE} AS session ON session.scope = %s AND session.digest = %s
"""  # noqa: S608  # names of ours
STORE = f"""
    INSERT INTO {_TABLE} ({", ".join(_NAMES)})
    VALUES ({", ".join(["%s"] * len(_NAMES))})
    ON CONFLICT ({", ".join(_NAMING)})
    DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGEABLE)}
"""  # noqa: S608  # names of ours


def read_time(connection: BaseDatabaseWrapper, value: Any) -> datetime | None:
    """Read what `FULL_UNTIL` brought."""
    found: datetime | None = _read(connection, _EXPIRES_AT, value)
    return found


def read_session(
    connection: BaseDatabaseWrapper, values: Sequence[Any]
) -> ClientSession | None:
    """Read what `LOOK` brought of the session."""
    if values[0] is None:
        return None
    read = [
        _read(connection, field, value)
        for field, value in zip(_FIELDS, values, strict=True)
    ]
    return ClientSession.from_db(connection.alias, _NAMES, read)


def values_of(connection: BaseDatabaseWrapper, session: ClientSession) -> list[Any]:
    """Say what `STORE` takes."""
    return [
        field.get_db_prep_save(getattr(session, field.attname), connection)
        for field in _FIELDS
    ]


def _read(connection: BaseDatabaseWrapper, field: Any, value: Any) -> Any:
    column = field.get_col(_TABLE)
    converters = connection.ops.get_db_converters(column)
    for convert in (*converters, *column.get_db_converters(connection)):
        value = convert(value, column, connection)
    return value
