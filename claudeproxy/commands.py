"""The base of the management commands that work on the database.

What a database in trouble says is for its driver's authors; here it becomes what the
operator can do about it.
"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import (
    Error,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
)

from claudeproxy import process

# No table or column, no server, no right to write. The others are faults of the code.
_NOT_READY = (InterfaceError, InternalError, OperationalError, ProgrammingError)


class DatabaseCommand(BaseCommand):
    """A command that says what to do if the database is not ready for it."""

    def run_from_argv(self, argv: list[str]) -> None:
        # One connection is enough; a pool would try for ten seconds, and log each time.
        with process.forkable_database():
            super().run_from_argv(argv)

    def execute(self, *args: Any, **options: Any) -> str | None:
        try:
            return super().execute(*args, **options)
        except _NOT_READY as error:
            raise CommandError(not_ready(error)) from error


def not_ready(error: Error) -> str:
    """Say that the database is not ready, why, and what to do."""
    # The first line only: the others may repeat the statement with its values.
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return (
        f"The database is not ready: {reason.rstrip('.')}. To prepare or upgrade it, "
        "start ./run once, or use manage.py migrate. If that fails too, check "
        "DATABASE_URL, that the database is up, and that it may be written."
    )
