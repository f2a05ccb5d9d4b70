"""Which account an object of the upstream belongs to: remembered, found, forgotten.

Rows are a memory and no truth: what is missing can be found by asking the accounts, and
what is too much is noticed when its account does not know the object.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from accounts.models import OwnedObject
from accounts.status import ObjectKind

# Databases limit the parameters of a query.
_IDS_PER_QUERY = 500
# A thread lives an hour at most; ten minutes are for clocks that differ.
THREAD_LIFETIME = timedelta(minutes=70)
# Of a container that does not say when it ends.
CONTAINER_LIFETIME = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Possession:
    """An object that an account was seen to have; *expires_at* None: no end."""

    object_id: str
    kind: ObjectKind
    account_id: int
    expires_at: datetime | None = None


def remember(seen: Sequence[Possession], *, now: datetime) -> None:
    """Store whose these objects are; the latest sight counts.

    A hundred take one query; of more, as many as the database bears go in one.

    Errors: IntegrityError if the account is gone.
    """
    # One statement must not name a row twice.
    latest = {possession.object_id: possession for possession in seen}
    OwnedObject.objects.bulk_create(
        [
            OwnedObject(
                object_id=possession.object_id,
                kind=possession.kind,
                account_id=possession.account_id,
                created_at=now,
                expires_at=possession.expires_at,
            )
            # In one order everywhere, or two statements may wait for each other.
            for _, possession in sorted(latest.items())
        ],
        update_conflicts=True,
        unique_fields=["object_id"],
        update_fields=["kind", "account", "expires_at"],
    )


def owners(
    object_ids: Collection[str], *, now: datetime
) -> dict[str, tuple[int, datetime | None]]:
    """Return the account of each object that is known, and until when that counts."""
    found: dict[str, tuple[int, datetime | None]] = {}
    wanted = list(object_ids)
    for start in range(0, len(wanted), _IDS_PER_QUERY):
        rows = OwnedObject.objects.filter(
            object_id__in=wanted[start : start + _IDS_PER_QUERY]
        ).exclude(expires_at__lte=now)
        columns = rows.values_list("object_id", "account_id", "expires_at")
        found.update(
            (object_id, (account_id, expires_at))
            for object_id, account_id, expires_at in columns
        )
    return found


def forget(object_id: str, kind: ObjectKind, *, account_id: int) -> None:
    """The account has no object of this kind and id any more."""
    OwnedObject.objects.filter(
        object_id=object_id, kind=kind, account_id=account_id
    ).delete()


def prune(*, now: datetime) -> int:
    """Forget what has expired; return how many there were."""
    expired = OwnedObject.objects.filter(expires_at__lte=now)
    return expired.delete()[0]
