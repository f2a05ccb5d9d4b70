"""What has to be true before the gateway serves: tables, schedules, a first admin."""

import contextlib
import fcntl
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import (
    DEFAULT_DB_ALIAS,
    IntegrityError,
    OperationalError,
    connections,
    transaction,
)
from django.db import Error as DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.exceptions import InconsistentMigrationHistory
from django.db.migrations.executor import MigrationExecutor
from django_q.models import Schedule

from claudeproxy import schedules
from claudeproxy.conf import conf
from claudeproxy.crypto import Secret
from claudeproxy.errors import ClaudeProxyError

ADMIN_NAME = "admin"

# As an advisory lock's number on PostgreSQL; any number that nobody else picks.
_LOCK_NUMBER = 4_000_636_865
_LOCK_SECONDS = 120.0


class BootstrapError(ClaudeProxyError):
    """The gateway cannot start; the message says what to do."""


@dataclass(frozen=True)
class FirstAdmin:
    """The superuser that was made just now; the password is kept nowhere else."""

    name: str
    password: Secret


def prepare() -> FirstAdmin | None:
    """Bring the database up to date; return the first admin if it had to be made.

    May be called by several processes at once, on several machines: they take turns.
    Errors: BootstrapError.
    """
    try:
        with _alone():
            _migrate()
            schedules.sync()
            return make_first_admin()
    except (DatabaseError, InconsistentMigrationHistory) as error:
        reason = str(error).strip().splitlines()[0]
        raise BootstrapError(
            f"The database could not be prepared: {reason}. Check DATABASE_URL and "
            "that the database is up; manage.py migrate shows the details."
        ) from error
    except OSError as error:
        raise BootstrapError(
            f"DATA_DIR cannot be used: {error.strerror}: {error.filename}."
        ) from error


def require_prepared() -> None:
    """Make sure that another process has done what `prepare` does.

    Errors: OperationalError, or what else the database says.
    """
    if _is_behind():
        raise OperationalError("it is not migrated to this version")
    with transaction.atomic():  # takes the lock for writing, where there may be one
        Schedule.objects.select_for_update().first()


def _migrate() -> None:
    # The command also goes through all permissions and content types, which takes
    # longer than the rest of a start does; so it runs when there is something to do.
    if _is_behind():
        call_command("migrate", interactive=False, verbosity=0)


def _is_behind() -> bool:
    executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def make_first_admin() -> FirstAdmin | None:
    """Make a superuser with a random password, unless there is a superuser."""
    if User.objects.filter(is_superuser=True).exists():
        return None
    admin = FirstAdmin(ADMIN_NAME, Secret(secrets.token_urlsafe(15)))
    try:
        with transaction.atomic():
            User.objects.create_superuser(admin.name, password=admin.password.reveal())
    except IntegrityError:
        # The name is taken: by a process that was faster, or by somebody who is no
        # superuser, and becomes none by our hand.
        return None
    return admin


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Keep other processes out: on this machine, and on PostgreSQL on all machines."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context((conf.data_dir / "start.lock").open("w"))
        _take(lambda: _lock_file(file.fileno()))
        connection = connections[DEFAULT_DB_ALIAS]
        if connection.vendor == "postgresql":
            # A session of its own: to close it gives the lock back, come what may.
            holder = stack.enter_context(contextlib.closing(connection.copy()))
            _take(lambda: _lock_database(holder))
        yield


def _take(attempt: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _LOCK_SECONDS
    while not attempt():
        if time.monotonic() >= deadline:
            raise BootstrapError(
                "Another process has been preparing the database for "
                f"{_LOCK_SECONDS:.0f} seconds. Start again when it is done."
            )
        time.sleep(0.1)


def _lock_file(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_database(connection: BaseDatabaseWrapper) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK_NUMBER])
        return bool(cursor.fetchone()[0])
