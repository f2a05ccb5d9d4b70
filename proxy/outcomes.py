"""Whose fault was it? A pure judgement of what came of one attempt.

Every failure is charged to exactly one party, and the account is touched only where it
is that party: a request that is itself bad must never cost the pool an account.
Sources: Anthropic API reference, "Errors" and "Rate limits"; the unified rate-limit
headers as clients read them.
"""

import enum
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import msgspec

from accounts.quota import UNIFIED, unix_time
from accounts.status import AccountKind
from proxy.errors import (
    MalformedReplyError,
    Stage,
    UpstreamError,
    UpstreamTimeoutError,
)
from proxy.headers import Headers, first
from proxy.model_groups import LINES


class Blame(enum.StrEnum):
    REQUEST = "request"
    MODEL = "model"
    ACCOUNT = "account"
    CREDENTIAL = "credential"
    UPSTREAM = "upstream"
    NETWORK = "network"


class Effect(enum.StrEnum):
    """What an outcome means for the account that was asked."""

    NOTHING = "nothing"
    LIMIT = "limit"  # rate_limited until a time, in the database
    COOL = "cool"  # set aside until a time, in memory
    COOL_GROUP = "cool group"  # the same, for models that share the asked one's limit
    COOL_LINE = "cool line"  # the same, for a line of models
    LACK_MODEL = "lack model"  # does not have this model, in memory
    REFUSE = "refuse"  # its credential was refused
    TROUBLE = "trouble"  # one more failure that counts if its siblings have none


class Step(enum.StrEnum):
    """What is sensible next; `retry` decides whether it is possible."""

    RELAY = "relay"
    HOP = "hop"  # another account, at once
    WAIT = "wait"  # after a pause, preferably another account


@dataclass(frozen=True, slots=True)
class Judgement:
    """Who is to blame, what follows for the account until when, and what next."""

    blame: Blame
    reason: str
    effect: Effect = Effect.NOTHING
    step: Step = Step.RELAY
    until: datetime | None = None
    line: str = ""  # of COOL_LINE
    retry_after: timedelta | None = None

    @property
    def is_burst(self) -> bool:
        """Is it over so soon that it may be waited for?"""
        return (
            self.blame is Blame.ACCOUNT
            and self.effect in {Effect.COOL, Effect.COOL_GROUP}
            and (self.retry_after or timedelta()) <= BURST
        )

    @property
    def for_all_models(self) -> "Judgement":
        """The same where no model was named: it is the account's as a whole."""
        if self.effect is not Effect.COOL_GROUP:
            return self
        effect = Effect.COOL if self.is_burst else Effect.LIMIT
        return replace(self, effect=effect)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with an error status, or an `error` event's equivalent."""

    status: int
    headers: Headers
    body: bytes = b""


# A limit that ends this soon is a burst: the account is not called rate limited for it.
BURST = timedelta(seconds=10)
# Buckets fill up continuously, within a minute from empty to full: what an API key has
# to wait for longer is none of them, so it is not of one group of models.
BUCKET = timedelta(seconds=60)
# Where nothing is said of when a short throttle ends.
THROTTLE = timedelta(seconds=30)
# Nothing that a header says puts an account out for longer.
LONGEST = timedelta(days=32)
# How long it is remembered that an account lacks a model.
LACK_PERIOD = timedelta(hours=1)

_SPENT_CODES = frozenset(
    {
        "enforced_spend_limit_reached",
        "contract_spend_limit_reached",
        "credit_balance_too_low",
    }
)
_RATE_LIMITED, _BURST, _THROTTLED = "rate limited", "burst", "throttled"
_GROUP_LIMITED = "rate limited for this model"
# Limits of rates, which paths may have of their own; plans and money are for all.
_OF_ONE_PATH = frozenset({_RATE_LIMITED, _GROUP_LIMITED, _BURST, _THROTTLED})
_RAMP_CODE = "ramp_limit_exceeded"
# What a request names and the upstream has not, or not any more: codes of 404.
_GONE_CODES = frozenset({"thread_not_found", "file_expired"})
_COMPACTION_CODE = "compaction_unavailable"
# Codes of 503 that say what an organization has to mend, with its keys or its papers.
_ORGANIZATION_CODE = re.compile(r"cmek_.*|registration_pending")
_MODEL = re.compile(r"model\b")
# Claims of the unified family that bind one line of models only.
_LINE_CLAIMS = {f"seven_day_{line}".encode(): line for line in LINES}
# Statuses that an `error` event's type stands for.
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


# Callers can have words of theirs repeated in an error, at worst the name of a field at
# its beginning; what is wrong with it then follows after a colon.
_OUT_OF_CREDIT = re.compile(r"your credit balance is too low[^:]*")
_WITHDRAWN = re.compile(
    r"(?:this |your |the )?"
    r"(?:(?:oauth |access |oauth access )token|api key|credential|account"
    r"|organization) "
    r"(?:has been|was|is) (?:revoked|disabled|suspended)[^:]*"
)


class _Error(msgspec.Struct):
    type: Any = None
    message: Any = None
    details: Any = None

    @property
    def said(self) -> str:
        return self.message.lower() if isinstance(self.message, str) else ""

    @property
    def code(self) -> str:
        code = self.details.get("error_code") if isinstance(self.details, dict) else ""
        return code if isinstance(code, str) else ""


class _Body(msgspec.Struct):
    error: _Error | None = None


_decoder = msgspec.json.Decoder(_Body)


def judge_error(error: UpstreamError, *, is_stream: bool) -> Judgement:
    """Judge an attempt that brought no answer, or one that broke off."""
    if isinstance(error, MalformedReplyError):
        # A redirect or worse: what answers here is not the API, for any account.
        return Judgement(Blame.UPSTREAM, "answer not understood")
    if isinstance(error, UpstreamTimeoutError) and error.stage is not Stage.NOT_SENT:
        # Time was given in full; more of the same would only take as long again. A
        # stream begins soon, but a whole answer takes as long as what was asked for.
        effect = Effect.TROUBLE if is_stream else Effect.NOTHING
        return Judgement(Blame.NETWORK, "timeout", effect, Step.RELAY)
    return Judgement(Blame.NETWORK, "network", Effect.TROUBLE, Step.HOP)


def judge_answer(
    answer: Answer,
    kind: AccountKind,
    *,
    now: datetime,
    limit_default: timedelta,
    has_own_limits: bool = False,
) -> Judgement:
    """Judge an answer with a status of 400 or more.

    *has_own_limits* says that a rate limit of this path is none of messages.
    """
    error = _read_error(answer.body)
    code, said = (error.code, error.said) if error else ("", "")
    if code == "organization_on_hold":
        return Judgement(
            Blame.CREDENTIAL, "organization on hold", Effect.REFUSE, Step.HOP
        )
    match answer.status:
        case 400:
            return _judge_400(code, said, now + limit_default)
        case 401:
            return _refused()
        case 402:
            return _spent("billing problem", now + limit_default)
        case 403:
            return _judge_403(error, said)
        case 404:
            return _judge_404(error, code, said, now)
        case 429:
            judgement = _judge_429(answer, kind, code, said, now, limit_default)
            if has_own_limits and judgement.reason in _OF_ONE_PATH:
                return replace(judgement, effect=Effect.NOTHING, until=None)
            return judgement
        case status if status >= 500:
            return _judge_5xx(answer, code, now)
    return Judgement(Blame.REQUEST, f"status {answer.status}")


def error_type_of(body: bytes) -> str | None:
    """Return the `error.type` of an envelope, if it is one."""
    error = _read_error(body)
    return error.type if error and isinstance(error.type, str) else None


def is_perhaps_executed(answer: Answer) -> bool:
    """Does an error leave open whether the request was executed all the same?

    The API says what it did not do. A time-out, or a server in between that has no
    answer of the API's, says only that nobody waited for it.
    """
    if answer.status == HTTPStatus.GATEWAY_TIMEOUT:
        return True
    is_api = error_type_of(answer.body) is not None
    return answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not is_api


def _judge_400(code: str, said: str, until: datetime) -> Judgement:
    if code in _SPENT_CODES or _OUT_OF_CREDIT.fullmatch(said):
        return _spent("credit or spend limit used up", until)
    if _WITHDRAWN.fullmatch(said):
        return _refused()
    if code.startswith("thread_"):
        return Judgement(Blame.REQUEST, "thread")
    if "data retention" in said:
        effect = Effect.NOTHING if ":" in said else Effect.LACK_MODEL
        return Judgement(Blame.MODEL, "data retention", effect, Step.HOP, until)
    if "only authorized for use with" in said:
        # Said of this account and this request together: another may do.
        return Judgement(Blame.MODEL, "credential bound to a client", step=Step.HOP)
    return Judgement(Blame.REQUEST, "status 400")


def _judge_403(error: _Error | None, said: str) -> Judgement:
    if error is None or error.type is None:
        # Not from the API: a filter or a proxy in between.
        return Judgement(
            Blame.NETWORK, "403 that is not the API's", Effect.NOTHING, Step.WAIT
        )
    if error.type == "authentication_error" or _WITHDRAWN.fullmatch(said):
        return _refused()
    return Judgement(Blame.MODEL, "not permitted", Effect.NOTHING, Step.HOP)


def _judge_404(error: _Error | None, code: str, said: str, now: datetime) -> Judgement:
    is_model = error is not None and error.type == "not_found_error"
    if is_model and code not in _GONE_CODES and _MODEL.match(said):
        return Judgement(
            *(Blame.MODEL, "model unknown to the account", Effect.LACK_MODEL),
            *(Step.HOP, now + LACK_PERIOD),
        )
    return Judgement(Blame.REQUEST, "status 404")


def _judge_429(
    answer: Answer,
    kind: AccountKind,
    code: str,
    said: str,
    now: datetime,
    limit_default: timedelta,
) -> Judgement:
    if code in _SPENT_CODES:
        return _spent("spend limit reached", now + limit_default)
    after = retry_after(answer.headers, now)
    unified = first(answer.headers, UNIFIED + b"status")
    if unified == b"rejected":
        return _judge_unified(answer.headers, after, now, limit_default)
    if "long context" in said or "extra usage" in said:
        return Judgement(Blame.REQUEST, "needs extra usage")
    if after is None and _is_page(answer.body):
        return Judgement(
            Blame.NETWORK, "429 that is not the API's", Effect.NOTHING, Step.WAIT
        )
    if after is None and kind == AccountKind.OAUTH:
        # Without the family's headers the plan is not spent: a short throttle.
        return _cool(_THROTTLED, now + THROTTLE)
    if code == _RAMP_CODE and (after is None or after <= BUCKET):
        # The organization asks for more than yesterday, with whatever model.
        return _cool(_THROTTLED, now + (after or THROTTLE), after)
    if after is not None and after <= BURST and kind == AccountKind.OAUTH:
        return _cool(_BURST, now + after, after)
    if after is not None and after <= BUCKET and kind == AccountKind.API_KEY:
        return Judgement(
            Blame.ACCOUNT,
            _BURST if after <= BURST else _GROUP_LIMITED,
            *(Effect.COOL_GROUP, Step.HOP, now + after),
            retry_after=after,
        )
    return Judgement(
        *(Blame.ACCOUNT, _RATE_LIMITED, Effect.LIMIT, Step.HOP),
        until=now + (limit_default if after is None else after),
        retry_after=after,
    )


def _judge_unified(
    headers: Headers, after: timedelta | None, now: datetime, limit_default: timedelta
) -> Judgement:
    overage = first(headers, UNIFIED + b"overage-status") or b""
    if overage.startswith(b"allowed"):
        # The plan is spent but paid usage goes on: this was a throttle.
        return _cool(_THROTTLED, now + (after or THROTTLE), after)
    until = _end(unix_time(first(headers, UNIFIED + b"reset")), now)
    until = until or now + (limit_default if after is None else after)
    claim = first(headers, UNIFIED + b"representative-claim") or b""
    if line := _LINE_CLAIMS.get(claim):
        return Judgement(
            *(Blame.ACCOUNT, f"{line} limit spent", Effect.COOL_LINE, Step.HOP),
            *(until, line),
        )
    return Judgement(Blame.ACCOUNT, "plan limit spent", Effect.LIMIT, Step.HOP, until)


def _judge_5xx(answer: Answer, code: str, now: datetime) -> Judgement:
    if answer.status == 503 and _ORGANIZATION_CODE.fullmatch(code):
        # Nobody else's organization has it, and time alone does not mend it.
        return Judgement(
            Blame.ACCOUNT, "organization not ready", Effect.TROUBLE, Step.HOP
        )
    reason = "overloaded" if answer.status == 529 else f"status {answer.status}"
    if first(answer.headers, b"x-should-retry") == b"false":
        return Judgement(Blame.UPSTREAM, reason)
    # A service beside the models is away: the account serves what does not ask for it.
    is_beside = code == _COMPACTION_CODE
    return Judgement(
        *(Blame.UPSTREAM, "compaction unavailable" if is_beside else reason),
        *(Effect.NOTHING if is_beside else Effect.TROUBLE, Step.WAIT),
        retry_after=retry_after(answer.headers, now),
    )


def _refused() -> Judgement:
    return Judgement(Blame.CREDENTIAL, "credential refused", Effect.REFUSE, Step.HOP)


def _spent(reason: str, until: datetime) -> Judgement:
    return Judgement(Blame.ACCOUNT, reason, Effect.LIMIT, Step.HOP, until)


def _cool(reason: str, until: datetime, after: timedelta | None = None) -> Judgement:
    return Judgement(
        Blame.ACCOUNT, reason, Effect.COOL, Step.HOP, until, retry_after=after
    )


def _is_page(body: bytes) -> bool:
    return body.lstrip().startswith(b"<")


def _read_error(body: bytes) -> _Error | None:
    try:
        return _decoder.decode(body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def retry_after(headers: Headers, now: datetime) -> timedelta | None:
    """Read how long the upstream asks to wait.

    Shape: `retry-after-ms`, else `retry-after` in seconds (decimals allowed) or as an
    HTTP date (RFC 9110 §10.2.3); None if absent or unreadable, never negative.
    """
    if raw := first(headers, b"retry-after-ms"):
        span = _span(raw, 1000)
        if span is not None:
            return span
    raw = first(headers, b"retry-after")
    if raw is None:
        return None
    span = _span(raw, 1)
    if span is not None:
        return span
    try:
        at = parsedate_to_datetime(raw.decode("latin-1"))
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return _bounded(at - now)
    except (ValueError, OverflowError):
        return None


def _span(raw: bytes, parts_of_a_second: int) -> timedelta | None:
    try:
        return _bounded(timedelta(seconds=float(raw) / parts_of_a_second))
    except (ValueError, OverflowError):
        return None


def _bounded(span: timedelta) -> timedelta:
    return max(timedelta(), min(LONGEST, span))


def _end(at: datetime | None, now: datetime) -> datetime | None:
    return min(at, now + LONGEST) if at and at > now else None
