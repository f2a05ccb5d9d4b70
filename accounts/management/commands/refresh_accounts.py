"""`manage.py refresh_accounts`: renew access tokens now, before the job does."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from accounts import oauth, output, upkeep
from accounts.errors import OAuthNotConfiguredError
from accounts.models import Account
from accounts.status import AccountKind, AccountStatus
from accounts.tokens import Outcome
from claudeproxy import terminal
from claudeproxy.commands import DatabaseCommand

_FAILURES = {Outcome.FAILED, Outcome.INVALID}


class Command(DatabaseCommand):
    help = (
        "Renew the access tokens that end soon, or those of the accounts named. "
        "Exits with 1 if one could not be renewed or its account is invalid."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", help="these accounts only")
        parser.add_argument(
            "--force",
            action="store_true",
            help="renew tokens that are still fresh, and do not wait after trouble",
        )
        parser.add_argument("--json", action="store_true")

    def handle(self, *_: Any, **options: Any) -> None:
        accounts = _chosen(options["names"], force=options["force"])
        if accounts:
            try:
                oauth.require_configured()
            except OAuthNotConfiguredError as error:
                raise CommandError(str(error)) from None
        results = [
            (_latest(account), result)
            for account, result in upkeep.refresh_tokens(
                self._announced(accounts), force=options["force"]
            )
        ]
        if options["json"]:
            rows = [
                {
                    **output.fields(account),
                    "outcome": result.outcome.name.lower(),
                    "message": result.message,
                }
                for account, result in results
            ]
            self.stdout.write(json.dumps(rows))
        elif not results:
            self.stdout.write("No access token ends soon; nothing was refreshed.")
        else:
            self.stdout.write(
                terminal.table(
                    ["account", "status", "token ends", "outcome", "message"],
                    [
                        [a.name, a.status, _when(a), r.outcome.value, r.message]
                        for a, r in results
                    ],
                )
            )
        if any(result.outcome in _FAILURES for _account, result in results):
            raise SystemExit(1)

    def _announced(self, accounts: Iterable[Account]) -> Iterator[Account]:
        for account in accounts:
            self.stderr.write(f"refreshing {account.name} …")
            yield account


def _chosen(names: list[str], *, force: bool) -> list[Account]:
    oauth_accounts = Account.objects.filter(kind=AccountKind.OAUTH)
    if names:
        accounts = list(oauth_accounts.filter(name__in=names))
        if unknown := sorted(set(names) - {account.name for account in accounts}):
            known = ", ".join(oauth_accounts.values_list("name", flat=True))
            raise CommandError(
                f"names: there is no OAuth account called {', '.join(unknown)}; "
                f"there are {known or 'none'}."
            )
        return accounts
    if force:
        in_use = (AccountStatus.ACTIVE, AccountStatus.RATE_LIMITED)
        return list(oauth_accounts.filter(status__in=in_use))
    return list(Account.objects.due_for_refresh(timezone.now(), upkeep.REFRESH_AHEAD))


def _latest(account: Account) -> Account:
    """The account as the refresh left it; as it was, if it has been deleted."""
    return Account.objects.filter(pk=account.pk).first() or account


def _when(account: Account) -> str:
    return f"{account.expires_at:%Y-%m-%d %H:%M} UTC" if account.expires_at else ""
