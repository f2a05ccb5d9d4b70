"""`manage.py sandbox`: the stand-in for Claude, alone, to rehearse with."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from claudeproxy.sandbox import server
from claudeproxy.sandbox.errors import NotLoopbackError


class Command(BaseCommand):
    help = (
        "Serve a stand-in for Claude on this machine: no model, no account needed, "
        "faults on demand. See docs/sandbox.md."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default=server.DEFAULT_HOST)
        parser.add_argument("--port", type=int, default=server.DEFAULT_PORT)

    def handle(self, *_: Any, **options: Any) -> None:
        host, port = options["host"], options["port"]
        self.stdout.write(
            f"Sandbox on http://{host}:{port}, no model behind it. Point a gateway at "
            f"it with UPSTREAM_BASE_URL=http://{host}:{port}. Ctrl-C ends it."
        )
        self.stdout.flush()  # now, also where the output is not a terminal
        try:
            server.run(host, port)
        except NotLoopbackError as error:
            raise CommandError(str(error)) from None
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise CommandError(
                f"--port: {port} cannot be used ({reason}); choose another."
            ) from None
