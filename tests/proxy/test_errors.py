import json

import anthropic
import httpx2
import pytest

from claudeproxy.errors import ClaudeProxyError
from proxy import errors
from proxy.errors import Stage


def descendants(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from descendants(sub)


@pytest.mark.parametrize(
    ("error", "status", "error_type"),
    [
        (errors.not_found(), 404, "not_found_error"),
        (errors.method_not_allowed("GET"), 405, "invalid_request_error"),
        (errors.unauthenticated("No."), 401, "authentication_error"),
        (errors.body_too_large(32 * 1024**2), 413, "request_too_large"),
        (errors.body_too_slow(), 408, "timeout_error"),
        (errors.names_an_organization("x"), 400, "invalid_request_error"),
        (errors.NoAccountAvailableError("Nobody."), 503, "api_error"),
        (errors.UpstreamUnavailableError(Stage.NOT_SENT, "x"), 503, "api_error"),
        (errors.UpstreamTimeoutError(Stage.NOT_SENT, "x"), 408, "timeout_error"),
        (errors.MalformedReplyError(Stage.ANSWER_BEGUN, "x"), 503, "api_error"),
        (errors.DrainingError(Stage.NOT_SENT, "x"), 503, "overloaded_error"),
    ],
)
def test_each_error_has_its_status_and_type(error, status, error_type):
    assert (error.http_status, error.error_type) == (status, error_type)
    assert str(error).endswith(".")


def test_a_method_that_is_not_taken_is_answered_with_those_that_are():
    assert errors.method_not_allowed("GET").headers == {"allow": "GET"}


def test_a_size_is_said_in_megabytes():
    assert "larger than 32 MB" in str(errors.body_too_large(32 * 1024**2))


@pytest.mark.parametrize("cls", sorted(descendants(errors.UpstreamError), key=str))
def test_what_went_wrong_at_the_upstream_is_for_the_log_alone(cls):
    error = cls(Stage.NOT_SENT, "ConnectError: 10.0.0.7:443")

    assert error.cause == "ConnectError: 10.0.0.7:443"
    assert "10.0.0.7" not in str(error)


def test_every_error_of_the_way_belongs_to_the_one_tree():
    own = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]

    assert own
    assert all(issubclass(cls, ClaudeProxyError) for cls in own)


def test_the_envelope_is_the_apis_own():
    body = errors.envelope("api_error", 'it said "é"\n', "req_1")

    assert json.loads(body) == {
        "type": "error",
        "error": {"type": "api_error", "message": 'it said "é"\n'},
        "request_id": "req_1",
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.unauthenticated("No."), anthropic.AuthenticationError),
        (errors.not_found(), anthropic.NotFoundError),
        (errors.body_too_large(1024**2), anthropic.RequestTooLargeError),
        (errors.names_an_organization("x"), anthropic.BadRequestError),
        (errors.NoAccountAvailableError("Nobody."), anthropic.InternalServerError),
    ],
)
def test_the_official_sdk_raises_its_usual_classes(error, expected):
    body = errors.envelope(error.error_type, str(error), "req_1")
    client = anthropic.Anthropic(api_key="cp_x", base_url="http://gateway.test")
    with client:
        raised = client._make_status_error_from_response(
            httpx2.Response(
                error.http_status,
                content=body,
                headers={"request-id": "req_1"},
                request=httpx2.Request("POST", "http://gateway.test/v1/messages"),
            )
        )

    assert isinstance(raised, expected)
    assert str(error) in str(raised)
    assert raised.request_id == "req_1"
