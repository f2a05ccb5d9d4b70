"""Makes the row of a request from what the journal says of it; pure.

It is made of what JSON knows, so that a whole batch can be one parameter of one
statement: see `store`.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from usage import histogram
from usage.entries import Attempt, Begun, Finished
from usage.outcome import EndReason, Outcome, outcome_of
from usage.prices import Cost, PriceTable, to_nano
from usage.tokens import Tokens, Usage

# The id that stands for "no account" and "no key".
NOBODY = 0

_PLAN = "oauth"  # accounts of this kind pay no price per token
_LARGEST = 2**53
_NOTHING = Usage(Tokens())
_ATTEMPTS = msgspec.json.Encoder()


class Row(msgspec.Struct, array_like=True, kw_only=True):
    """A row of the table of requests: one field for each of its columns."""

    request_id: str
    started_at: str
    hour: str
    endpoint: str
    is_stream: bool
    key_id: int
    key_name: str
    account_id: int = NOBODY
    account_name: str = ""
    account_kind: str = ""
    organization_uuid: str = ""
    session_digest: str
    routing: str = ""
    model_asked: str
    model: str = ""
    status: int = 0
    end_reason: str
    outcome: str
    stop_reason: str = ""
    attempts: str = "[]"
    failed_attempts: int = 0
    first_byte_ms: int | None = None
    first_byte_bucket: int | None = None
    duration_ms: int | None = None
    duration_bucket: int | None = None
    request_bytes: int
    answer_bytes: int = 0
    input_tokens: int = 0
    write_5m_tokens: int = 0
    write_1h_tokens: int = 0
    read_tokens: int = 0
    output_tokens: int = 0
    web_searches: int = 0
    web_fetches: int = 0
    service_tier: str = ""
    speed: str = ""
    inference_geo: str = ""
    is_incomplete: bool = False
    cost: int | None = None
    price_date: str | None = None
    is_notional: bool = False
    is_unpriced: bool = False


def of_finished(entry: Finished, prices: PriceTable) -> Row:
    """The row of a request that is over.

    Errors: ValueError for an end that is not known.
    """
    outcome = _outcome(entry.end_reason, entry.status)
    model = entry.model_answered
    if not model and entry.account_id is not None and outcome is not Outcome.REFUSED:
        # What nobody could serve may be any word, and its sums are kept for ever.
        model = entry.model_asked
    usage = entry.usage or _NOTHING
    tokens = usage.tokens
    cost = None
    if entry.usage is not None:
        cost = prices.cost(usage, model, entry.started_at.date())
    duration = _number(entry.duration_ms)
    first_byte = None if entry.first_byte_ms is None else _number(entry.first_byte_ms)
    return Row(
        **_beginning(entry),
        account_id=entry.account_id or NOBODY,
        account_name=_text(entry.account_name, 100),
        account_kind=_text(entry.account_kind, 10),
        organization_uuid=_text(entry.organization_uuid, 200),
        routing=_text(entry.routing, 20),
        model=_text(model, 200),
        status=entry.status,
        end_reason=entry.end_reason,
        outcome=outcome.value,
        stop_reason=_text(entry.stop_reason, 200),
        attempts=_attempts(entry.attempts) if entry.attempts else "[]",
        failed_attempts=len(entry.attempts),
        first_byte_ms=first_byte,
        first_byte_bucket=None if first_byte is None else _bucket(first_byte),
        duration_ms=duration,
        duration_bucket=_bucket(duration),
        answer_bytes=_number(entry.answer_bytes),
        input_tokens=tokens.input,
        write_5m_tokens=tokens.write_5m,
        write_1h_tokens=tokens.write_1h,
        read_tokens=tokens.read,
        output_tokens=tokens.output,
        web_searches=usage.web_searches,
        web_fetches=usage.web_fetches,
        service_tier=_text(usage.service_tier, 200),
        speed=_text(usage.speed, 200),
        inference_geo=_text(usage.inference_geo, 200),
        is_incomplete=entry.is_incomplete,
        cost=None if cost is None else to_nano(cost.dollars),
        price_date=None if cost is None else cost.price_date.isoformat(),
        is_notional=cost is not None and entry.account_kind == _PLAN,
        is_unpriced=_is_unpriced(usage, tokens, cost),
    )


def of_crashed(entry: Begun) -> Row:
    """The row of a request that had only begun when its worker died."""
    return Row(
        **_beginning(entry),
        end_reason=EndReason.CRASHED.value,
        outcome=Outcome.FAILED.value,
        is_incomplete=True,
    )


def _beginning(entry: Begun) -> dict[str, Any]:
    started = entry.started_at
    if started.tzinfo is not None:
        started = started.astimezone(UTC).replace(tzinfo=None)
    started_at = timestamp(started)
    return {
        "request_id": _text(entry.request_id, 64),
        "started_at": started_at,
        "hour": f"{started_at[:13]}:00:00",
        "endpoint": _text(entry.endpoint, 200),
        "is_stream": entry.is_stream,
        "key_id": entry.key_id or NOBODY,
        "key_name": _text(entry.key_name, 100),
        "session_digest": _text(entry.session_digest, 64),
        "model_asked": _text(entry.model_asked, 200),
        "request_bytes": _number(entry.request_bytes),
    }


@lru_cache(maxsize=256)
def _outcome(end_reason: str, status: int) -> Outcome:
    return outcome_of(EndReason(end_reason), status)


def timestamp(at: datetime) -> str:
    """Write a time in UTC as Django does on SQLite; PostgreSQL reads it as well."""
    return at.isoformat(" ")


def _is_unpriced(usage: Usage, tokens: Tokens, cost: Cost | None) -> bool:
    if cost is not None:
        return False
    return usage.is_unreadable or bool(
        tokens.prompt or tokens.output or usage.web_searches
    )


def _attempts(attempts: tuple[Attempt, ...]) -> str:
    shown = _ATTEMPTS.encode(attempts).decode()
    # As JSON writes it; PostgreSQL can keep it no more than the character itself.
    return shown.replace("\\u0000", "\\ufffd")


def _bucket(milliseconds: int) -> int:
    return histogram.bucket_of(milliseconds)


def _text(text: str | None, length: int) -> str:
    if not text:
        return ""
    # PostgreSQL cannot hold that character.
    return text.replace("\x00", "\ufffd")[:length]


def _number(value: float) -> int:
    """A count or span that is none below zero, and fits its column."""
    return round(min(max(0, value), _LARGEST))
