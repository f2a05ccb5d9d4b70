"""`manage.py demo`: see `claudeproxy.demo`."""

import socket
from contextlib import closing
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from claudeproxy import demo
from claudeproxy.conf import conf


class Command(BaseCommand):
    help = (
        "Show the gateway at work in front of a sandbox upstream. All it writes goes "
        "to DATA_DIR/demo, which is emptied first; real accounts are not touched."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--oneshot", action="store_true", help="end after the table of accounts"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            demo.run(
                settings.BASE_DIR,
                conf.data_dir / "demo",
                port=_free_port(conf.port),
                oneshot=options["oneshot"],
                say=self._say,
            )
        except ImportError:
            raise CommandError(
                "The demo uses the official SDK; install it with ./run setup."
            ) from None
        except RuntimeError as error:
            raise CommandError(
                f"{error}. The gateway's log: {conf.data_dir / 'demo' / 'serve.log'}"
            ) from None

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _free_port(wanted: int) -> int:
    """Return the port the gateway would have, or another if that is taken."""
    for port in (wanted, 0):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            number: int = probe.getsockname()[1]
            return number
    raise CommandError("no free port was found on 127.0.0.1")
