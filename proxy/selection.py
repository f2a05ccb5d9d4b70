"""Which account serves a request: a pure function of pool, request and cursor.

Eligible accounts are ranked in tiers; inside the best tier that has any, accounts take
turns. A conversation stays with the account that served it last, while that account is
eligible, whatever its tier: prompt caches and thinking blocks belong to an account.
Every decision carries its reasons.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Literal

from accounts.pool import REFRESH_MARGIN, PooledAccount
from accounts.status import AccountStatus
from proxy.benches import Benches
from proxy.errors import LACKS_MODEL, UNREADABLE, Exclusion

# For so long after a rate limit ended, accounts that had none are preferred.
RECOVERY_PERIOD = timedelta(minutes=5)

_IN_USE = frozenset({AccountStatus.ACTIVE, AccountStatus.RATE_LIMITED})


class Tier(IntEnum):
    """How good a choice an eligible account is; lower is better."""

    FRESH = 1
    NEEDS_REFRESH = 2
    JUST_RECOVERED = 3


@dataclass(frozen=True, slots=True)
class Decision:
    """The account chosen, if any, how, and what spoke against the others.

    `cursor` is to be handed in again with the next request.
    """

    account: PooledAccount | None
    how: Literal["affinity", "round_robin", "owner", "home", "nobody"]
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
    benches: Benches | None = None,
) -> Decision:
    """Choose the account for a request.

    *cursor* is the id of the account that was last given a turn (0: none yet). It is an
    id and no index, so turns stay fair while accounts come and go. *preferred_id* is
    the account that the conversation belongs to. *model* leaves out accounts that are
    known not to have it. *benches* is what the worker knows beyond statuses.
    """
    eligible: list[tuple[Tier, PooledAccount]] = []
    excluded: list[Exclusion] = []
    for account in pool:
        exclusion = _status_says_no(account, now)
        if exclusion is None and benches is not None:
            exclusion = benches.why_not(account, model, now)
        if exclusion is None:
            exclusion = _request_says_no(account, model, already_tried)
        if exclusion is not None:
            excluded.append(exclusion)
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


def choose_home(
    pool: Sequence[PooledAccount],
    *,
    key_id: int,
    cursor: int,
    now: datetime,
    already_tried: Collection[int] = (),
    benches: Benches | None = None,
) -> Decision:
    """Choose the account for what the caller of *key_id* makes: always the same one.

    Accounts rank by a digest of key and account, so all workers agree without talking,
    keys spread evenly, and an account that goes moves only the keys that it had.
    """
    eligible: list[PooledAccount] = []
    excluded: list[Exclusion] = []
    for account in pool:
        exclusion = _status_says_no(account, now)
        if exclusion is None and benches is not None:
            exclusion = benches.why_not(account, None, now)
        if exclusion is None:
            exclusion = _request_says_no(account, None, already_tried)
        if exclusion is None:
            eligible.append(account)
        else:
            excluded.append(exclusion)
    if not eligible:
        return Decision(None, "nobody", None, cursor, tuple(excluded))
    home = max(eligible, key=lambda account: _home_rank(key_id, account.id))
    return Decision(home, "home", tier_of(home, now), cursor, tuple(excluded))


def choose_owner(
    pool: Sequence[PooledAccount],
    owner_id: int,
    *,
    cursor: int,
    now: datetime,
    model: str | None = None,
    already_tried: Collection[int] = (),
    benches: Benches | None = None,
    has_own_limits: bool = False,
) -> Decision:
    """Choose the one account that has what the request is about, if it may serve.

    *has_own_limits* says that limits of messages do not count; nor does trouble that
    others lack, since no other can help.
    """
    account = next((account for account in pool if account.id == owner_id), None)
    if account is None:
        return Decision(None, "nobody", None, cursor, ())
    exclusion = _status_says_no(account, now, has_own_limits=has_own_limits)
    if exclusion is None and benches is not None and not has_own_limits:
        exclusion = benches.why_not(account, model, now)
    if exclusion is None:
        exclusion = _request_says_no(account, model, already_tried)
    if exclusion is not None:
        return Decision(None, "nobody", None, cursor, (exclusion,))
    return Decision(account, "owner", tier_of(account, now), cursor, ())


def _home_rank(key_id: int, account_id: int) -> bytes:
    return hashlib.blake2b(b"%d:%d" % (key_id, account_id), digest_size=8).digest()


def is_eligible(account: PooledAccount, now: datetime) -> bool:
    """May the account serve requests at all?"""
    return _status_says_no(account, now) is None


def tier_of(account: PooledAccount, now: datetime) -> Tier:
    """Rank an eligible account."""
    ended = account.rate_limited_until or account.recovered_at
    if ended is not None and now - ended < RECOVERY_PERIOD:
        return Tier.JUST_RECOVERED
    if account.expires_at is not None and account.expires_at - now < REFRESH_MARGIN:
        return Tier.NEEDS_REFRESH
    return Tier.FRESH


def in_use(pool: Sequence[PooledAccount]) -> list[PooledAccount]:
    """Accounts that serve now or after a rate limit; others are off, or refused."""
    return [account for account in pool if account.status in _IN_USE]


def lacks_everywhere(pool: Sequence[PooledAccount], model: str) -> bool:
    """Is it known of every account in use that it has no such model?"""
    accounts = in_use(pool)
    return bool(accounts) and all(_is_known_to_lack(a, model) for a in accounts)


def _status_says_no(
    account: PooledAccount, now: datetime, *, has_own_limits: bool = False
) -> Exclusion | None:
    if account.status == AccountStatus.RATE_LIMITED:
        until = account.rate_limited_until
        # The recovery job only writes down what is true from this moment on.
        if not has_own_limits and (until is None or until > now):
            return Exclusion(account.name, "rate limited", until)
    elif account.status != AccountStatus.ACTIVE:
        reason = str(account.status.label)
        return Exclusion(account.name, reason, is_in_use=False)
    if not account.is_readable:
        return Exclusion(account.name, UNREADABLE)
    if (
        account.expires_at is not None
        and account.expires_at <= now
        and account.refresh_retry_at is not None
        and account.refresh_retry_at > now
    ):
        return Exclusion(account.name, "waiting to refresh its token")
    return None


def _request_says_no(
    account: PooledAccount, model: str | None, already_tried: Collection[int]
) -> Exclusion | None:
    if account.id in already_tried:
        return Exclusion(account.name, "already tried for this request")
    if model is not None and _is_known_to_lack(account, model):
        return Exclusion(account.name, LACKS_MODEL, is_in_use=False)
    return None


def _is_known_to_lack(account: PooledAccount, model: str | None) -> bool:
    return (
        model is not None and account.models is not None and model not in account.models
    )
