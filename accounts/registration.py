"""Add accounts: what a name and a credential must look like, and the new row."""

from datetime import datetime

from django.db import IntegrityError, transaction

from accounts import lifecycle
from accounts.errors import AccountError
from accounts.models import Account
from accounts.status import AccountKind
from claudeproxy.crypto import Secret

_NAME_LENGTH = 100


def clean_name(name: str) -> str:
    """Return *name* trimmed; AccountError if it cannot name an account."""
    name = name.strip()
    if not name:
        raise AccountError("name: give the account a name.")
    if len(name) > _NAME_LENGTH or not name.isprintable():
        raise AccountError(
            f"name: use at most {_NAME_LENGTH} printable characters on one line."
        )
    return name


def clean_api_key(text: str) -> Secret:
    """Return the key trimmed; AccountError if it could not travel in a header."""
    text = text.strip()
    if not text:
        raise AccountError("api_key: no key was given.")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise AccountError(
            "api_key: a key is one word of plain characters; "
            "this one has blanks or others in it. Copy it again."
        )
    return Secret(text)


def require_free_name(name: str) -> None:
    """AccountError if an account has this name already."""
    if Account.objects.filter(name=name).exists():
        raise AccountError(
            f"name: an account called {name!r} exists already; choose another name."
        )


def add_api_key(name: str, api_key: Secret, *, actor: str, now: datetime) -> Account:
    """Store a new API-key account, active, with its first event."""
    try:
        with transaction.atomic():
            account = Account.objects.create(
                name=name,
                kind=AccountKind.API_KEY,
                api_key=api_key,
                status_changed_at=now,
            )
            lifecycle.record_added(account, actor=actor, now=now)
    except IntegrityError:
        # Somebody else took the name between the check and the insert.
        require_free_name(name)
        raise
    return account
