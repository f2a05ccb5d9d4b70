"""What an answer's headers say of an account's limits: pure readers.

Subscriptions have windows of time (`anthropic-ratelimit-unified-…`), API keys have
buckets that fill up again (`anthropic-ratelimit-requests-…` and the like). Windows with
names of later days are read like those of today, and what cannot be read says nothing.
Sources: Claude API documentation, "Rate limits"; the unified headers as clients read
them.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

UNIFIED = b"anthropic-ratelimit-unified-"
_BUCKETS = b"anthropic-ratelimit-"
# Buckets of a priority tier and of fast mode; that is part of their names.
_SPECIAL = (b"anthropic-priority-", b"anthropic-fast-")
_PREFIXES = (_BUCKETS, *_SPECIAL)
_FACTS_OF_A_WINDOW = frozenset({"utilization", "reset", "status"})
_FACTS_OF_A_BUCKET = frozenset({"limit", "remaining", "reset"})

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,38}[a-z0-9])?")
_STATUS = re.compile(r"[a-z_]{1,30}")
_COUNT = re.compile(rb"[0-9]{1,15}")
# `fromisoformat` takes much else, and times without a zone.
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:[Zz]|[+-]\d\d:\d\d)",
    re.ASCII,
)
# Models are named by callers: what is no plain text cannot be stored everywhere.
_GROUP = re.compile(r"[ -~]{0,200}")
# More windows than that no answer has.
_MOST = 24
# A share above that is no share: more than the whole is possible, so much is not.
_HIGHEST = 10.0
# A reset further off is no reset; clocks may differ by an hour.
_LONGEST = timedelta(days=400)
_SKEW = timedelta(hours=1)
# Claims have words where windows have short names.
_WORDS_OF_CLAIMS = (
    ("five_hour", "5h"),
    ("seven_day", "7d"),
    ("_overage_included", "_oi"),
)
_OVERAGE = "overage"

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Window:
    """One limit as an answer shows it; what is None or empty is not known.

    *model_group* says whose limit it is where models have limits of their own.
    Units: *utilization* is the part that is used; it may pass 1.
    """

    name: str
    model_group: str = ""
    utilization: float | None = None
    limit: int | None = None
    remaining: int | None = None
    resets_at: datetime | None = None
    status: str = ""


def is_told(headers: Headers) -> bool:
    """Does the answer say anything of limits? Names are in lower case."""
    # A loop, as it is done for every answer: `any` is slower.
    for name, _ in headers:  # noqa: SIM110
        if name.startswith(_PREFIXES):
            return True
    return False


def read(
    headers: Headers, now: datetime, *, model_group: str | None = ""
) -> tuple[Window, ...]:
    """Return the limits that an answer shows, of *model_group* if it has its own.

    A group of None says that the buckets of this answer are of its path alone; they
    are left out.
    """
    windows: dict[str, dict[str, bytes]] = {}
    buckets: dict[str, dict[str, bytes]] = {}
    whole: dict[str, bytes] = {}
    for raw_name, value in headers:
        if not raw_name.startswith(_PREFIXES):
            continue
        name = raw_name.decode("latin-1")
        if raw_name.startswith(UNIFIED):
            rest = name[len(UNIFIED) :]
            whole.setdefault(rest, value)
            _sort_in(windows, rest, _FACTS_OF_A_WINDOW, value)
        elif model_group is not None and _GROUP.fullmatch(model_group):
            is_special = raw_name.startswith(_SPECIAL)
            rest = name.removeprefix("anthropic-" if is_special else _BUCKETS.decode())
            _sort_in(buckets, rest, _FACTS_OF_A_BUCKET, value)
    _add_claim(windows, whole)
    found = (*_buckets(buckets, model_group or "", now), *_windows(windows, now))
    by_name = {(window.name, window.model_group): window for window in found}
    return tuple(islice(by_name.values(), _MOST))


def _sort_in(
    found: dict[str, dict[str, bytes]], rest: str, facts: frozenset[str], value: bytes
) -> None:
    """Put `5h-reset` under `5h`; of a header that comes twice the first counts."""
    name, _, fact = rest.rpartition("-")
    if fact in facts and _NAME.fullmatch(name):
        found.setdefault(name, {}).setdefault(fact, value)


def _add_claim(
    windows: dict[str, dict[str, bytes]], whole: Mapping[str, bytes]
) -> None:
    """Add the limit that matters most, of which headers of its own may tell less."""
    facts = {fact: whole[fact] for fact in ("status", "reset") if fact in whole}
    claim = whole.get("representative-claim", b"").decode("latin-1")
    for word, short in _WORDS_OF_CLAIMS:
        claim = claim.replace(word, short)
    if not _NAME.fullmatch(claim):
        if windows:
            return  # nobody can tell which of them is meant
        claim = "plan"
    if facts:
        windows[claim] = facts | windows.get(claim, {})


def _windows(
    found: Mapping[str, Mapping[str, bytes]], now: datetime
) -> Iterator[Window]:
    for name, facts in found.items():
        window = Window(
            name,
            utilization=_share(facts.get("utilization")),
            resets_at=_reset(unix_time(facts.get("reset")), now),
            status=_status(facts.get("status")),
        )
        is_known = window.utilization is not None or window.resets_at is not None
        # Whether paid usage is allowed is worth knowing by itself.
        if is_known or (name == _OVERAGE and window.status):
            yield window


def _buckets(
    found: Mapping[str, Mapping[str, bytes]], model_group: str, now: datetime
) -> Iterator[Window]:
    for name, facts in found.items():
        limit, remaining = _count(facts.get("limit")), _count(facts.get("remaining"))
        # A limit of 0: the account does not have this at all.
        if limit and remaining is not None:
            yield Window(
                name,
                model_group,
                # What is left is rounded, and may come out above the limit.
                utilization=max(0.0, 1 - remaining / limit),
                limit=limit,
                remaining=remaining,
                resets_at=_reset(_rfc3339(facts.get("reset")), now),
            )


def unix_time(raw: bytes | None) -> datetime | None:
    """Read Unix seconds; None if they are missing, no number, or no time."""
    try:
        return datetime.fromtimestamp(float(raw or b""), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _rfc3339(raw: bytes | None) -> datetime | None:
    text = (raw or b"").decode("latin-1").strip()
    if not _RFC3339.fullmatch(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _reset(at: datetime | None, now: datetime) -> datetime | None:
    return at if at and now - _SKEW <= at <= now + _LONGEST else None


def _share(raw: bytes | None) -> float | None:
    try:
        share = float(raw or b"")
    except ValueError:
        return None
    return share if math.isfinite(share) and 0 <= share <= _HIGHEST else None


def _count(raw: bytes | None) -> int | None:
    raw = (raw or b"").strip()
    return int(raw) if _COUNT.fullmatch(raw) else None


def _status(raw: bytes | None) -> str:
    status = (raw or b"").decode("latin-1").strip().lower()
    return status if _STATUS.fullmatch(status) else ""
