"""What of an account's limits still counts, and in which words it is shown; pure.

A figure counts until its limit resets: what is used of the next span nobody has seen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from claudeproxy import figures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from accounts.models import QuotaWindow

# A figure whose reset is not known counts this long, and a row is shown this long.
_COUNTS = timedelta(days=1)
_SHOWN = timedelta(days=32)
# What was seen longer ago than this says when.
_RECENTLY = timedelta(minutes=10)
_CLOSE = 0.75

_NBSP = "\N{NO-BREAK SPACE}"
_SPAN = re.compile(r"(\d{1,4})([mhd])(?:_(\w+))?", re.ASCII)
_MINUTES = {"m": 1, "h": 60, "d": 24 * 60}
_OVERAGE, _PLAN = "overage", "plan"
_LABELS = {"oi": "overage included", _OVERAGE: "paid usage"}
_BUCKETS = ("requests", "tokens", "input-tokens", "output-tokens")
_STATUS_WORDS = {"allowed_warning": "close to its limit", "rejected": "spent"}


@dataclass(frozen=True)
class Quota:
    """A limit with the figures that still count; what is None or empty is not known."""

    name: str
    model_group: str
    utilization: float | None
    limit: int | None
    remaining: int | None
    resets_at: datetime | None
    status: str
    is_over: bool  # it was reset since; or not seen for a day, if nobody knows when
    seen_at: datetime

    @property
    def is_bucket(self) -> bool:
        """Does it fill up again all the time, as limits of API keys do?"""
        return self.limit is not None

    @property
    def is_of_plan(self) -> bool:
        """Is it a span of a plan's, such as its five hours, or the whole of it?

        The whole is told only where no span is: once it is over it says nothing more.
        """
        return bool(_SPAN.fullmatch(self.name)) or (
            self.name == _PLAN and not self.is_over
        )


@dataclass(frozen=True)
class Reading:
    """A limit as a page prints it; *width* is that of its meter, from 0 to 100."""

    quota: Quota
    label: str
    percent: str
    width: int
    left: str  # "988 of 1,000", for buckets
    over: str  # instead of figures that count no more
    status: str
    condition: str  # "", "close" or "spent": how the meter looks
    is_old: bool


def quotas(rows: Iterable[QuotaWindow], now: datetime) -> list[Quota]:
    """Return all that was seen lately: plans first, the shortest span at the top."""
    recent = (row for row in rows if now - row.seen_at < _SHOWN)
    return sorted((_quota(row, now) for row in recent), key=_rank)


def readings(rows: Iterable[QuotaWindow], now: datetime) -> tuple[Reading, ...]:
    """Return the same for the page of an account."""
    return tuple(_reading(quota, now) for quota in quotas(rows, now))


def brief(rows: Iterable[QuotaWindow], now: datetime) -> tuple[Reading, ...]:
    """Return what a list of accounts has room for.

    Of a plan its spans, and paid usage if there is some; of an API key the bucket with
    the least left in it.
    """
    known = quotas(rows, now)
    buckets = [it for it in known if it.is_bucket]
    shown = [
        it for it in known if not it.is_bucket and (it.is_of_plan or it.utilization)
    ]
    if buckets:
        # What counts still goes first; of equals, the first.
        shown.append(max(buckets, key=lambda it: (not it.is_over, it.utilization or 0)))
    return tuple(_reading(quota, now) for quota in shown)


def _quota(row: QuotaWindow, now: datetime) -> Quota:
    is_over = now >= (row.resets_at or row.seen_at + _COUNTS)
    return Quota(
        name=row.name,
        model_group=row.model_group,
        utilization=None if is_over else row.utilization,
        limit=row.limit,
        remaining=None if is_over else row.remaining,
        resets_at=row.resets_at,
        status="" if is_over else row.status,
        is_over=is_over,
        seen_at=row.seen_at,
    )


def _rank(quota: Quota) -> tuple[int, int, str, str]:
    if span := _SPAN.fullmatch(quota.name):
        return 0, int(span[1]) * _MINUTES[span[2]], quota.name, ""
    if not quota.is_bucket:
        return 1, 0, quota.name, ""
    is_known = quota.name in _BUCKETS
    place = _BUCKETS.index(quota.name) if is_known else len(_BUCKETS)
    return 2, place, quota.name, quota.model_group


def _reading(quota: Quota, now: datetime) -> Reading:
    used = quota.utilization
    left = ""
    if quota.limit is not None and quota.remaining is not None:
        left = f"{quota.remaining:,} of {quota.limit:,}"
    return Reading(
        quota=quota,
        label=_label(quota.name),
        percent="" if used is None else _percent(used),
        width=0 if used is None else min(100, round(used * 100)),
        left=left,
        over=_over(quota),
        status=_status(quota),
        condition=_condition(quota),
        is_old=now - quota.seen_at >= _RECENTLY,
    )


def _over(quota: Quota) -> str:
    if not quota.is_over:
        return ""
    if quota.resets_at is None:
        return "not seen lately"
    return "refilled since" if quota.is_bucket else "reset, not seen since"


def _label(name: str) -> str:
    if span := _SPAN.fullmatch(name):
        words = f"{span[1]}{_NBSP}{span[2].replace('m', 'min')}"
        part = span[3] and _LABELS.get(span[3], span[3].replace("_", " ").capitalize())
        return f"{words}, {part}" if part else words
    return _LABELS.get(name, re.sub("[_-]+", " ", name))


def _is_refused(quota: Quota) -> bool:
    """Is it paid usage that the account is not allowed? Nothing of it need be used."""
    return quota.name == _OVERAGE and quota.status == "rejected"


def _status(quota: Quota) -> str:
    if _is_refused(quota):
        return "not allowed"
    return _STATUS_WORDS.get(quota.status, quota.status.replace("_", " "))


def _percent(used: float) -> str:
    whole = round(used * 100)
    if whole == 0 and used > 0:
        return f"under {figures.compact(1, figures.PERCENT)}"
    # Nearly all is not all.
    return figures.compact(99 if whole == 100 and used < 1 else whole, figures.PERCENT)


def _condition(quota: Quota) -> str:
    used = quota.utilization or 0
    if used >= 1 or (quota.status == "rejected" and not _is_refused(quota)):
        return "spent"
    is_close = used >= _CLOSE or quota.status == "allowed_warning"
    return "close" if is_close else ""
