"""Do something in one process at a time, on all machines that share the database.

A lease ends by itself, so nothing is blocked for long by a process that died with it.
"""

import contextlib
import secrets
from collections.abc import Iterator
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from claudeproxy.models import Lease


@contextlib.contextmanager
def lease(name: str, *, lasts: timedelta) -> Iterator[bool]:
    """Hold the lease *name* inside the context; yields False if somebody else does."""
    owner = secrets.token_hex(16)
    is_mine = _take(name, owner, lasts)
    try:
        yield is_mine
    finally:
        if is_mine:
            Lease.objects.filter(name=name, owner=owner).delete()


def _take(name: str, owner: str, lasts: timedelta) -> bool:
    now = timezone.now()
    held = {"owner": owner, "until": now + lasts}
    if Lease.objects.filter(name=name, until__lte=now).update(**held):
        return True
    try:
        with transaction.atomic():
            Lease.objects.create(name=name, **held)
    except IntegrityError:
        return False
    return True
