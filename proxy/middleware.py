"""The middleware of `/v1`: every error becomes the API's own envelope."""

from collections.abc import Awaitable, Callable
from math import ceil
from typing import Any

import structlog
from django.http import HttpResponse
from django.http.response import HttpResponseBase

from claudeproxy.errors import ClaudeProxyError
from proxy.endings import end_of
from proxy.errors import CallerGoneError, UpstreamError, envelope
from proxy.record import End

_log = structlog.get_logger(__name__)

GetResponse = Callable[[Any], Awaitable[HttpResponseBase]]


def error_envelope(get_response: GetResponse) -> GetResponse:
    """Turn errors into answers and put our request id on every answer."""

    async def middleware(request: Any) -> HttpResponseBase:
        try:
            response = await get_response(request)
        except CallerGoneError:
            raise
        except ClaudeProxyError as error:
            response = error_response(request, error)
        except Exception:  # noqa: BLE001  # the outer edge: the caller gets an answer
            response = failure_response(request)
        response.headers["request-id"] = request.record.request_id
        return response

    return middleware


def failure_response(request: Any) -> HttpResponse:
    """Log the exception at hand as a fault of the gateway, and answer with it."""
    _log.exception("request_failed", request_id=request.record.request_id)
    request.record.end = End.FAILED
    return error_response(
        request,
        ClaudeProxyError(
            "The gateway failed on this request. Its operator finds the cause "
            "in the log, under this request id."
        ),
    )


def error_response(request: Any, error: ClaudeProxyError) -> HttpResponse:
    """Answer with an error, and note in the record how the request ended."""
    record = request.record
    record.end = record.end or end_of(error)
    if isinstance(error, UpstreamError):
        record.cause = f"{error.stage.value}: {error.cause}"
    response = HttpResponse(
        envelope(error.error_type, str(error), record.request_id, error.details),
        status=error.http_status,
        content_type="application/json",
    )
    response.headers["request-id"] = record.request_id
    if error.retry_after is not None:
        response.headers["retry-after"] = str(ceil(error.retry_after.total_seconds()))
    if error.should_retry is not None:
        response.headers["x-should-retry"] = str(error.should_retry).lower()
    for name, value in error.headers.items():
        response.headers[name] = value
    # Its frames hold the request, body and all, and one of them the error: a circle,
    # which only the garbage collector could undo.
    error.__traceback__ = None
    return response
