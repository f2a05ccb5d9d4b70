"""What a client may send to the token endpoint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudeproxy.sandbox.errors import GrantError
from claudeproxy.sandbox.oauth import requests
from claudeproxy.sandbox.oauth.requests import TokenRequest

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def read(content_type: str, body: bytes | None) -> TokenRequest:
    return requests.read([(b"content-type", content_type.encode())], body)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b'{"code": "a b", "extra": 1, "state": null}'),
        ("Application/JSON; charset=utf-8", b'{"code": "a b"}'),
        (FORM, b"code=a+b&extra=1&state="),
        (f"{FORM};charset=UTF-8", b"code=a%20b"),
    ],
)
def test_json_and_forms_say_the_same(content_type: str, body: bytes) -> None:
    assert read(content_type, body) == TokenRequest(code="a b")


@pytest.mark.parametrize("content_type", [JSON, FORM])
@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(content_type: str, body: bytes) -> None:
    error = None
    try:
        assert isinstance(read(content_type, body), TokenRequest)
    except GrantError as exc:
        error = exc.code
    assert error in (None, "invalid_request")


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(GrantError) as caught:
        read(JSON, b'{"refresh_token": ["secret"]}')
    assert "refresh_token" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_body_over_the_limit_is_refused() -> None:
    with pytest.raises(GrantError, match="too large"):
        read(JSON, None)


def test_a_missing_parameter_is_named() -> None:
    with pytest.raises(GrantError, match="code: required"):
        TokenRequest(code="").require("code")
