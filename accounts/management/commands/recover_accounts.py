"""`manage.py recover_accounts`: write down now which rate limits have ended."""

import json
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone

from accounts import output, upkeep
from claudeproxy.commands import DatabaseCommand


class Command(DatabaseCommand):
    help = (
        "Return the accounts whose rate limit has ended to active. The gateway uses "
        "them from that moment anyway; this writes it down."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true")

    def handle(self, *_: Any, **options: Any) -> None:
        recovered = upkeep.recover_limited(now=timezone.now())
        if options["json"]:
            rows = [output.fields(account) for account in recovered]
            self.stdout.write(json.dumps(rows))
        elif not recovered:
            self.stdout.write("No rate limit has ended since the last look.")
        else:
            names = ", ".join(account.name for account in recovered)
            self.stdout.write(f"Active again: {names}.")
