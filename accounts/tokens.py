"""Keep access tokens fresh: one refresh at a time for each account, on all machines.

A provider that rotates refresh tokens takes the second use of one for theft and ends
the sign-in. So, whatever dies or hangs:

1. A refresh holds a lease in the account's row; everybody else waits for its result,
   or goes on with the old token if that lives and the result takes long.
2. Under the lease the row is read again: perhaps it has been done.
3. That a refresh token is about to be sent is committed, by who still has the lease,
   before it is sent. A process that finds such a mark without an outcome never sends
   that token again.
4. The new pair is committed before anybody uses it.
5. An answer without a new refresh token keeps the old one.
6. A refused refresh token is never sent again, which its digest makes sure of.
"""

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from time import sleep
from typing import TypeVar

import structlog
from django.db import (
    InterfaceError,
    OperationalError,
    close_old_connections,
    transaction,
)
from django.db.models import Q
from django.utils import timezone

from accounts import lifecycle, oauth
from accounts.errors import NoTokenReplyError, TokenRefusedError
from accounts.models import Account
from accounts.oauth import TokenSet
from accounts.pool import REFRESH_MARGIN
from accounts.status import AccountKind, AccountStatus
from claudeproxy.crypto import Secret

_log = structlog.get_logger(__name__)

_ACTOR = "refresh"
# Longer than the token request may take: a lease ends by itself if its holder dies.
_LEASE = timedelta(seconds=60)
# While the old token lives, nobody waits longer than this for another's refresh: its
# holder may be dead.
_PATIENCE = timedelta(seconds=5)
_POLL_SECONDS = 0.05
# An answer that cannot be written is lost, so a database that is away gets time.
_WRITE_PAUSES_SECONDS = (0.1, 0.5, 2.0, 5.0)
_FIRST_DELAY = timedelta(seconds=30)
_LONGEST_DELAY = timedelta(minutes=15)
_INTERRUPTED = (
    "A refresh was interrupted after the refresh token may have been used; "
    "sign in again."
)

_ENDED = "Its access token has ended, and it has no refresh token; sign in again."

T = TypeVar("T")
Clock = Callable[[], datetime]
Send = Callable[[Secret], TokenSet]


class Outcome(Enum):
    """How an attempt to have a fresh token ended."""

    REFRESHED = "refreshed"
    STILL_FRESH = "still fresh"  # also: somebody else has just done it
    UNDER_WAY = "under way"  # by somebody else, who was not waited for (any longer)
    POSTPONED = "postponed"  # after trouble; the old token is used while it lives
    FAILED = "failed"  # trouble just now; the old token is used while it lives
    INVALID = "invalid"  # refused, or lost: a person must sign in again
    GONE = "gone"  # the account was deleted, or has no tokens


@dataclass(frozen=True, slots=True)
class Result:
    outcome: Outcome
    message: str = ""


def send_refresh(refresh_token: Secret) -> TokenSet:
    """Ask the provider for a new pair."""
    return oauth.post_token(oauth.refresh_request(refresh_token), now=timezone.now())


def ensure_fresh(
    account_id: int,
    *,
    margin: timedelta = REFRESH_MARGIN,
    refused: Secret | None = None,
    force: bool = False,
    is_patient: bool = True,
    clock: Clock = timezone.now,
    send: Send = send_refresh,
) -> Result:
    """Return once the account's access token is fresh, or cannot be made so now.

    *margin* is the life a token must have left to count as fresh. *refused* is an
    access token that the upstream refused: any other that lives counts as fresh.
    *force* refreshes whatever the token's age and ignores a delay after earlier
    trouble. Unless *is_patient*, a refresh that is under way elsewhere is not waited
    for.
    """
    owner = secrets.token_hex(8)
    is_old_token_good = refused is None
    while True:
        account = Account.objects.filter(pk=account_id).first()
        if account is None or account.kind != AccountKind.OAUTH:
            return Result(Outcome.GONE)
        now = clock()
        if force:
            # A token that somebody else gets meanwhile is new enough.
            refused = refused or account.access_token
        if answer := _answer_from(account, margin, refused, now, force=force):
            return answer
        if is_old_token_good and account.is_refresh_doubtful and _lives(account, now):
            # Not even by force: another use could end a sign-in that still serves.
            return Result(Outcome.POSTPONED, _doubt(account))
        if _take_lease(account, owner, now):
            try:
                # Whoever held the lease before may have changed everything.
                account = Account.objects.get(pk=account_id)
                answer = _answer_from(account, margin, refused, now, force=force)
                answer = answer or _refresh(account, owner, clock, send)
            except Account.DoesNotExist:
                return Result(Outcome.GONE)
            finally:
                _release_lease(account_id, owner)
            if answer:
                return answer
        elif not is_patient or (is_old_token_good and _takes_long(account, now)):
            return Result(Outcome.UNDER_WAY)
        else:
            sleep(_POLL_SECONDS)
        # Only the first of all who wait for one refresh should force it.
        force = False
        refused = refused or account.access_token


def _answer_from(
    account: Account,
    margin: timedelta,
    refused: Secret | None,
    now: datetime,
    *,
    force: bool,
) -> Result | None:
    if account.status == AccountStatus.INVALID:
        return Result(Outcome.INVALID, account.status_reason)
    if refused is not None:
        is_fresh = account.access_token != refused and _lives(account, now)
    else:
        is_fresh = _lives(account, now + margin)
    if is_fresh:
        return Result(Outcome.STILL_FRESH)
    if account.refresh_token is None and not _has_ended(account, now):
        return Result(Outcome.FAILED, "the account has no refresh token")
    if account.refresh_retry_at and now < account.refresh_retry_at and not force:
        return Result(Outcome.POSTPONED, account.last_refresh_error)
    return None


def _refresh(account: Account, owner: str, clock: Clock, send: Send) -> Result | None:
    """Do the refresh; None if a sign-in or another process came in between.

    The caller, *owner*, holds the lease and has just read the row.
    """
    refresh_token = account.refresh_token
    if refresh_token is None:
        return _invalidate(account, _ENDED, clock())
    digest = digest_of(refresh_token)
    if digest == account.refused_refresh_digest:
        return _invalidate(account, account.last_refresh_error, clock())
    if digest == account.sent_refresh_digest:
        return _give_up_interrupted(account, digest, clock())
    # Rule 3. From here on a crash must not lead to a second use. Bound to the lease:
    # whoever was held up for longer than it lasts may not send what is no longer his.
    mine = Account.objects.filter(pk=account.pk, refresh_lease=owner)
    if not mine.update(sent_refresh_digest=digest):
        return None
    try:
        tokens = send(refresh_token)
    except TokenRefusedError as error:
        reason = str(error)
        return _insist(lambda: _note_refusal(account, digest, reason, clock()))
    except NoTokenReplyError as error:
        trouble = error
        return _insist(lambda: _note_trouble(account, digest, trouble, clock()))
    return _insist(lambda: _store(account, digest, tokens, clock()))


# What follows a token request is bound to what was sent and not to the lease, which may
# have run out: it is the only news there is. A sign-in meanwhile wins.


def _store(
    account: Account, digest: str, tokens: TokenSet, now: datetime
) -> Result | None:
    with transaction.atomic():
        rows = Account.objects.filter(pk=account.pk, sent_refresh_digest=digest).update(
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token or account.refresh_token,
            expires_at=tokens.expires_at,
            last_refresh_at=now,
            last_refresh_error="",
            refresh_failures=0,
            refresh_retry_at=None,
            is_refresh_doubtful=False,
            sent_refresh_digest="",
            updated_at=now,
        )
        if not rows:
            return None
        given_up = Account.objects.filter(
            pk=account.pk, status=AccountStatus.INVALID, status_reason=_INTERRUPTED
        )
        for it in given_up:
            reason = "the refresh came to its end after all"
            lifecycle.activate(it, actor=_ACTOR, reason=reason, now=now)
    _log.info("token_refreshed", account_id=account.pk)
    return Result(Outcome.REFRESHED)


def _note_refusal(
    account: Account, digest: str, reason: str, now: datetime
) -> Result | None:
    with transaction.atomic():
        rows = Account.objects.filter(pk=account.pk, sent_refresh_digest=digest).update(
            refused_refresh_digest=digest, sent_refresh_digest=""
        )
        return _invalidate(account, reason, now) if rows else None


def _note_trouble(
    account: Account, digest: str, error: NoTokenReplyError, now: datetime
) -> Result | None:
    failures = account.refresh_failures + 1
    retry_at = now + delay_after(failures)
    is_doubtful = error.was_processed is None
    if is_doubtful and account.expires_at is not None:
        # The refresh token may be used up. Another use could end the sign-in, so the
        # access token is used to its end first.
        retry_at = max(retry_at, account.expires_at)
    rows = Account.objects.filter(pk=account.pk, sent_refresh_digest=digest).update(
        sent_refresh_digest="",
        last_refresh_error=str(error)[:300],
        refresh_failures=failures,
        refresh_retry_at=retry_at,
        is_refresh_doubtful=is_doubtful,
    )
    if not rows:
        return None
    _log.warning("token_refresh_failed", account_id=account.pk, reason=str(error))
    return Result(Outcome.FAILED, str(error))


def _give_up_interrupted(account: Account, digest: str, now: datetime) -> Result | None:
    # The mark stays: who set it may only have been held up, and bring the answer yet.
    with transaction.atomic():
        rows = Account.objects.filter(pk=account.pk, sent_refresh_digest=digest).update(
            last_refresh_error=_INTERRUPTED, refresh_retry_at=account.expires_at
        )
        if not rows:
            return None
        if _has_ended(account, now):
            return _invalidate(account, _INTERRUPTED, now)
    return Result(Outcome.FAILED, _INTERRUPTED)


def _invalidate(account: Account, reason: str, now: datetime) -> Result:
    Account.objects.filter(pk=account.pk).update(last_refresh_error=reason[:300])
    account.refresh_from_db(fields=["status"])
    # An account that an admin switched off stays as it is.
    if account.status in {AccountStatus.ACTIVE, AccountStatus.RATE_LIMITED}:
        lifecycle.invalidate(account, actor=_ACTOR, reason=reason, now=now)
    _log.warning("token_refresh_refused", account_id=account.pk, reason=reason)
    return Result(Outcome.INVALID, reason)


def _insist(write: Callable[[], T]) -> T:
    """Write to the database, again if it is away for a moment."""
    for seconds in _WRITE_PAUSES_SECONDS:
        try:
            return write()
        except (OperationalError, InterfaceError) as error:
            _log.warning("token_not_written", error=type(error).__name__)
            close_old_connections()
            sleep(seconds)
    return write()


def _doubt(account: Account) -> str:
    return (
        "its refresh token may have been used already "
        f"({account.last_refresh_error}); it is tried again when the access token ends"
    )


def _lives(account: Account, at: datetime) -> bool:
    return account.expires_at is not None and account.expires_at > at


def _has_ended(account: Account, now: datetime) -> bool:
    return account.expires_at is not None and account.expires_at <= now


def _takes_long(account: Account, now: datetime) -> bool:
    """Has somebody been at it for long, while the old token is as good as ever?"""
    until = account.refresh_lease_until
    is_long = until is not None and now > until - _LEASE + _PATIENCE
    return is_long and not _has_ended(account, now)


def _take_lease(account: Account, owner: str, now: datetime) -> bool:
    if account.refresh_lease_until is not None and account.refresh_lease_until >= now:
        return False  # as has just been read: those who wait do not write
    is_free = Q(refresh_lease_until__isnull=True) | Q(refresh_lease_until__lt=now)
    rows = Account.objects.filter(is_free, pk=account.pk)
    return rows.update(refresh_lease=owner, refresh_lease_until=now + _LEASE) == 1


def _release_lease(account_id: int, owner: str) -> None:
    Account.objects.filter(pk=account_id, refresh_lease=owner).update(
        refresh_lease="", refresh_lease_until=None
    )


def delay_after(failures: int) -> timedelta:
    """How long to wait after so many failed refreshes in a row."""
    return min(_LONGEST_DELAY, _FIRST_DELAY * (1 << min(failures - 1, 10)))


def digest_of(token: Secret) -> str:
    """A digest by which a token is recognised, and from which none is recovered."""
    return hashlib.sha256(token.reveal().encode()).hexdigest()
