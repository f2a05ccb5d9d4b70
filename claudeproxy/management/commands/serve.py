"""`manage.py serve`: the whole gateway, web workers and background jobs, supervised."""

import errno
import gc
import socket
from datetime import timedelta
from functools import partial
from typing import Any

from django.core.checks import Tags
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS

from accounts.models import Account
from claudeproxy import bootstrap, cluster, handover, process, watchdog, webworker
from claudeproxy.bootstrap import BootstrapError, FirstAdmin
from claudeproxy.conf import conf
from claudeproxy.process import Beacon
from claudeproxy.supervisor import Role, Supervisor
from claudeproxy.watchdog import Watchdog
from clients.models import ClientKey

# Beyond what a web worker takes itself, before it is killed.
_STOP_MARGIN_SECONDS = 5
_ALL_ADDRESSES = {"", "0.0.0.0", "::"}  # noqa: S104  # compared with, not bound


class Command(BaseCommand):
    help = (
        "Run the gateway: prepare the database, then run web workers and background "
        "jobs until SIGTERM or Ctrl-C. What dies is started again. SIGUSR2 replaces "
        "all processes by the code and settings of now, without a failed request."
    )
    # For tests, which call this with an app and a patience of their own.
    stealth_options = ("app", "hang_limit")

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", help="address to listen on (default: HOST)")
        parser.add_argument(
            "--port", type=int, help="port, 0 for any that is free (default: PORT)"
        )
        parser.add_argument(
            "--workers", type=int, help="web worker processes (default: WEB_WORKERS)"
        )
        parser.add_argument(
            "--web-only",
            action="store_true",
            help="without background jobs; run `manage.py jobs` somewhere else",
        )
        parser.add_argument(
            handover.PREPARE_ONLY,
            action="store_true",
            help="prepare the database, then end with exit code 0 if all is well",
        )

    def handle(
        self,
        *_: Any,
        host: str | None,
        port: int | None,
        workers: int | None,
        web_only: bool,
        prepare_only: bool = False,
        skip_checks: bool = False,
        app: str = webworker.APP,
        hang_limit: timedelta = watchdog.LIMIT,
        **__: Any,
    ) -> None:
        count = conf.web_workers if workers is None else workers
        if count < 1:
            raise CommandError("--workers must be 1 or more.")
        if prepare_only:
            with process.forkable_database():
                self._announce_admin(self._prepare(skip_checks=skip_checks))
            return
        estate = handover.take_over()
        if estate:
            # All else was done in the rehearsal just now. Whatever fails from here on
            # would end a gateway that serves, so the database is not even asked.
            listener = estate.listener
        else:
            # First of all, so that a second start does nothing to the database of a
            # gateway that runs.
            listener = open_listener(
                conf.host if host is None else host,
                conf.port if port is None else port,
            )
            with process.forkable_database():
                self._announce(listener, self._prepare(skip_checks=skip_checks))
        process.raise_open_file_limit()
        # The collector leaves alone what is there by now, and so does not write to the
        # memory that the children share with this process: a third of a web worker.
        gc.freeze()
        Supervisor(
            _roles(listener, app, workers=count, with_jobs=not web_only),
            listener=listener,
            seconds_to_stop=webworker.seconds_to_stop() + _STOP_MARGIN_SECONDS,
            watchdog=Watchdog(hang_limit),
            predecessors=estate.predecessors if estate else (),
        ).run()

    def _prepare(self, *, skip_checks: bool) -> FirstAdmin | None:
        if not skip_checks:
            self.check(tags=[Tags.database], databases=[DEFAULT_DB_ALIAS])
        try:
            return bootstrap.prepare()
        except BootstrapError as error:
            raise CommandError(str(error)) from error

    def _announce(self, listener: socket.socket, admin: FirstAdmin | None) -> None:
        base = base_url(listener)
        self.stdout.write(f"Claude Proxy listens on {base}")
        self.stdout.write(f"Admin: {base}/admin/")
        self._announce_admin(admin)
        if not Account.objects.exists():
            self.stdout.write(
                "No account yet. Add one: ./run manage add_account NAME --kind api_key"
            )
        if not ClientKey.objects.exists():
            self.stdout.write(
                "No client key yet. Make one: ./run manage create_client_key NAME"
            )
        self.stdout.flush()

    def _announce_admin(self, admin: FirstAdmin | None) -> None:
        if admin:
            self.stdout.write(
                f"Log in as {admin.name} with the password {admin.password.reveal()}\n"
                "It is not shown again; change it in the admin."
            )


def open_listener(host: str, port: int) -> socket.socket:
    """Open the socket that all web workers accept connections from.

    Errors: CommandError that names what to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = str(error)
        if isinstance(error, OSError):
            reason = error.strerror or reason
            if error.errno == errno.EADDRINUSE:
                raise CommandError(
                    f"Port {port} is in use on {host}. Stop what listens there, or "
                    "choose another port with PORT or --port."
                ) from error
        raise CommandError(
            f"Cannot listen on {host} port {port}: {reason}. Check HOST and PORT, or "
            "--host and --port."
        ) from error


def base_url(listener: socket.socket) -> str:
    """Say under which address this machine reaches the gateway."""
    host, port = listener.getsockname()[:2]
    if host in _ALL_ADDRESSES:
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _roles(
    listener: socket.socket, app: str, *, workers: int, with_jobs: bool
) -> list[Role]:
    # Forked, not started anew: Django is loaded already, which makes the first answer
    # come a second sooner, and a worker that died is replaced within a moment.
    roles = [
        _web_role(f"gateway-web-{number}", listener, app)
        for number in range(1, workers + 1)
    ]
    if with_jobs:
        roles.append(
            Role("gateway-jobs", partial(_run_jobs, listener), is_watched=True)
        )
    return roles


def _web_role(name: str, listener: socket.socket, app: str) -> Role:
    beacon = Beacon()
    return Role(
        name, partial(webworker.run, listener, app, beacon.light), beacon=beacon
    )


def _run_jobs(listener: socket.socket) -> int:
    listener.close()  # or the port would stay taken for as long as a job takes to end
    return cluster.run()
