import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.http import HttpResponse
from structlog.testing import capture_logs

from claudeproxy.errors import ClaudeProxyError, RequestRefusedError
from proxy import errors
from proxy.errors import CallerGoneError, Stage
from proxy.middleware import error_envelope
from proxy.record import End, RequestRecord


async def answer_to(outcome):
    """What a caller gets when the view has this outcome, and what is noted of it."""

    async def view(request):
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    record = RequestRecord("POST", "/v1/messages")
    response = await error_envelope(view)(SimpleNamespace(record=record))
    return response, record


async def test_an_answer_passes_with_our_request_id():
    response, record = await answer_to(HttpResponse(b"ok", status=201))

    assert (response.status_code, response.content) == (201, b"ok")
    assert response.headers["request-id"] == record.request_id
    assert record.end is None


async def test_an_error_becomes_the_apis_envelope():
    response, record = await answer_to(errors.unauthenticated("Not a key."))

    assert response.status_code == 401
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["request-id"] == record.request_id
    assert json.loads(response.content) == {
        "type": "error",
        "error": {"type": "authentication_error", "message": "Not a key."},
        "request_id": record.request_id,
    }


async def test_the_headers_of_an_error_are_sent():
    response, _ = await answer_to(errors.method_not_allowed("GET"))

    assert response.headers["allow"] == "GET"
    assert "x-should-retry" not in response.headers
    assert "retry-after" not in response.headers


@pytest.mark.parametrize(
    ("span", "seconds"),
    [
        (timedelta(0), "0"),
        (timedelta(milliseconds=1), "1"),
        (timedelta(seconds=2), "2"),
        (timedelta(minutes=2, milliseconds=500), "121"),
    ],
)
async def test_retry_after_is_never_too_early(span, seconds):
    error = errors.NoAccountAvailableError("Nobody.")
    error.retry_after = span
    error.should_retry = True
    response, _ = await answer_to(error)

    assert response.headers["retry-after"] == seconds
    assert response.headers["x-should-retry"] == "true"


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (errors.not_found(), End.REJECTED),
        (errors.body_too_slow(), End.REJECTED),
        (RequestRefusedError("x", http_status=500, error_type="x"), End.REJECTED),
        (errors.NoAccountAvailableError("x"), End.REJECTED),
        (errors.UpstreamTimeoutError(Stage.NOT_SENT, "x"), End.TIMEOUT),
        (errors.UpstreamUnavailableError(Stage.NOT_SENT, "x"), End.UPSTREAM_ERROR),
        (errors.MalformedReplyError(Stage.NOT_SENT, "x"), End.UPSTREAM_ERROR),
        (ClaudeProxyError("x"), End.FAILED),
        (KeyError("x"), End.FAILED),
    ],
)
async def test_the_record_says_how_the_request_ended(error, end):
    _, record = await answer_to(error)

    assert record.end is end


async def test_the_cause_is_noted_and_not_sent():
    error = errors.UpstreamUnavailableError(Stage.NOT_SENT, "ConnectError: 10.0.0.7")
    response, record = await answer_to(error)

    assert record.cause == "not sent: ConnectError: 10.0.0.7"
    assert b"10.0.0.7" not in response.content


async def test_a_fault_is_logged_and_its_text_kept_from_the_caller():
    with capture_logs() as lines:
        response, record = await answer_to(KeyError("sk-ant-secret"))

    assert response.status_code == 500
    assert b"sk-ant-secret" not in response.content
    assert record.request_id.encode() in response.content
    assert [(line["event"], line["request_id"]) for line in lines] == [
        ("request_failed", record.request_id)
    ]


async def test_a_caller_who_left_gets_no_answer():
    with pytest.raises(CallerGoneError):
        await answer_to(CallerGoneError())
