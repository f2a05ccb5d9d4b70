"""`manage.py add_account NAME --kind …`: an API key, a sign-in, or tokens there are.

Credentials come from a prompt, from standard input or from a file.
"""

import json
import secrets
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from accounts import capabilities, importing, oauth, output, probe, registration, signin
from accounts.errors import (
    AccountError,
    AuthorizationError,
    OAuthNotConfiguredError,
    TokenRefusedError,
)
from accounts.models import Account
from accounts.oauth import Identity, TokenSet
from accounts.status import AccountKind
from claudeproxy import terminal
from claudeproxy.commands import DatabaseCommand
from claudeproxy.conf import conf
from claudeproxy.crypto import Secret

_ACTOR = "add_account"
_ALL_ADDRESSES = {"", "0.0.0.0", "::"}  # noqa: S104  # compared with, not bound


class Command(DatabaseCommand):
    help = (
        "Add a Claude account. The API key, or the code of a sign-in, is asked for or "
        "read from standard input; it is never an argument, where a list of processes "
        "would show it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="how the account is called in lists and logs")
        parser.add_argument(
            "--kind",
            choices=AccountKind.values,
            required=True,
            help="api_key, or oauth: sign in at the provider and paste its code",
        )
        parser.add_argument(
            "--from-json",
            metavar="PATH",
            help="with --kind oauth: take the tokens in this file, - for standard "
            "input, instead of signing in; no other program may go on using them",
        )
        parser.add_argument(
            "--no-check",
            action="store_true",
            help="store the credential without asking the upstream whether it works",
        )
        parser.add_argument("--json", action="store_true", help="print the account")

    def handle(self, *_: Any, **options: Any) -> None:
        is_oauth = options["kind"] == AccountKind.OAUTH
        if options["from_json"] and not is_oauth:
            raise CommandError("--from-json goes with --kind oauth.")
        is_checked = not options["no_check"]
        try:
            name = registration.clean_name(options["name"])
            registration.require_free_name(name)
            if not is_oauth:
                account = _add_api_key(name, is_checked=is_checked)
            elif options["from_json"]:
                account = self._add_tokens(
                    name, options["from_json"], is_checked=is_checked
                )
            else:
                account = self._sign_in(name, is_json=options["json"])
        except AccountError as error:
            raise CommandError(str(error)) from None
        if is_checked and not capabilities.refresh(account, now=timezone.now()):
            self.stderr.write("Its models could not be read; a daily job tries again.")
        account.refresh_from_db()
        if options["json"]:
            self.stdout.write(json.dumps(output.fields(account)))
        elif is_oauth:
            self.stdout.write(f"Account {name!r} is active. {_describe(account)}")
        else:
            checked = "The upstream accepts its key. " if is_checked else ""
            self.stdout.write(f"Account {name!r} is active. {checked}")

    def _sign_in(self, name: str, *, is_json: bool) -> Account:
        owner = f"command:{secrets.token_hex(16)}"
        begun = signin.begin(
            owner=owner, redirect_uri=_redirect_uri(), name=name, now=timezone.now()
        )
        out = self.stderr if is_json else self.stdout
        out.write(
            f"Open this address in a browser and allow the access:\n\n{begun.url}\n\n"
            "Then paste the code you are shown (CODE#STATE), or the whole address of "
            "the page you are sent to."
        )
        out.flush()
        code, state = _split(terminal.read_secret("Code: "))
        try:
            return signin.finish(
                owner=owner, state=state, code=code, actor=_ACTOR, now=timezone.now()
            )
        except TokenRefusedError as error:
            # What a provider says about a code may quote it.
            said = str(error).replace(code.reveal(), "[code]")
            raise CommandError(
                f"code: the provider refused it ({said}). Run the command again."
            ) from None

    def _add_tokens(self, name: str, path: str, *, is_checked: bool) -> Account:
        now = timezone.now()
        tokens = importing.parse_token_set(_read(path), now=now)
        identity = _identity_of(tokens) if is_checked else tokens.identity
        account = registration.add_oauth(name, tokens, identity, actor=_ACTOR, now=now)
        try:
            oauth.require_configured()
        except OAuthNotConfiguredError as error:
            self.stderr.write(f"Until then its tokens are not refreshed: {error}")
        if tokens.refresh_token is None:
            self.stderr.write("It has no refresh token, so it ends with its access.")
        return account


def _add_api_key(name: str, *, is_checked: bool) -> Account:
    api_key = registration.clean_api_key(terminal.read_secret("API key: "))
    organization_uuid = ""
    if is_checked:
        finding = _check(AccountKind.API_KEY, api_key, field="api_key")
        organization_uuid = finding.organization_uuid
    return registration.add_api_key(
        name,
        api_key,
        organization_uuid=organization_uuid,
        actor=_ACTOR,
        now=timezone.now(),
    )


def _check(kind: AccountKind, credential: Secret, *, field: str) -> probe.Finding:
    finding = probe.check_credential(kind, credential)
    if not finding.works:
        raise AccountError(
            f"{field}: {finding.message.rstrip('.')}. Nothing was stored; "
            "--no-check stores it unchecked."
        )
    return finding


def _identity_of(tokens: TokenSet) -> Identity:
    """Say whose tokens they are; AccountError if they do not work."""
    identity = oauth.get_profile(tokens.access_token)
    if identity.holder:
        return identity
    # Tokens that may only be used for inference are shown no profile.
    finding = _check(AccountKind.OAUTH, tokens.access_token, field="access_token")
    if tokens.identity.holder:
        return tokens.identity
    return Identity(organization_uuid=finding.organization_uuid)


def _read(path: str) -> str:
    if path == "-":
        if sys.stdin.isatty():
            raise CommandError(
                "--from-json: with - the tokens come through a pipe, not from the "
                "keyboard, where they would be seen."
            )
        return sys.stdin.read()
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise CommandError(f"--from-json: {path} cannot be read: {reason}.") from None


def _split(pasted: str) -> tuple[Secret, str]:
    """Read code and state from what the provider showed, or where it led."""
    pasted = pasted.strip()
    if pasted.startswith(("http://", "https://")):
        code, state = _split_address(pasted)
    else:
        code, state = oauth.split_pasted_code(pasted)
    if not code or not state:
        raise AuthorizationError(
            "code: that is not all of it. Paste CODE#STATE, or the whole address. "
            "Run the command again."
        )
    return Secret(code), state


def _split_address(pasted: str) -> tuple[str, str]:
    try:
        query = parse_qs(urlsplit(pasted).query)
    except ValueError:
        return "", ""
    if "error" in query:
        raise AuthorizationError(
            f"Nothing was stored: the provider says {query['error'][0][:100]!r}."
        )
    return query.get("code", [""])[0], query.get("state", [""])[0]


def _redirect_uri() -> str:
    """Where the provider sends people back: as set, or to the gateway of this machine.

    Nobody has to answer there: the address holds all that is asked for.
    """
    if conf.oauth_redirect_uri:
        return conf.oauth_redirect_uri
    host = "localhost" if conf.host in _ALL_ADDRESSES else conf.host
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{conf.port}/oauth/callback"


def _describe(account: Account) -> str:
    holder = account.holder_name or account.holder
    organization = account.organization_name or account.organization_uuid
    parts = [
        f"It belongs to {holder}." if holder else "",
        f"Its organization is {organization}." if organization else "",
        ""
        if account.capabilities is None
        else f"It may use {len(account.capabilities)} models.",
    ]
    return " ".join(part for part in parts if part)
