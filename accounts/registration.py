"""Add accounts: what a name and a credential must look like, and the new row."""

import hashlib
from dataclasses import asdict
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts import lifecycle
from accounts.errors import AccountError, IdentityError
from accounts.models import Account
from accounts.oauth import Identity, TokenSet
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret, WrongEncryptionKeyError

_NAME_LENGTH = 100
# Of an API key, whose organization is only known if it was checked.
_KEY_HOLDER = "key:"


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


def require_new_identity(identity: Identity, *, besides: int | None = None) -> None:
    """IdentityError with the account's name if its holder is here in its organization.

    *besides* is the id of an account that does not count: one that signs in again.
    """
    if not identity.holder:
        return
    others = Account.objects.filter(holder=identity.holder)
    if not identity.holder.startswith(_KEY_HOLDER):
        others = others.filter(organization_uuid=identity.organization_uuid)
    if other := others.exclude(pk=besides or 0).first():
        raise IdentityError(
            f"This is the account {other.name!r}, which is here already: the same "
            "holder in the same organization. Nothing was stored."
        )


def add_api_key(
    name: str,
    api_key: Secret,
    *,
    actor: str,
    now: datetime,
    organization_uuid: str = "",
) -> Account:
    """Store a new API-key account, active, with its first event.

    Errors: AccountError if the name is taken, IdentityError if the key is here already.
    """
    identity = Identity(
        organization_uuid=organization_uuid,
        # The provider does not say whose a key is; the key stands for its holder.
        holder=_KEY_HOLDER + hashlib.sha256(api_key.reveal().encode()).hexdigest()[:32],
    )
    return _add(
        name, AccountKind.API_KEY, identity, actor=actor, now=now, api_key=api_key
    )


def add_oauth(
    name: str, tokens: TokenSet, identity: Identity, *, actor: str, now: datetime
) -> Account:
    """Store a new OAuth account, active, with its first event; errors as above."""
    require_new_identity(identity)
    _require_new_tokens(tokens)
    return _add(
        name,
        AccountKind.OAUTH,
        identity,
        actor=actor,
        now=now,
        access_token=tokens.access_token,
        refresh_token=tokens.refresh_token,
        expires_at=tokens.expires_at,
    )


def _require_new_tokens(tokens: TokenSet) -> None:
    """IdentityError if an account has these tokens: refreshed twice, both would end."""
    for account in Account.objects.filter(kind=AccountKind.OAUTH):
        try:
            is_same = account.access_token == tokens.access_token or (
                tokens.refresh_token is not None
                and account.refresh_token == tokens.refresh_token
            )
        except WrongEncryptionKeyError:
            continue  # nobody can compare what nobody can read
        if is_same:
            raise IdentityError(
                f"The account {account.name!r} has these tokens already. "
                "Nothing was stored."
            )


def _add(
    name: str,
    kind: AccountKind,
    identity: Identity,
    *,
    actor: str,
    now: datetime,
    **credentials: Any,
) -> Account:
    require_new_identity(identity)
    try:
        with transaction.atomic():
            account = Account.objects.create(
                name=name,
                kind=kind,
                status_changed_at=now,
                **asdict(identity),
                **credentials,
            )
            lifecycle.record_added(account, actor=actor, now=now)
    except IntegrityError:
        # Somebody else was faster between the check and the insert.
        require_free_name(name)
        require_new_identity(identity)
        raise
    return account


def sign_in_again(
    account: Account, tokens: TokenSet, identity: Identity, *, actor: str, now: datetime
) -> None:
    """Give an account the tokens of a new sign-in; `invalid` becomes `active`.

    A refresh that is under way loses its lease, and with it the right to send or to
    store anything. Errors: IdentityError if somebody else signed in; nothing is changed
    then. AccountError if the account was deleted meanwhile.
    """
    is_elsewhere = account.organization_uuid not in {"", identity.organization_uuid}
    if is_elsewhere or account.holder not in {"", identity.holder}:
        raise IdentityError(
            f"{account.name!r} belongs to "
            f"{account.holder_name or account.holder or 'somebody'} in "
            f"{account.organization_name or account.organization_uuid}, but "
            f"{identity.holder_name or identity.holder or 'somebody unknown'} in "
            f"{identity.organization_name or identity.organization_uuid or 'another'} "
            "signed in. Nothing was changed."
        )
    require_new_identity(identity, besides=account.pk)
    with transaction.atomic():
        rows = Account.objects.filter(pk=account.pk).update(
            kind=AccountKind.OAUTH,
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token,
            expires_at=tokens.expires_at,
            last_refresh_at=now,
            last_refresh_error="",
            refresh_failures=0,
            refresh_retry_at=None,
            is_refresh_doubtful=False,
            refresh_lease="",
            refresh_lease_until=None,
            sent_refresh_digest="",
            refused_refresh_digest="",
            updated_at=now,
            **asdict(identity),
        )
        if not rows:
            raise AccountError(f"Account {account.name!r} was deleted meanwhile.")
        account.refresh_from_db()
        if account.status == AccountStatus.INVALID:
            lifecycle.activate(account, actor=actor, reason="signed in again", now=now)


def rename(account: Account, name: str) -> None:
    """Give the account another name; AccountError if it cannot have it."""
    name = clean_name(name)
    if name == account.name:
        return
    require_free_name(name)
    try:
        with transaction.atomic():
            Account.objects.filter(pk=account.pk).update(
                name=name, updated_at=timezone.now()
            )
    except IntegrityError:
        require_free_name(name)
        raise
    account.name = name
