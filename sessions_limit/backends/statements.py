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

# What the next visit of a session has to know of the last; it says all else itself.
_REMEMBERED: list[Any] = [
    ClientSession._meta.get_field(name)
    for name in (
        "first_seen_at",
        "expires_at",
        "requests",
        "account_names",
        "holds",
        "generation",
        "revoked_at",
        "blocked_until",
    )
]
REMEMBERED = ", ".join(f"session.{field.name}" for field in _REMEMBERED)
# For a statement that makes a row for others to hang on: these may find nothing.
JOIN = f"LEFT JOIN {_TABLE} AS session ON session.scope = %s AND session.digest = %s"

_ON_CONFLICT = f"""
    ON CONFLICT ({", ".join(_NAMING)})
    DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _CHANGEABLE)}
"""
_INTO = f"INSERT INTO {_TABLE} ({', '.join(_NAMES)})"
_PLACES = ", ".join(["%s"] * len(_NAMES))
STORE = f"{_INTO} VALUES ({_PLACES}) {_ON_CONFLICT}"


def store_if(condition: str) -> str:
    """Write a `STORE` for each row of *condition*; it returns as many."""
    chosen = f"SELECT {_PLACES} FROM {condition}"  # noqa: S608  # names of ours
    return f"{_INTO} {chosen} {_ON_CONFLICT} RETURNING true"


def full_until(limit: int, now: str = "%s") -> str:
    """Ask when the first session ends, if as many are alive as may be.

    Where the limit was lowered more than one has to end, so it is counted from the
    last. Parameters: scope, and those of *now*.

    The limit is written out, for the planner to know that it means few rows. So each is
    a statement of its own, of which psycopg keeps the plans of a hundred.
    """
    return f"""
        SELECT expires_at FROM {_TABLE} WHERE scope = %s AND expires_at > {now}
        ORDER BY expires_at DESC LIMIT 1 OFFSET {limit - 1:d}
    """  # noqa: S608  # names of ours, and a number


# Which have ended, and are no news: now, now, since when it is news, how many.
ENDED = f"""
    SELECT id FROM {_TABLE}
    WHERE expires_at <= %s AND (blocked_until IS NULL OR blocked_until <= %s)
        AND (revoked_at IS NULL OR revoked_at <= %s)
    LIMIT %s
"""  # noqa: S608  # names of ours
DELETE = f"DELETE FROM {_TABLE}"  # noqa: S608  # a name of ours


def read_time(connection: BaseDatabaseWrapper, value: Any) -> datetime | None:
    """Read what `full_until` brought."""
    found: datetime | None = _read(connection, _EXPIRES_AT, value)
    return found


def remember(
    connection: BaseDatabaseWrapper, session: ClientSession, values: Sequence[Any]
) -> None:
    """Read what `REMEMBERED` brought into the session; all NULL: it is a new one."""
    if values[0] is None:
        return
    for field, value in zip(_REMEMBERED, values, strict=True):
        setattr(session, field.attname, _read(connection, field, value))


def values_of(session: ClientSession) -> list[Any]:
    """Say what `STORE` takes."""
    return [getattr(session, name) for name in _NAMES]


def _read(connection: BaseDatabaseWrapper, field: Any, value: Any) -> Any:
    column = field.get_col(_TABLE)
    converters = connection.ops.get_db_converters(column)
    for convert in (*converters, *column.get_db_converters(connection)):
        value = convert(value, column, connection)
    return value
