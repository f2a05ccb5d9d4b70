"""How a request ended, exactly and in four words."""

from http import HTTPStatus

from django.db.models import TextChoices


class EndReason(TextChoices):
    COMPLETE = "complete", "complete"  # the caller has the whole answer
    REJECTED = "rejected", "rejected"  # refused by the gateway itself
    CLIENT_GONE = "client_gone", "caller gone"
    UPSTREAM_ERROR = "upstream_error", "upstream error"
    TIMEOUT = "timeout", "timed out"
    TRUNCATED = "truncated", "truncated"
    DRAINED = "drained", "drained"  # cut by the worker's own stop
    REVOKED = "revoked", "revoked"  # cut by an operator, who ended the session
    FAILED = "failed", "failed"  # a fault of the gateway
    CRASHED = "crashed", "crashed"  # the worker died with it


class Outcome(TextChoices):
    SERVED = "served", "served"
    REFUSED = "refused", "refused"  # by the gateway or the upstream: 4xx
    GONE = "gone", "caller gone"
    FAILED = "failed", "failed"


def outcome_of(end_reason: EndReason, status: int) -> Outcome:
    """Say in one word how a request ended."""
    if end_reason is EndReason.CLIENT_GONE:
        return Outcome.GONE
    if end_reason is EndReason.REVOKED:
        return Outcome.REFUSED
    if end_reason not in {EndReason.COMPLETE, EndReason.REJECTED}:
        return Outcome.FAILED
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome.FAILED
    return Outcome.REFUSED if status >= HTTPStatus.BAD_REQUEST else Outcome.SERVED
