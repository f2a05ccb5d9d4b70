"""Take over client keys that the Go version kept, so that its clients go on working.

The text of a key is hashed as it is read and kept nowhere. What the file looks like is
described in docs/migrating.md.
"""

from dataclasses import dataclass, field
from datetime import datetime

from django.db import IntegrityError, transaction

from clients import issuing, keys
from clients.errors import ClientKeyError
from clients.models import ClientKey, ClientKeyRole

_STATUSES = ("active", "inactive", "revoked")
# Fewer characters than this can be guessed, by one who has the digest at least.
_SAFE_LENGTH = 20


@dataclass(frozen=True, slots=True)
class FoundKey:
    """A client key as the Go version kept it."""

    name: str
    role: ClientKeyRole
    status: str
    is_short: bool
    digest: bytes = field(repr=False)


def rows(document: object) -> list[tuple[str, object]]:
    """Split a file into its keys, each with what it is called in messages."""
    if not isinstance(document, list):
        raise ClientKeyError("this is no list of keys.")
    return [(f"row {n}", row) for n, row in enumerate(document, start=1)]


def parse(row: object) -> FoundKey:
    """Read one key; ClientKeyError names the field that is wrong."""
    if not isinstance(row, dict):
        raise ClientKeyError("this is no JSON object.")
    key = row.get("key")
    if not isinstance(key, str) or not key.strip():
        raise ClientKeyError("key: there is none.")
    key = key.strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ClientKeyError(
            "key: it has blanks or others in it, which no client can send."
        )
    name = row.get("name") or row.get("id")
    if not isinstance(name, str):
        raise ClientKeyError("name: this is no text.")
    role = row.get("role") or ClientKeyRole.USER.value
    if role not in ClientKeyRole.values:
        raise ClientKeyError(
            f"role: this is none of {', '.join(ClientKeyRole.values)}."
        )
    status = row.get("status") or "active"
    if status not in _STATUSES:
        raise ClientKeyError(f"status: this is none of {', '.join(_STATUSES)}.")
    return FoundKey(
        name=issuing.clean_name(name),
        role=ClientKeyRole(role),
        status=status,
        is_short=len(key) < _SAFE_LENGTH,
        digest=keys.digest(key),
    )


def store(found: FoundKey, *, now: datetime) -> tuple[bool, str]:
    """Add the key; return whether it was new, and a note.

    Errors: ClientKeyError if its name is another key's.
    """
    if known := ClientKey.objects.filter(digest=found.digest).first():
        return False, f"as {known.name!r}" if known.name != found.name else ""
    try:
        with transaction.atomic():
            ClientKey.objects.create(
                name=found.name,
                role=found.role,
                digest=found.digest,
                expires_at=now if found.status == "inactive" else None,
                revoked_at=now if found.status == "revoked" else None,
            )
    except IntegrityError:
        raise ClientKeyError(
            f"name: another client key is called {found.name!r}; rename one of them."
        ) from None
    return True, _note(found)


def _note(found: FoundKey) -> str:
    if found.status == "inactive":
        return "expired: it was inactive"
    if found.status == "revoked":
        return "revoked"
    if found.is_short:
        return f"{found.role}; short enough to be guessed, so replace it soon"
    return str(found.role)
