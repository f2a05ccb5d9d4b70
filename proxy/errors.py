"""What can go wrong on the way of a request, and the envelope callers read it in.

Source of the envelope: Anthropic API reference, "Errors"; the official SDKs turn it
into their typed exceptions.
"""

import enum
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from types import MappingProxyType
from typing import Any

import msgspec

from accounts.status import ObjectKind
from claudeproxy import durations
from claudeproxy.errors import ClaudeProxyError, RequestRefusedError
from proxy import endpoints

_LONGEST_SLEEP = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """An account that may not serve a request: why, and until when if that is known.

    `is_in_use` tells accounts that will serve again from those a person took out.
    """

    account_name: str
    reason: str
    until: datetime | None = None
    is_in_use: bool = True


# Why an account is left out that does not have the model asked for.
LACKS_MODEL = "without this model"
UNREADABLE = "encrypted with a key that is not in ENCRYPTION_KEYS"


class Stage(enum.Enum):
    """How far a request had come at the upstream when it failed."""

    NOT_SENT = "not sent"  # safe to send again, anywhere
    PERHAPS_EXECUTED = "perhaps executed"  # sent at least in part, no answer seen
    ANSWER_BEGUN = "answer begun"  # status and headers had arrived


class UpstreamError(ClaudeProxyError):
    """The upstream could not be asked, or broke off."""

    http_status: int = HTTPStatus.SERVICE_UNAVAILABLE
    default_message = "Claude could not be reached from this gateway. Try again soon."
    broken_off_message = "Claude's answer broke off. Send the request again."

    def __init__(self, stage: Stage, cause: str) -> None:
        is_broken_off = stage is Stage.ANSWER_BEGUN
        super().__init__(
            self.broken_off_message if is_broken_off else self.default_message
        )
        self.stage = stage
        self.cause = cause  # for the log: the kind of failure, never content


class UpstreamUnavailableError(UpstreamError):
    """Refused, reset, unreachable, or closed before an answer."""


class UpstreamTimeoutError(UpstreamError):
    """Silent for longer than REQUEST_TIMEOUT, or too slow to connect."""

    http_status: int = HTTPStatus.REQUEST_TIMEOUT
    error_type: str = "timeout_error"
    default_message = "Claude did not answer within this gateway's time limit."
    broken_off_message = "Claude's answer stalled for longer than this gateway waits."


class MalformedReplyError(UpstreamError):
    """An answer that a gateway must not pass on."""

    default_message = "Claude's answer could not be understood by this gateway."
    broken_off_message = default_message


class DrainingError(UpstreamError):
    """The worker stops, and its time for open answers is over."""

    error_type: str = "overloaded_error"
    default_message = "This gateway is restarting. Send the request again."
    broken_off_message = default_message


class RevokedError(UpstreamError):
    """An operator ended the session that the request belongs to."""

    http_status: int = HTTPStatus.FORBIDDEN
    error_type: str = "permission_error"
    default_message = "The operator of this gateway ended this session."
    broken_off_message = default_message
    should_retry = False


class NoAccountAvailableError(ClaudeProxyError):
    """No account of the pool can serve the request."""

    http_status: int = HTTPStatus.SERVICE_UNAVAILABLE


class AllLimitedError(ClaudeProxyError):
    """Every account that could serve waits for a limit to end."""

    http_status: int = HTTPStatus.TOO_MANY_REQUESTS
    error_type: str = "rate_limit_error"

    def __init__(self, wait: timedelta, message: str | None = None) -> None:
        super().__init__(
            message
            or "All Claude accounts of this gateway are rate limited; the first is "
            f"back in {durations.describe(wait)}."
        )
        self.retry_after = wait
        # SDKs sleep as long as they are told to, however long that is.
        self.should_retry = False if wait > _LONGEST_SLEEP else None


class ThreadNotFoundError(ClaudeProxyError):
    """The thread is where it cannot be used now; SDKs replay the conversation then."""

    http_status: int = HTTPStatus.NOT_FOUND
    error_type: str = "not_found_error"
    details: Mapping[str, str] = MappingProxyType({"error_code": "thread_not_found"})

    def __init__(self, message_id: str) -> None:
        super().__init__(
            f"thread.previous_message_id: the account that holds the thread of "
            f"{message_id[:200]} cannot serve now. Send the whole conversation."
        )


class NotReadyError(ClaudeProxyError):
    """The worker could not read the accounts and keys yet."""

    http_status: int = HTTPStatus.SERVICE_UNAVAILABLE
    retry_after = timedelta(seconds=2)

    def __init__(self) -> None:
        super().__init__(
            "This gateway is starting. Send the request again in a moment."
        )


class CallerGoneError(ClaudeProxyError):
    """The caller left before its request was complete; nobody reads an answer."""

    http_status: int = 499


def all_lack(excluded: Collection[Exclusion]) -> bool:
    """Would accounts serve, if only they had the model?"""
    return any(exclusion.reason == LACKS_MODEL for exclusion in excluded) and not any(
        exclusion.is_in_use for exclusion in excluded
    )


def nobody(excluded: Sequence[Exclusion], now: datetime) -> ClaudeProxyError:
    """Say why no account serves a request, from what speaks against each."""
    if not excluded:
        return NoAccountAvailableError(
            "This gateway has no Claude account yet. Its operator adds one with "
            "manage.py add_account or in the admin."
        )
    waits = [exclusion.until for exclusion in excluded if exclusion.until is not None]
    in_use = [exclusion for exclusion in excluded if exclusion.is_in_use]
    if in_use and len(waits) == len(in_use):
        return AllLimitedError(max(timedelta(seconds=1), min(waits) - now))
    counts = Counter(exclusion.reason for exclusion in excluded)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.items())
    return NoAccountAvailableError(
        f"None of this gateway's Claude accounts can serve now ({reasons}). "
        "Try again later, or ask its operator to activate one."
    )


def not_found() -> RequestRefusedError:
    return RequestRefusedError(
        f"This gateway does not serve this path. It serves {endpoints.served()}.",
        http_status=HTTPStatus.NOT_FOUND,
        error_type="not_found_error",
    )


def model_not_found(model: str, offered: Collection[str]) -> RequestRefusedError:
    listed = ", ".join(sorted(offered)) or "none"
    return RequestRefusedError(
        f"model: {model[:200]} is not offered by any account of this gateway. "
        f"Offered are: {listed}.",
        http_status=HTTPStatus.NOT_FOUND,
        error_type="not_found_error",
    )


def object_not_found(kind: ObjectKind, object_id: str) -> RequestRefusedError:
    return RequestRefusedError(
        f"{object_id}: no account that this gateway uses has a {kind.label} of this "
        "id.",
        http_status=HTTPStatus.NOT_FOUND,
        error_type="not_found_error",
    )


def object_not_looked_up(kind: ObjectKind, object_id: str) -> NoAccountAvailableError:
    error = NoAccountAvailableError(
        f"{object_id}: it is not known which account has this {kind.label}, and not "
        "all of them could be asked. Try again in a moment."
    )
    error.retry_after = timedelta(seconds=1)
    return error


def owner_away(
    object_id: str, excluded: Sequence[Exclusion], model: str | None, now: datetime
) -> ClaudeProxyError:
    """Say why the one account that has an object does not serve."""
    exclusion = excluded[0] if excluded else None
    if exclusion is not None and exclusion.until is not None:
        return owner_limited(object_id, exclusion.until - now)
    if exclusion is not None and exclusion.reason == LACKS_MODEL:
        return RequestRefusedError(
            f"model: {(model or '')[:200]} is not offered by the account that "
            f"{object_id} belongs to. Ask another model, or make it again.",
            http_status=HTTPStatus.NOT_FOUND,
            error_type="not_found_error",
        )
    if exclusion is not None and exclusion.is_in_use and exclusion.reason != UNREADABLE:
        error = NoAccountAvailableError(
            f"{object_id}: the account it belongs to cannot serve now. "
            "Try again in a moment."
        )
        error.retry_after = timedelta(seconds=1)
        return error
    not_in_use = NoAccountAvailableError(
        f"{object_id}: the account it belongs to is not in use, and no other can "
        "reach it. Ask the gateway's operator to activate it, or make it again."
    )
    not_in_use.should_retry = False  # a person has to act first
    return not_in_use


def owner_limited(object_id: str, wait: timedelta) -> AllLimitedError:
    wait = max(timedelta(seconds=1), wait)
    return AllLimitedError(
        wait,
        f"{object_id}: the account it belongs to is rate limited, and no other can "
        f"reach it; it is back in {durations.describe(wait)}.",
    )


def owners_differ(one: str, other: str) -> RequestRefusedError:
    return RequestRefusedError(
        f"{one} and {other} belong to different accounts of this gateway, and a "
        "request is served by one. Make them again with one client key: what a key "
        "makes stays together.",
        http_status=HTTPStatus.BAD_REQUEST,
        error_type="invalid_request_error",
    )


def too_many_references(most: int) -> RequestRefusedError:
    return RequestRefusedError(
        f"The request names more than {most} files, skills and containers. Send it "
        "in parts.",
        http_status=HTTPStatus.BAD_REQUEST,
        error_type="invalid_request_error",
    )


def perhaps_made() -> NoAccountAvailableError:
    error = NoAccountAvailableError(
        "Claude was asked to make this, but the answer did not arrive: it may be "
        "there or not. List what there is before you send the request again."
    )
    error.should_retry = False
    return error


def owners_not_read() -> NoAccountAvailableError:
    error = NoAccountAvailableError(
        "This gateway could not look up which account has what the request names. "
        "Try again in a moment."
    )
    error.retry_after = timedelta(seconds=1)
    return error


def list_incomplete() -> NoAccountAvailableError:
    error = NoAccountAvailableError(
        "Not all accounts of this gateway could be asked, and without them the list "
        "would be incomplete. Try again in a moment."
    )
    error.retry_after = timedelta(seconds=1)
    return error


def bad_parameter(name: str, what: str) -> RequestRefusedError:
    return RequestRefusedError(
        f"{name}: {what}",
        http_status=HTTPStatus.BAD_REQUEST,
        error_type="invalid_request_error",
    )


def method_not_allowed(allowed: str) -> RequestRefusedError:
    return RequestRefusedError(
        f"This path takes {allowed} only.",
        http_status=HTTPStatus.METHOD_NOT_ALLOWED,
        error_type="invalid_request_error",
        headers={"allow": allowed},
    )


def unauthenticated(message: str) -> RequestRefusedError:
    # Claude Code would repeat the request with the same key, ten times.
    return RequestRefusedError(
        message,
        http_status=HTTPStatus.UNAUTHORIZED,
        error_type="authentication_error",
        should_retry=False,
    )


def body_too_large(limit_bytes: int) -> RequestRefusedError:
    return RequestRefusedError(
        f"The request is larger than {limit_bytes // 1024**2} MB, "
        "which is the most this path takes. Send fewer or smaller contents.",
        http_status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        error_type="request_too_large",
    )


def body_too_slow() -> RequestRefusedError:
    return RequestRefusedError(
        "The request's body did not arrive within this gateway's time limit.",
        http_status=HTTPStatus.REQUEST_TIMEOUT,
        error_type="timeout_error",
    )


def names_an_organization(header: str) -> RequestRefusedError:
    return RequestRefusedError(
        f"{header}: it names an object of one organization, but this gateway "
        "serves from accounts of several. Leave the header out.",
        http_status=HTTPStatus.BAD_REQUEST,
        error_type="invalid_request_error",
    )


def envelope(
    error_type: str,
    message: str,
    request_id: str,
    details: Mapping[str, str] | None = None,
) -> bytes:
    """Encode an error as the API does."""
    error: dict[str, Any] = {"type": error_type, "message": message}
    if details:
        error["details"] = dict(details)
    body = {"type": "error", "error": error, "request_id": request_id}
    return msgspec.json.encode(body)
