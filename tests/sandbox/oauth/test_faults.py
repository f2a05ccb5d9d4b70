"""The script at the token endpoint, the profile and the models."""

from typing import Any

import httpx
import pytest

from claudeproxy.sandbox.log import Outcome, TokenOutcome
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.oauth.client import (
    TOKEN_PATH,
    bearer,
    code_for,
    exchange_body,
    refresh,
    refused,
)
from tests.sandbox.wire import ended

HOUR_MS = 3_600_000


def add(sandbox: Sandbox, account: str = "dorothy", **step: Any) -> None:
    sandbox.script.add(account, {"path": TOKEN_PATH} | step)


def break_off(http: httpx.Client, refresh_token: str) -> None:
    """Refresh without getting an answer."""
    with pytest.raises(httpx.TransportError):
        http.post(
            TOKEN_PATH,
            json={
                "grant_type": "refresh_token",
                "client_id": "sandbox-client",
                "refresh_token": refresh_token,
            },
            timeout=0.2,
        )


@pytest.mark.parametrize(
    ("step", "status", "error"),
    [
        ({"status": 400}, 400, "invalid_request"),
        ({"status": 400, "error_type": "invalid_grant"}, 400, "invalid_grant"),
        ({"status": 401}, 401, "invalid_client"),
        ({"status": 429}, 429, "rate_limit_error"),
        ({"status": 500}, 500, "server_error"),
        ({"status": 503}, 503, "temporarily_unavailable"),
    ],
)
def test_a_scripted_error_has_the_form_of_oauth_and_uses_nothing_up(
    http: httpx.Client, sandbox: Sandbox, step: dict[str, Any], status: int, error: str
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    add(sandbox, **step, error_message="As scripted.")
    answer = refresh(http, pair.refresh_token)
    assert answer.status_code == status
    assert answer.json() == {"error": error, "error_description": "As scripted."}
    [entry] = sandbox.oauth.token_requests()
    assert entry.token_outcome is TokenOutcome.SCRIPTED
    assert refresh(http, pair.refresh_token).status_code == 200


@pytest.mark.parametrize("status", [200, 403])
def test_a_scripted_body_and_headers_are_sent_as_given(
    http: httpx.Client, sandbox: Sandbox, status: int
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    headers = {"retry-after": "9"}
    add(sandbox, status=status, body={"error": {"type": "x"}}, headers=headers)
    answer = refresh(http, pair.refresh_token)
    assert (answer.status_code, answer.json()) == (status, {"error": {"type": "x"}})
    assert answer.headers["retry-after"] == "9"
    assert refresh(http, pair.refresh_token).status_code == 200


@pytest.mark.parametrize(
    "ending",
    [{"hang": "before_head"}, {"cut_at_byte": "before_head"}, {"reset": "before_head"}],
)
def test_a_break_before_the_head_uses_nothing_up(
    http: httpx.Client, sandbox: Sandbox, ending: dict[str, Any]
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    add(sandbox, **ending)
    break_off(http, pair.refresh_token)
    assert ended(sandbox).token_outcome is TokenOutcome.SCRIPTED
    assert refresh(http, pair.refresh_token).status_code == 200


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        ({"lose_answer": True}, Outcome.CUT),
        ({"lose_answer": True, "delay_ms": HOUR_MS}, Outcome.CLIENT_GONE),
        ({"delay_ms": HOUR_MS}, Outcome.CLIENT_GONE),
        ({"cut_at_byte": 10}, Outcome.CUT),
        ({"cut_before_frame": 1}, Outcome.CUT),
        ({"reset": {"at_byte": 0}}, Outcome.RESET),
        ({"hang": 1}, Outcome.HANG),
    ],
)
def test_a_lost_answer_has_used_the_refresh_token_up(
    http: httpx.Client, sandbox: Sandbox, ending: dict[str, Any], outcome: Outcome
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    add(sandbox, **ending)
    break_off(http, pair.refresh_token)
    entry = ended(sandbox)
    assert (entry.token_outcome, entry.outcome) == (TokenOutcome.ISSUED, outcome)
    assert sandbox.oauth.is_family_alive(pair.refresh_token)
    assert refused(refresh(http, pair.refresh_token)) == "invalid_grant"
    assert not sandbox.oauth.is_family_alive(pair.refresh_token)


def test_lose_answer_sends_nothing_at_all(http: httpx.Client, sandbox: Sandbox) -> None:
    pair = sandbox.oauth.issue("dorothy")
    add(sandbox, lose_answer=True)
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        refresh(http, pair.refresh_token)
    assert ended(sandbox).status is None


def test_the_answer_to_an_exchange_can_be_lost_too(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    code = code_for(http)
    add(sandbox, lose_answer=True)
    with pytest.raises(httpx.RemoteProtocolError):
        http.post(TOKEN_PATH, json=exchange_body(code))
    answer = http.post(TOKEN_PATH, json=exchange_body(code))
    assert refused(answer) == "invalid_grant"


def test_omit_refresh_token_keeps_the_old_one_good(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    add(sandbox, omit_refresh_token=True)
    body = refresh(http, pair.refresh_token).json()
    assert "refresh_token" not in body
    assert "refresh_token_expires_in" not in body
    models = http.get("/v1/models", headers=bearer(body["access_token"]))
    assert models.status_code == 200
    assert refresh(http, pair.refresh_token).status_code == 200


def test_an_exchange_can_come_without_a_refresh_token(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    code = code_for(http)
    add(sandbox, omit_refresh_token=True)
    body = http.post(TOKEN_PATH, json=exchange_body(code)).json()
    assert "access_token" in body
    assert "refresh_token" not in body


def test_steps_reach_the_owner_of_the_refresh_token_only(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    add(sandbox, "katherine", status=500)
    pair = sandbox.oauth.issue("dorothy")
    assert refresh(http, pair.refresh_token).status_code == 200


@pytest.mark.parametrize("known", [True, False])
def test_steps_for_everyone_reach_any_token_request(
    http: httpx.Client, sandbox: Sandbox, known: bool
) -> None:
    token = sandbox.oauth.issue("dorothy").refresh_token if known else "unknown"
    add(sandbox, "*", status=500)
    assert refresh(http, token).status_code == 500


def test_revocation_can_fail_too(http: httpx.Client, sandbox: Sandbox) -> None:
    pair = sandbox.oauth.issue("dorothy")
    add(sandbox, status=500)
    body = {"token": pair.access_token, "client_id": "sandbox-client"}
    assert http.post(f"{TOKEN_PATH}/revoke", json=body).status_code == 500
    assert sandbox.oauth.is_family_alive(pair.refresh_token)


@pytest.mark.parametrize("path", ["/api/oauth/profile", "/v1/models"])
def test_profile_and_models_can_be_scripted(
    http: httpx.Client, sandbox: Sandbox, path: str
) -> None:
    headers = bearer(sandbox.oauth.issue("dorothy").access_token)
    steps: list[dict[str, Any]] = [
        {"status": 500},
        {"body": {"odd": 1}},
        {"cut_at_byte": 3},
    ]
    sandbox.script.add("dorothy", *({"path": path} | step for step in steps))
    assert http.get(path, headers=headers).status_code == 500
    assert http.get(path, headers=headers).json() == {"odd": 1}
    with pytest.raises(httpx.RemoteProtocolError):
        http.get(path, headers=headers)
    assert http.get(path, headers=headers).status_code == 200
