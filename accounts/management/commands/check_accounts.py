"""`manage.py check_accounts`: ask the upstream which accounts work."""

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser

from accounts import output, probe
from accounts.models import Account
from claudeproxy import terminal
from claudeproxy.commands import DatabaseCommand
from claudeproxy.errors import ClaudeProxyError


class Command(DatabaseCommand):
    help = (
        "Say which accounts work: sends one free request with each credential. "
        "Changes nothing. Exits with 1 if any of them does not work."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", help="these accounts only")
        parser.add_argument("--json", action="store_true")

    def handle(self, *_: Any, **options: Any) -> None:
        accounts = list(_chosen(options["names"]))
        results = []
        for account in accounts:
            if not options["json"]:
                self.stderr.write(f"checking {account.name} …")
            results.append((account, *_check(account)))
        if options["json"]:
            rows = [
                {**output.fields(account), "works": works, "message": message}
                for account, works, message in results
            ]
            self.stdout.write(json.dumps(rows))
        elif not accounts:
            self.stdout.write("There are no accounts yet; add one with add_account.")
        else:
            self.stdout.write(
                terminal.table(
                    ["account", "kind", "status", "works", "what the upstream says"],
                    [
                        [a.name, a.kind, a.status, "yes" if works else "NO", message]
                        for a, works, message in results
                    ],
                )
            )
        if not all(works for _account, works, _message in results):
            raise SystemExit(1)


def _check(account: Account) -> tuple[bool, str]:
    try:
        finding = probe.check(account)
    except ClaudeProxyError as error:
        return False, str(error)
    return finding.works, finding.message


def _chosen(names: list[str]) -> list[Account]:
    accounts = list(Account.objects.all())
    if not names:
        return accounts
    known = {account.name for account in accounts}
    if unknown := [name for name in names if name not in known]:
        raise CommandError(
            f"names: there is no account called {', '.join(unknown)}; "
            f"there are {', '.join(sorted(known)) or 'none'}."
        )
    return [account for account in accounts if account.name in names]
