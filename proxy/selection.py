"""Which account serves a request: a pure function of pool, request and cursor.

Eligible accounts are ranked in tiers; inside the best tier that has any, accounts take
turns. A conversation stays with the account that served it last, while that account is
eligible, whatever its tier: prompt caches and thinking blocks belong to an account.
Every decision carries its reasons.
"""

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Literal

from accounts.pool import REFRESH_MARGIN, PooledAccount
from accounts.status import AccountStatus

# For so long after a rate limit ended, accounts that had none are preferred.
RECOVERY_PERIOD = timedelta(minutes=5)

_IN_USE = frozenset({AccountStatus.ACTIVE, AccountStatus.RATE_LIMITED})


class Tier(IntEnum):
    """How good a choice an eligible account is; lower is better."""

    FRESH = 1
    NEEDS_REFRESH = 2
    JUST_RECOVERED = 3


@dataclass(frozen=True, slots=True)
class Exclusion:
    """An account that may not serve this request, and why."""

    account_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The account chosen, if any, how, and what spoke against the others.

    `cursor` is to be handed in again with the next request.
    """

    account: PooledAccount | None
    how: Literal["affinity", "round_robin", "nobody"]
    tier: Tier | None
    cursor: int
    excluded: tuple[Exclusion, ...]


def choose(
    pool: Sequence[PooledAccount],
    *,
    cursor: int,
    now: datetime,
    preferred_id: int | None = None,
    model: str | None = None,
    already_tried: Collection[int] = (),
) -> Decision:
    """Choose the account for a request.

    *cursor* is the id of the account that was last given a turn (0: none yet). It is an
    id and no index, so turns stay fair while accounts come and go. *preferred_id* is
    the account that the conversation belongs to. *model* leaves out accounts that are
    known not to have it.
    """
    eligible: list[tuple[Tier, PooledAccount]] = []
    excluded: list[Exclusion] = []
    for account in pool:
        reason = _why_not(account, now) or _why_not_this(account, model, already_tried)
        if reason:
            excluded.append(Exclusion(account.name, reason))
            continue
        tier = tier_of(account, now)
        if account.id == preferred_id:
            return Decision(account, "affinity", tier, cursor, tuple(excluded))
        eligible.append((tier, account))
    if not eligible:
        return Decision(None, "nobody", None, cursor, tuple(excluded))
    best = min(tier for tier, _ in eligible)
    ring = sorted(
        (account for tier, account in eligible if tier == best),
        key=lambda account: account.id,
    )
    following = bisect_right([account.id for account in ring], cursor)
    chosen = ring[following % len(ring)]
    return Decision(chosen, "round_robin", best, chosen.id, tuple(excluded))


def is_eligible(account: PooledAccount, now: datetime) -> bool:
    """May the account serve requests at all?"""
    return _why_not(account, now) is None


def tier_of(account: PooledAccount, now: datetime) -> Tier:
    """Rank an eligible account."""
    ended = account.rate_limited_until or account.recovered_at
    if ended is not None and now - ended < RECOVERY_PERIOD:
        return Tier.JUST_RECOVERED
    if account.expires_at is not None and account.expires_at - now < REFRESH_MARGIN:
        return Tier.NEEDS_REFRESH
    return Tier.FRESH


def lacks_everywhere(pool: Sequence[PooledAccount], model: str) -> bool:
    """Is it known of every account in use that it has no such model?

    In use is what serves now or after a rate limit; who is off or refused says nothing.
    """
    in_use = [account for account in pool if account.status in _IN_USE]
    return bool(in_use) and all(_is_known_to_lack(a, model) for a in in_use)


def _why_not(account: PooledAccount, now: datetime) -> str | None:
    if account.status == AccountStatus.RATE_LIMITED:
        until = account.rate_limited_until
        # The recovery job only writes down what is true from this moment on.
        if until is None:
            return str(account.status.label)
        if until > now:
            return f"rate limited until {until:%Y-%m-%d %H:%M:%S} UTC"
    elif account.status != AccountStatus.ACTIVE:
        return str(account.status.label)
    if not account.is_readable:
        return "encrypted with a key that is not in ENCRYPTION_KEYS"
    if (
        account.expires_at is not None
        and account.expires_at <= now
        and account.refresh_retry_at is not None
        and account.refresh_retry_at > now
    ):
        return "waiting to refresh its token"
    return None


def _why_not_this(
    account: PooledAccount, model: str | None, already_tried: Collection[int]
) -> str | None:
    if account.id in already_tried:
        return "already tried for this request"
    if _is_known_to_lack(account, model):
        return "without this model"
    return None


def _is_known_to_lack(account: PooledAccount, model: str | None) -> bool:
    return (
        model is not None and account.models is not None and model not in account.models
    )
