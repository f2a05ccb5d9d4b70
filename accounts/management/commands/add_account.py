"""`manage.py add_account NAME --kind api_key`: the key comes from a prompt or stdin."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts import output, probe, registration
from accounts.errors import AccountError
from accounts.status import AccountKind
from claudeproxy import terminal


class Command(BaseCommand):
    help = (
        "Add a Claude account. The API key is asked for, or read from standard input; "
        "it is never an argument, where a list of processes would show it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="how the account is called in lists and logs")
        parser.add_argument(
            "--kind", choices=[AccountKind.API_KEY.value], required=True
        )
        parser.add_argument(
            "--no-check",
            action="store_true",
            help="store the key without asking the upstream whether it works",
        )
        parser.add_argument("--json", action="store_true", help="print the account")

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            name = registration.clean_name(options["name"])
            registration.require_free_name(name)
            api_key = registration.clean_api_key(terminal.read_secret("API key: "))
        except AccountError as error:
            raise CommandError(str(error)) from None
        if not options["no_check"]:
            finding = probe.check_credential(AccountKind.API_KEY, api_key)
            if not finding.works:
                raise CommandError(
                    f"api_key: {finding.message.rstrip('.')}. Nothing was stored; "
                    "--no-check stores it unchecked."
                )
        try:
            account = registration.add_api_key(
                name, api_key, actor="add_account", now=timezone.now()
            )
        except AccountError as error:
            raise CommandError(str(error)) from None
        if options["json"]:
            self.stdout.write(json.dumps(output.fields(account)))
        else:
            checked = "" if options["no_check"] else "The upstream accepts its key. "
            self.stdout.write(f"Account {name!r} is active. {checked}")
