"""The table of what can go wrong upstream, and what SDKs must make of it.

One table for all languages: the classes of their errors have the same names. `one` is
what a caller gets if a single account has the fault and others are well, `all_` if
every account has it.
"""

import time
from dataclasses import dataclass
from typing import Any

WHOLE = "whole"
STREAM, CREATE = "stream", "create"
BOTH = (CREATE, STREAM)


@dataclass(frozen=True)
class Raises:
    """An error by its HTTP status: the SDK's class, `error.type`, and the advice."""

    name: str
    status: int
    kind: str
    # The longest `retry-after` that is right, in seconds; None if there must be none.
    retry_after: int | None = None
    should_retry: str | None = None


@dataclass(frozen=True)
class Breaks:
    """An `error` event in a stream that had begun: it has a type and no status."""

    kind: str


Result = Raises | Breaks | str


@dataclass(frozen=True)
class Fault:
    """A row. One that *leaves_a_trace* lowers the account for longer than a moment."""

    name: str
    step: dict[str, Any]
    one: Result
    all_: Result
    modes: tuple[str, ...] = BOTH
    leaves_a_trace: bool = False


def error(message: str, kind: str = "invalid_request_error", code: str = "") -> Any:
    details = {"details": {"error_code": code}} if code else {}
    return {"type": "error", "error": {"type": kind, "message": message} | details}


UNAVAILABLE = Raises("ServiceUnavailableError", 503, "api_error")
TIMEOUT = Raises("RequestTimeoutError", 408, "timeout_error")
DAYS = 32 * 24 * 3600


def limited(seconds: int) -> Raises:
    """Everybody waits for a limit; the longer ones nobody should sleep through."""
    should_retry = "false" if seconds > 60 else None
    return Raises("RateLimitError", 429, "rate_limit_error", seconds, should_retry)


# The request's own fault: whoever is asked, its words are for the caller.
_OF_THE_REQUEST = [
    Fault(str(raised.status), {"status": raised.status}, raised, raised)
    for raised in (
        Raises("BadRequestError", 400, "invalid_request_error"),
        Raises("NotFoundError", 404, "not_found_error"),
        Raises("RequestTimeoutError", 408, "timeout_error"),
        Raises("ConflictError", 409, "conflict_error"),
        Raises("ContentTooLargeError", 413, "request_too_large"),
        Raises("UnprocessableEntityError", 422, "invalid_request_error"),
    )
]
_EXTRA_USAGE = Raises("RateLimitError", 429, "rate_limit_error")
_OF_THE_REQUEST.append(
    Fault(
        "429 that needs extra usage",
        {"status": 429, "error_message": "Extra usage is required for this."},
        _EXTRA_USAGE,
        _EXTRA_USAGE,
    )
)

_PERMISSION = Raises("PermissionDeniedError", 403, "permission_error")
_ON_HOLD = {"status": 400, "body": error("On hold.", code="organization_on_hold")}
_NO_CREDIT = {"status": 400, "body": error("Your credit balance is too low.")}
_REVOKED = {"status": 403, "error_message": "OAuth token has been revoked."}
_NO_MODEL = {
    "status": 404,
    "body": error("model: claude-opus-5-5", "not_found_error"),
}
_UNIFIED = "anthropic-ratelimit-unified-"
_PLAN_SPENT = {
    "status": 429,
    "headers": {
        f"{_UNIFIED}status": "rejected",
        f"{_UNIFIED}reset": str(int(time.time()) + 7200),
    },
}
_CAP = {
    "status": 429,
    "body": error("No.", "rate_limit_error", "enforced_spend_limit_reached"),
}
_DEFAULT = 3600  # RATE_LIMIT_DEFAULT


def _after(seconds: int) -> dict[str, Any]:
    return {"status": 429, "headers": {"retry-after": str(seconds)}}


# An account's fault: others serve, and if none is left, the gateway says so itself.
_OF_AN_ACCOUNT = [
    Fault("403", {"status": 403}, WHOLE, _PERMISSION),
    *(
        Fault(name, step, WHOLE, all_, leaves_a_trace=True)
        for name, step, all_ in (
            ("401", {"status": 401}, UNAVAILABLE),
            ("400 on hold", _ON_HOLD, UNAVAILABLE),
            ("403 revoked", _REVOKED, UNAVAILABLE),
            ("400 out of credit", _NO_CREDIT, limited(_DEFAULT)),
            ("402", {"status": 402}, limited(_DEFAULT)),
            (
                "404 of the model",
                _NO_MODEL,
                Raises("NotFoundError", 404, "not_found_error"),
            ),
            ("429 for long", _after(600), limited(600)),
            ("429 for half a minute", _after(30), limited(30)),
            ("429 for a moment", _after(7), limited(7)),
            ("429 of a plan", _PLAN_SPENT, limited(7200)),
            ("429 of a spend limit", _CAP, limited(_DEFAULT)),
            ("429 without a word", {"status": 429}, limited(_DEFAULT)),
        )
    ),
]

_SERVER_ERRORS = (
    Raises("InternalServerError", 500, "api_error"),
    Raises("ServiceUnavailableError", 503, "api_error"),
    Raises("GatewayTimeoutError", 504, "timeout_error"),
    Raises("OverloadedError", 529, "overloaded_error"),
)
_ADVICE = {"retry-after": "7", "x-should-retry": "true"}
_LATER = Raises("OverloadedError", 529, "overloaded_error", 7, "true")
_NOT_AGAIN = Raises("ServiceUnavailableError", 503, "api_error", None, "false")
# The upstream's fault: somebody else may be luckier; if nobody is, its words pass.
_OF_THE_UPSTREAM = [
    *(
        Fault(str(raised.status), {"status": raised.status}, WHOLE, raised)
        for raised in _SERVER_ERRORS
    ),
    # It asks for a longer pause than a request may take here, so the caller decides.
    Fault("529 with advice", {"status": 529, "headers": _ADVICE}, _LATER, _LATER),
    Fault(
        "503 not to be repeated",
        {"status": 503, "headers": {"x-should-retry": "false"}},
        _NOT_AGAIN,
        _NOT_AGAIN,
    ),
]

# The network's fault, before there is anything to show.
_BEFORE_CONTENT = [
    Fault(name, step, WHOLE, UNAVAILABLE, modes)
    for name, step, modes in (
        ("cut before the head", {"cut_at_byte": "before_head"}, BOTH),
        ("reset before the head", {"reset": "before_head"}, BOTH),
        ("cut at once", {"cut_at_byte": 0}, BOTH),
        ("cut before content", {"cut_at_byte": 300}, BOTH),
        ("reset before content", {"reset": {"at_byte": 300}}, BOTH),
        ("cut before the second frame", {"cut_before_frame": 2}, (STREAM,)),
        ("end without a frame", {"end_after_frame": 0}, (STREAM,)),
        ("end before content", {"end_after_frame": 1}, (STREAM,)),
    )
]

# Once the caller has seen content, nobody else can go on: the stream says so.
_IN_CONTENT = [
    Fault(name, step, Breaks(kind), Breaks(kind), (STREAM,))
    for name, step, kind in (
        ("cut in content", {"cut_at_byte": 1_000}, "api_error"),
        ("cut between frames", {"cut_before_frame": 6}, "api_error"),
        ("end in content", {"end_after_frame": 6}, "api_error"),
    )
]

# A pause longer than the gateway waits. Time was given in full, and what was asked for
# may have been done: nobody else is asked.
HANGS = [
    Fault(name, step, result, result, modes)
    for name, step, result, modes in (
        ("silence before the head", {"hang": "before_head"}, TIMEOUT, BOTH),
        ("silence after the head", {"hang": 1}, TIMEOUT, BOTH),
        ("silence in content", {"hang": 6}, Breaks("timeout_error"), (STREAM,)),
    )
]

_TYPES_OF_THE_REQUEST = (
    "invalid_request_error",
    "not_found_error",
    "request_too_large",
)
_TYPES_OF_THE_UPSTREAM = (
    "api_error",
    "timeout_error",
    "overloaded_error",
    "permission_error",
)
_TYPES_OF_AN_ACCOUNT = {
    "authentication_error": UNAVAILABLE,
    "billing_error": limited(_DEFAULT),
    "rate_limit_error": limited(_DEFAULT),
}


# The first content is in the second frame. An error that arrives together with it could
# still be moved to another account, so it comes a while later.
_CONTENT = 3
_LATER_FRAMES = {"frame_delay_ms": 250}

# An `error` event stands for the status of its type, until there is content.
_ERROR_EVENTS = [
    Fault(
        f"{kind} at frame {frame}",
        {"error_at_frame": frame, "error_type": kind}
        | (_LATER_FRAMES if frame == _CONTENT else {}),
        one or Breaks(kind),
        all_ or Breaks(kind),
        (STREAM,),
        leaves_a_trace=kind in _TYPES_OF_AN_ACCOUNT
        # One refusal of a credential proves nothing, and here none is asked for again.
        and (frame < _CONTENT or kind != "authentication_error"),
    )
    for frame in (1, 2, _CONTENT)
    for kind, one, all_ in (
        *((kind, None, None) for kind in _TYPES_OF_THE_REQUEST),
        *((kind, WHOLE, None) for kind in _TYPES_OF_THE_UPSTREAM),
        *((kind, WHOLE, all_) for kind, all_ in _TYPES_OF_AN_ACCOUNT.items()),
    )
    for one, all_ in [(one, all_) if frame < _CONTENT else (None, None)]
]

# What only looks like trouble.
_HARMLESS = [
    Fault(name, step, WHOLE, WHOLE)
    for name, step in (
        ("slow to begin", {"delay_ms": 50}),
        ("slow after the head", {"first_frame_delay_ms": 50}),
        ("slow between frames", {"frame_delay_ms": 5}),
        ("byte by byte", {"split_every": 1}),
        ("CRLF", {"line_ending": "\r\n"}),
        ("CR", {"line_ending": "\r"}),
        ("CRLF byte by byte", {"line_ending": "\r\n", "split_every": 1}),
    )
]

_ALL = [
    *_OF_THE_REQUEST,
    *_OF_AN_ACCOUNT,
    *_OF_THE_UPSTREAM,
    *_BEFORE_CONTENT,
    *_IN_CONTENT,
    *_ERROR_EVENTS,
    *_HARMLESS,
]
PASSING = [fault for fault in _ALL if not fault.leaves_a_trace]
LASTING = [fault for fault in _ALL if fault.leaves_a_trace]
