"""The token endpoint over real sockets: exchange, refresh, revocation, the log."""

import asyncio
import hashlib
from collections import Counter
from datetime import timedelta
from typing import Any

import httpx
import pytest

from claudeproxy.sandbox.log import TokenOutcome
from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.oauth.client import (
    REDIRECT_URI,
    STATE,
    TOKEN_PATH,
    VERIFIER,
    bearer,
    code_for,
    exchange_body,
    refresh,
    refresh_body,
    refused,
)

MODELS_PATH = "/v1/models"
REVOKE_PATH = f"{TOKEN_PATH}/revoke"


def exchange(http: httpx.Client, code: str, **fields: str | None) -> httpx.Response:
    return http.post(TOKEN_PATH, json=exchange_body(code, **fields))


def status_with(http: httpx.Client, access_token: str) -> int:
    return http.get(MODELS_PATH, headers=bearer(access_token)).status_code


def test_a_code_gives_tokens_and_says_whose_they_are(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    answer = exchange(http, code_for(http, "katherine"))
    body = answer.json()
    person = sandbox.oauth.people["katherine"]
    assert status_with(http, body.pop("access_token")) == 200
    assert sandbox.oauth.is_family_alive(body.pop("refresh_token"))
    assert body == {
        "token_type": "Bearer",
        "expires_in": 8 * 3600,
        "refresh_token_expires_in": 30 * 24 * 3600,
        "scope": "user:profile user:inference",
        "organization": {
            "uuid": person.organization_id,
            "name": person.organization_name,
        },
        "account": {"uuid": person.holder_id, "email_address": person.email},
    }
    assert answer.headers["cache-control"] == "no-store"


def test_a_form_is_as_good_as_json(http: httpx.Client) -> None:
    answer = http.post(TOKEN_PATH, data=exchange_body(code_for(http)))
    assert answer.status_code == 200
    body = refresh_body(answer.json()["refresh_token"])
    assert http.post(TOKEN_PATH, data=body).status_code == 200


def test_the_state_may_be_left_out(http: httpx.Client) -> None:
    assert exchange(http, code_for(http), state=None).status_code == 200


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"code": "unknown"}, "invalid_grant"),
        ({"redirect_uri": f"{REDIRECT_URI}/"}, "invalid_grant"),
        ({"code_verifier": VERIFIER.upper()}, "invalid_grant"),
        ({"state": f"{STATE}x"}, "invalid_grant"),
        ({"client_id": "other"}, "invalid_client"),
        ({"client_id": None}, "invalid_request"),
        ({"code": None}, "invalid_request"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"code_verifier": None}, "invalid_request"),
        ({"grant_type": None}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
    ],
)
def test_an_exchange_that_does_not_fit_is_refused_and_uses_nothing_up(
    http: httpx.Client, sandbox: Sandbox, fields: dict[str, str | None], error: str
) -> None:
    code = code_for(http)
    assert refused(http.post(TOKEN_PATH, json=exchange_body(code) | fields)) == error
    assert sandbox.oauth.token_requests()[-1].token_outcome == error
    assert exchange(http, code).status_code == 200


def test_a_code_of_another_client_is_refused(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    code = code_for(http)
    sandbox.oauth.client_id = "other"
    assert refused(exchange(http, code, client_id="other")) == "invalid_grant"


def test_a_code_is_good_for_ten_minutes(http: httpx.Client, sandbox: Sandbox) -> None:
    early, late = code_for(http), code_for(http)
    sandbox.clock.advance(timedelta(minutes=9))
    assert exchange(http, early).status_code == 200
    sandbox.clock.advance(timedelta(minutes=1))
    assert refused(exchange(http, late)) == "invalid_grant"


def test_a_code_used_twice_revokes_what_came_of_it(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    code = code_for(http)
    first = exchange(http, code).json()
    other = sandbox.oauth.issue("dorothy")
    assert refused(exchange(http, code)) == "invalid_grant"
    assert sandbox.oauth.token_requests()[-1].token_outcome is TokenOutcome.REUSED
    assert status_with(http, first["access_token"]) == 401
    assert refused(refresh(http, first["refresh_token"])) == "invalid_grant"
    assert status_with(http, other.access_token) == 200


def test_a_refresh_rotates_and_spares_earlier_access_tokens(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    new = refresh(http, pair.refresh_token).json()
    assert new["refresh_token"] != pair.refresh_token
    assert status_with(http, new["access_token"]) == 200
    assert status_with(http, pair.access_token) == 200
    assert refresh(http, new["refresh_token"]).status_code == 200


def test_a_retired_refresh_token_revokes_the_whole_family(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    stranger = sandbox.oauth.issue("dorothy")
    new = refresh(http, pair.refresh_token).json()
    assert refused(refresh(http, pair.refresh_token)) == "invalid_grant"
    assert not sandbox.oauth.is_family_alive(new["refresh_token"])
    assert refused(refresh(http, new["refresh_token"])) == "invalid_grant"
    assert status_with(http, new["access_token"]) == 401
    assert status_with(http, pair.access_token) == 401
    assert status_with(http, stranger.access_token) == 200


def test_a_refresh_token_ends_by_itself(http: httpx.Client, sandbox: Sandbox) -> None:
    pair = sandbox.oauth.issue("dorothy")
    sandbox.clock.set(pair.refresh_token_expires_at)
    assert refused(refresh(http, pair.refresh_token)) == "invalid_grant"


def test_an_unknown_refresh_token_is_refused(http: httpx.Client) -> None:
    assert refused(refresh(http, "sk-unknown")) == "invalid_grant"


def test_a_refresh_token_of_another_client_is_refused_and_stays_good(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    sandbox.oauth.client_id = "other"
    answer = refresh(http, pair.refresh_token, client_id="other")
    assert refused(answer) == "invalid_grant"
    sandbox.oauth.client_id = "sandbox-client"
    assert refresh(http, pair.refresh_token).status_code == 200


def test_a_refresh_may_ask_for_less_and_get_the_rest_back_later(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    less = refresh(http, pair.refresh_token, scope="user:inference").json()
    assert less["scope"] == "user:inference"
    profile = http.get("/api/oauth/profile", headers=bearer(less["access_token"]))
    assert profile.status_code == 403
    whole = refresh(http, less["refresh_token"]).json()
    assert whole["scope"] == "user:profile user:inference"


def test_a_refresh_may_not_ask_for_more_and_uses_nothing_up(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("dorothy", scope="user:inference")
    answer = refresh(http, pair.refresh_token, scope="user:profile")
    assert refused(answer) == "invalid_scope"
    assert refresh(http, pair.refresh_token).status_code == 200


def test_the_lifetime_of_access_tokens_can_be_set(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    sandbox.oauth.access_token_lifetime = timedelta(seconds=90)
    body = refresh(http, pair.refresh_token).json()
    assert body["expires_in"] == 90
    sandbox.clock.advance(90)
    assert status_with(http, body["access_token"]) == 401


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b'{"grant_type": 1}', "application/json"),
        (b'{"grant_type": "\xff"}', "application/json"),
        (b'{"a":' * 10_000, "application/json"),
        (b"grant_type=a&grant_type=b", "application/x-www-form-urlencoded"),
        (b"grant_type=%ff", "application/x-www-form-urlencoded"),
        (b"grant_type=\xff", "application/x-www-form-urlencoded"),
        (b'{"grant_type": "refresh_token"}', "text/plain"),
        (b'{"grant_type": "refresh_token"}', ""),
    ],
)
def test_what_cannot_be_read_is_an_invalid_request(
    http: httpx.Client, content: bytes, content_type: str
) -> None:
    headers = {"content-type": content_type}
    answer = http.post(TOKEN_PATH, content=content, headers=headers)
    assert refused(answer) == "invalid_request"


@pytest.mark.parametrize("path", [TOKEN_PATH, REVOKE_PATH])
def test_tokens_are_asked_for_by_post(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_revocation_ends_the_family(
    http: httpx.Client, sandbox: Sandbox, kind: str
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    body = {"token": getattr(pair, kind), "client_id": "sandbox-client"}
    assert http.post(REVOKE_PATH, json=body).status_code == 200
    assert status_with(http, pair.access_token) == 401
    assert refused(refresh(http, pair.refresh_token)) == "invalid_grant"


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"client_id": "sandbox-client"}, "invalid_request"),
        ({"token": "x"}, "invalid_request"),
        ({"token": "x", "client_id": "other"}, "invalid_client"),
    ],
)
def test_a_wrong_revocation_is_refused(
    http: httpx.Client, body: dict[str, str], error: str
) -> None:
    assert refused(http.post(REVOKE_PATH, json=body)) == error


def test_revoking_an_unknown_token_is_no_error(http: httpx.Client) -> None:
    body = {"token": "unknown", "client_id": "sandbox-client"}
    assert http.post(REVOKE_PATH, json=body).status_code == 200


def test_the_log_tells_what_became_of_token_requests(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("radia")
    exchange(http, code_for(http, "dorothy"))
    refresh(http, pair.refresh_token)
    refresh(http, pair.refresh_token)
    refresh(http, "unknown")
    digest = hashlib.sha256(pair.refresh_token.encode()).hexdigest()
    unknown = hashlib.sha256(b"unknown").hexdigest()
    assert [
        (
            entry.account,
            entry.grant_type,
            entry.refresh_token_sha256,
            entry.token_outcome,
        )
        for entry in sandbox.oauth.token_requests()
    ] == [
        ("dorothy", "authorization_code", None, TokenOutcome.ISSUED),
        ("radia", "refresh_token", digest, TokenOutcome.ISSUED),
        ("radia", "refresh_token", digest, TokenOutcome.REUSED),
        (None, "refresh_token", unknown, TokenOutcome.INVALID_GRANT),
    ]
    assert sandbox.oauth.presentations() == {digest: 2, unknown: 1}
    assert sandbox.oauth.presented(pair.refresh_token) == 2


def test_no_token_gets_into_the_log_or_a_repr(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("radia")
    new = refresh(http, pair.refresh_token).json()
    http.get(MODELS_PATH, headers=bearer(new["access_token"]))
    http.post(TOKEN_PATH, params={"refresh_token": new["refresh_token"]})
    shown = http.get("/_sandbox/log").text + repr(pair) + repr(sandbox.log.after())
    for secret in (
        pair.access_token,
        pair.refresh_token,
        new["access_token"],
        new["refresh_token"],
    ):
        assert secret not in shown


async def test_of_many_simultaneous_refreshes_one_is_honoured(
    server: SandboxServer, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(
        base_url=server.url, trust_env=False, limits=limits
    ) as client:
        body: Any = refresh_body(pair.refresh_token)
        answers = await asyncio.gather(
            *(client.post(TOKEN_PATH, json=body) for _ in range(50))
        )
    assert Counter(answer.status_code for answer in answers) == {200: 1, 400: 49}
    assert not sandbox.oauth.is_family_alive(pair.refresh_token)
    assert sandbox.oauth.presented(pair.refresh_token) == 50
