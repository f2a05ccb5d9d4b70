"""How a request ended, told from the error that ended it. Pure."""

from http import HTTPStatus

from claudeproxy.errors import ClaudeProxyError, RequestRefusedError
from proxy.errors import (
    DrainingError,
    RevokedError,
    UpstreamError,
    UpstreamTimeoutError,
)
from proxy.record import End

_OUR_FAULTS = frozenset(
    {HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.INSUFFICIENT_STORAGE}
)


def end_of(error: ClaudeProxyError) -> End:
    """Return the word for the log."""
    match error:
        case RequestRefusedError():
            return End.REJECTED
        case UpstreamTimeoutError():
            return End.TIMEOUT
        case DrainingError():
            return End.DRAINED
        case RevokedError():
            return End.REVOKED
        case UpstreamError():
            return End.UPSTREAM_ERROR
    return End.FAILED if error.http_status in _OUR_FAULTS else End.REJECTED
