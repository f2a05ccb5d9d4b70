"""`manage.py create_client_key NAME`: prints the key, this once."""

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from claudeproxy.commands import DatabaseCommand
from clients import issuing
from clients.errors import ClientKeyError
from clients.models import ClientKeyRole


class Command(DatabaseCommand):
    help = "Make a key for a client of the gateway and print it, this once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="whose key it is")
        parser.add_argument(
            "--role",
            choices=ClientKeyRole.values,
            default=ClientKeyRole.USER.value,
            help="admin keys will also open the admin REST API (default: user)",
        )
        parser.add_argument(
            "--session-limit",
            type=int,
            metavar="N",
            help="how many sessions it may have at a time, apart from all others "
            "(default: it shares the limit of the gateway)",
        )
        parser.add_argument("--json", action="store_true")

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            issued = issuing.issue(
                options["name"],
                ClientKeyRole(options["role"]),
                session_limit=options["session_limit"],
            )
        except ClientKeyError as error:
            raise CommandError(str(error)) from None
        row = issued.row
        key = issued.key.reveal()
        if options["json"]:
            fields = {
                "id": row.pk,
                "name": row.name,
                "role": row.role,
                "session_limit": row.session_limit,
                "key": key,
            }
            self.stdout.write(json.dumps(fields))
            return
        self.stdout.write(key)
        self.stderr.write("Keep it: it cannot be shown again.")
