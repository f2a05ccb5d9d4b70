"""Issue and end client keys."""

from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import IntegrityError, transaction

from claudeproxy.crypto import Secret
from clients import keys
from clients.errors import ClientKeyError
from clients.models import MOST_SESSIONS, ClientKey, ClientKeyRole

_log = structlog.get_logger(__name__)

_NAME_LENGTH = 100


@dataclass(frozen=True)
class IssuedKey:
    """A new key: its row, and the text that is shown this once."""

    row: ClientKey
    key: Secret


def issue(
    name: str,
    role: ClientKeyRole,
    *,
    expires_at: datetime | None = None,
    session_limit: int | None = None,
) -> IssuedKey:
    """Make a key; ClientKeyError names what is no good or taken."""
    name = clean_name(name)
    check_session_limit(session_limit)
    text = keys.generate()
    try:
        with transaction.atomic():
            row = ClientKey.objects.create(
                name=name,
                role=role,
                digest=keys.digest(text),
                expires_at=expires_at,
                session_limit=session_limit,
            )
    except IntegrityError:
        raise ClientKeyError(_taken(name)) from None
    return IssuedKey(row, Secret(text))


def rename(row: ClientKey, name: str) -> None:
    """Give the key another name; ClientKeyError if it cannot have it."""
    name = clean_name(name)
    try:
        with transaction.atomic():
            ClientKey.objects.filter(pk=row.pk).update(name=name)
    except IntegrityError:
        raise ClientKeyError(_taken(name)) from None
    row.name = name


def limit_sessions(row: ClientKey, session_limit: int | None) -> None:
    """Give the key a limit of its own; None: it shares the gateway's again."""
    check_session_limit(session_limit)
    ClientKey.objects.filter(pk=row.pk).update(session_limit=session_limit)
    row.session_limit = session_limit


def check_session_limit(session_limit: int | None) -> None:
    """Raise ClientKeyError if this is no limit a key can have."""
    if session_limit is not None and not 1 <= session_limit <= MOST_SESSIONS:
        raise ClientKeyError(
            f"session_limit: use a number from 1 to {MOST_SESSIONS}, or none."
        )


def clean_name(name: str) -> str:
    """Return *name* trimmed; ClientKeyError if it cannot name a key."""
    name = name.strip()
    if not name:
        raise ClientKeyError("name: say whose key it is.")
    if len(name) > _NAME_LENGTH or not name.isprintable():
        raise ClientKeyError(
            f"name: use at most {_NAME_LENGTH} printable characters on one line."
        )
    return name


def revoke(row: ClientKey, *, now: datetime) -> bool:
    """End the key for good; False if it was revoked before."""
    rows = ClientKey.objects.filter(pk=row.pk, revoked_at__isnull=True)
    return rows.update(revoked_at=now) == 1


def expire(row: ClientKey, *, now: datetime) -> bool:
    """Let the key end now; False if it had ended before."""
    if not row.is_valid(now):
        return False
    return ClientKey.objects.filter(pk=row.pk).update(expires_at=now) == 1


def delete(row: ClientKey, *, actor: str) -> None:
    """Forget the key, which ends it."""
    key_id = row.pk
    deleted, _ = row.delete()
    if deleted:  # else by somebody else, just now
        _log.info("client_key_deleted", key_id=key_id, name=row.name, actor=actor)


def record(what: str, row: ClientKey, *, actor: str) -> None:
    """Write into the log who did *what* to a key: issued it, revoked it."""
    _log.info(f"client_key_{what}", key_id=row.pk, name=row.name, actor=actor)


def _taken(name: str) -> str:
    return f"name: a client key called {name!r} exists already; choose another name."
