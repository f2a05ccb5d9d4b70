"""Take over accounts that another program kept: token sets, and the Go version's files.

Reading is pure, and its errors name the field; `store` writes one account. What the
files look like is described in docs/migrating.md.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction

from accounts import lifecycle, oauth, registration
from accounts.errors import AccountError
from accounts.models import Account, AccountEvent
from accounts.oauth import Identity, TokenSet
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret, WrongEncryptionKeyError

# A number above this cannot be a date in seconds; then it is one in milliseconds.
_MOST_SECONDS = 100_000_000_000
_STATUSES = {
    "active": AccountStatus.ACTIVE,
    "inactive": AccountStatus.INACTIVE,
    "rate_limited": AccountStatus.RATE_LIMITED,
    "invalid": AccountStatus.INVALID,
    # Of the first releases, which knew one account only.
    "valid": AccountStatus.ACTIVE,
}


@dataclass(frozen=True, slots=True)
class FoundAccount:
    """An account as the Go version kept it."""

    source: str  # its id there, by which it is recognised if it is imported again
    name: str
    tokens: TokenSet
    organization_uuid: str
    status: AccountStatus
    rate_limited_until: datetime | None

    @property
    def actor(self) -> str:
        return f"import {self.source}"[:150]


def rows(document: object) -> list[tuple[str, object]]:
    """Split a file into its accounts, each with what it is called in messages.

    Shape: a list of accounts; or the forms of earlier releases: one account, and an
    object from organization to account.
    """
    if isinstance(document, list):
        return [(f"row {n}", row) for n, row in enumerate(document, start=1)]
    if not isinstance(document, dict):
        raise AccountError("this is neither a list of accounts nor an object.")
    if "access_token" in document:
        return [("row 1", document)]
    return [
        (f"row {n}", _flat(organization, row))
        for n, (organization, row) in enumerate(document.items(), start=1)
    ]


def _flat(organization: str, row: object) -> object:
    tokens = row.get("oauth_token") if isinstance(row, dict) else None
    if not isinstance(row, dict) or not isinstance(tokens, dict):
        return row
    known = {"id": organization, "organization_uuid": organization}
    return {**known, "status": row.get("status", "active"), **tokens}


def parse(row: object, *, now: datetime) -> FoundAccount:
    """Read one account; AccountError names the field that is wrong."""
    if not isinstance(row, dict):
        raise AccountError("this is no JSON object.")
    organization_uuid = _text(row, "organization_uuid")
    account_id = _text(row, "id")
    # The first releases gave accounts no name, and the very first no id.
    name = _text(row, "name") or organization_uuid or account_id or "imported"
    status = _status(row)
    until = parse_time(row.get("rate_limited_until"), "rate_limited_until")
    return FoundAccount(
        source=account_id or organization_uuid or "account.json",
        name=registration.clean_name(name),
        tokens=_tokens(row, now=now),
        organization_uuid=organization_uuid,
        status=status,
        rate_limited_until=until if status is AccountStatus.RATE_LIMITED else None,
    )


def store(found: FoundAccount, *, now: datetime) -> tuple[bool, str]:
    """Add the account in the status it had; return whether it was new, and a note.

    An account that is here already is left as it is: its tokens may have been renewed
    since, and then those in the file are used up.
    Errors: AccountError if its name or its id is another account's.
    """
    if known := _known(found):
        return False, f"as {known.name!r}" if known.name != found.name else ""
    if Account.objects.filter(name=found.name).exists():
        raise AccountError(
            f"name: another account is called {found.name!r}; rename one of them."
        )
    with transaction.atomic():
        account = registration.add_oauth(
            found.name,
            found.tokens,
            Identity(organization_uuid=found.organization_uuid),
            actor=found.actor,
            now=now,
        )
        return True, _move(account, found, now)


def _known(found: FoundAccount) -> Account | None:
    """Find the account if it was imported before, or added by hand, or renamed."""
    event = (
        AccountEvent.objects.filter(
            actor=found.actor, from_status="", account__isnull=False
        )
        .select_related("account")
        .first()
    )
    if event and event.account:
        # Its tokens may have been renewed since, and its name changed here or there;
        # what has neither a name nor a token in common is another account.
        names = {event.account_name, event.account.name}
        if found.name not in names and not _shares_token(event.account, found):
            raise AccountError(
                f"id: {event.account_name!r} was imported with the same one; give "
                "this account an id of its own."
            )
        return event.account
    for account in Account.objects.filter(kind=AccountKind.OAUTH):
        if _shares_token(account, found):
            return account
    return None


def _shares_token(account: Account, found: FoundAccount) -> bool:
    with contextlib.suppress(WrongEncryptionKeyError):
        return any(mine in _held(account) for mine in _sent(found.tokens))
    return False


def _held(account: Account) -> set[Secret]:
    return {t for t in (account.access_token, account.refresh_token) if t is not None}


def _sent(tokens: TokenSet) -> Iterator[Secret]:
    yield tokens.access_token
    if tokens.refresh_token is not None:
        yield tokens.refresh_token


def _move(account: Account, found: FoundAccount, now: datetime) -> str:
    """Bring a new account into the status it had; return a note on it."""
    actor, until = found.actor, found.rate_limited_until
    if found.status is AccountStatus.INACTIVE:
        reason = "imported as inactive"
        lifecycle.deactivate(account, actor=actor, reason=reason, now=now)
    elif found.status is AccountStatus.INVALID:
        reason = "imported as invalid"
        lifecycle.invalidate(account, actor=actor, reason=reason, now=now)
        return "invalid: it has to sign in again"
    elif until is not None and until > now:
        reason = "imported as rate limited"
        lifecycle.limit(account, until=until, actor=actor, reason=reason, now=now)
    elif found.status is AccountStatus.RATE_LIMITED:
        return "active: its rate limit has ended"
    if found.tokens.refresh_token is None:
        return f"{account.status}; without a refresh token it ends with its access"
    return str(account.status)


# --- token sets


def parse_token_set(text: str, *, now: datetime) -> TokenSet:
    """Read a token set: as a token endpoint gives it, or as Claude Code keeps it.

    Shape: JSON with `access_token`, `refresh_token`, and `expires_at` (as `parse_time`
    reads it) or `expires_in` (seconds); or `accessToken` and so on in `claudeAiOauth`.
    `organization` and `account` are taken if they are there.
    Errors: AccountError that names the field; nothing of the text is repeated.
    """
    try:
        fields = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        raise AccountError("tokens: this is no JSON.") from None
    if isinstance(fields, dict) and "claudeAiOauth" in fields:
        fields = fields["claudeAiOauth"]
    if not isinstance(fields, dict):
        raise AccountError("tokens: this is no JSON object.")
    return _tokens(fields, now=now)


def _tokens(fields: Mapping[str, Any], *, now: datetime) -> TokenSet:
    access_token = _token(fields, "access_token", "accessToken")
    if access_token is None:
        raise AccountError("access_token: there is none.")
    refresh_token = _token(fields, "refresh_token", "refreshToken")
    return TokenSet(
        access_token=access_token,
        refresh_token=refresh_token,
        expires_at=_end(fields, now, is_refreshable=refresh_token is not None),
        identity=oauth.parse_profile(json.dumps(fields).encode()),
    )


def _token(fields: Mapping[str, Any], *names: str) -> Secret | None:
    value = next((fields[name] for name in names if fields.get(name)), "")
    text = value.strip() if isinstance(value, str) else None
    if text == "":
        return None
    if text is None or not (text.isascii() and text.isprintable()) or " " in text:
        raise AccountError(f"{names[0]}: this is no token.")
    return Secret(text)


def _end(fields: Mapping[str, Any], now: datetime, *, is_refreshable: bool) -> datetime:
    at = fields.get("expires_at", fields.get("expiresAt"))
    if end := parse_time(at, "expires_at"):
        return end
    seconds = fields.get("expires_in", fields.get("expiresIn"))
    if isinstance(seconds, int | float) and 0 < seconds < _MOST_SECONDS / 100:
        return now + timedelta(seconds=seconds)
    if not is_refreshable:
        raise AccountError("expires_at: say when the access token ends.")
    return now  # not known: so it is refreshed before it is used


def parse_time(value: object, field: str) -> datetime | None:
    """Read a point in time; None if it is missing or the zero of its notation.

    Units: a number is in Unix seconds, or in milliseconds if it is too large for that.
    Errors: AccountError that names *field*.
    """
    if value is None or value == "" or value == 0:
        return None
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            if at.year == 1:  # how Go writes "never"
                return None
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if value > _MOST_SECONDS else value
            at = datetime.fromtimestamp(seconds, UTC)
        else:
            raise ValueError
        if at.tzinfo is None:
            raise ValueError
        return at.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise AccountError(
            f"{field}: this is no time; write it like 2026-03-01T12:00:00Z."
        ) from None


def _text(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field) or ""
    if not isinstance(value, str) or len(value) > 200 or not value.isprintable():
        raise AccountError(f"{field}: this is no short text on one line.")
    return value.strip()


def _status(row: Mapping[str, Any]) -> AccountStatus:
    status = _STATUSES.get(str(row.get("status") or "active"))
    if status is None:
        raise AccountError(f"status: this is none of {', '.join(_STATUSES)}.")
    return status
