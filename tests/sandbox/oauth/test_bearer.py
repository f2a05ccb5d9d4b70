"""Access tokens at the API, the profile and the usage."""

from datetime import datetime, timedelta

import httpx
import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.oauth.client import bearer
from tests.sandbox.wire import ask

PROFILE_PATH = "/api/oauth/profile"
USAGE_PATH = "/api/oauth/usage"
OAUTH_PATHS = [PROFILE_PATH, USAGE_PATH]
GET_PATHS = ["/v1/models", "/v1/models/claude-opus-5-5", *OAUTH_PATHS]


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["type"], error["message"]


def test_a_message_is_answered_by_the_person(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    headers = bearer(pair.access_token)
    answer = http.post("/v1/messages", json=ask(), headers=headers)
    person = sandbox.oauth.people["dorothy"]
    assert "dorothy" in answer.json()["content"][0]["text"]
    assert answer.headers["anthropic-organization-id"] == person.organization_id
    assert sandbox.log.after()[-1].account == "dorothy"


def test_tokens_are_counted_for_an_access_token(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    headers = bearer(sandbox.oauth.issue("dorothy").access_token)
    path = "/v1/messages/count_tokens"
    assert http.post(path, json=ask(), headers=headers).status_code == 200


def test_models_are_those_of_the_person(http: httpx.Client, sandbox: Sandbox) -> None:
    found = {}
    for name in ("dorothy", "radia"):
        headers = bearer(sandbox.oauth.issue(name).access_token, beta=None)
        page = http.get("/v1/models", headers=headers).json()
        found[name] = {model["id"] for model in page["data"]}
    assert found["radia"] - found["dorothy"] == {"claude-haiku-4-5-20251001"}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize("beta", [None, "other-beta", "oauth-2025-04-20x"])
def test_messages_need_the_beta_header(
    http: httpx.Client, sandbox: Sandbox, path: str, beta: str | None
) -> None:
    headers = bearer(sandbox.oauth.issue("dorothy").access_token, beta=beta)
    status, kind, text = error_of(http.post(path, json=ask(), headers=headers))
    assert (status, kind) == (401, "authentication_error")
    assert "anthropic-beta: oauth-2025-04-20" in text


def test_the_beta_header_may_be_one_of_several(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    beta = "other-beta, oauth-2025-04-20"
    headers = bearer(sandbox.oauth.issue("dorothy").access_token, beta=beta)
    answer = http.post("/v1/messages", json=ask(), headers=headers)
    assert answer.status_code == 200


def test_an_access_token_is_no_api_key(http: httpx.Client, sandbox: Sandbox) -> None:
    headers = bearer(sandbox.oauth.issue("dorothy").access_token)
    headers["x-api-key"] = headers.pop("authorization").removeprefix("Bearer ")
    answer = http.post("/v1/messages", json=ask(), headers=headers)
    assert error_of(answer) == (401, "authentication_error", "invalid x-api-key")
    assert "anthropic-organization-id" not in answer.headers


@pytest.mark.parametrize("path", GET_PATHS)
def test_an_unknown_token_is_refused(http: httpx.Client, path: str) -> None:
    answer = http.get(path, headers=bearer("sk-unknown"))
    assert error_of(answer)[:2] == (401, "authentication_error")


@pytest.mark.parametrize("path", GET_PATHS)
def test_a_token_is_refused_from_the_moment_it_expires(
    http: httpx.Client, sandbox: Sandbox, path: str
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    sandbox.clock.set(pair.expires_at - timedelta(seconds=30))
    assert http.get(path, headers=bearer(pair.access_token)).status_code == 200
    sandbox.clock.set(pair.expires_at)
    status, kind, text = error_of(http.get(path, headers=bearer(pair.access_token)))
    assert (status, kind) == (401, "authentication_error")
    assert "expired" in text


@pytest.mark.parametrize("path", GET_PATHS)
def test_a_revoked_token_is_refused(
    http: httpx.Client, sandbox: Sandbox, path: str
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    sandbox.oauth.revoke("dorothy")
    status, kind, text = error_of(http.get(path, headers=bearer(pair.access_token)))
    assert (status, kind) == (401, "authentication_error")
    assert "revoked" in text


def test_a_refused_token_is_still_known_by_name_in_the_log(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    pair = sandbox.oauth.issue("dorothy")
    sandbox.oauth.expire_access_tokens("dorothy")
    http.get("/v1/models", headers=bearer(pair.access_token))
    entry = sandbox.log.after()[-1]
    assert (entry.account, entry.status) == ("dorothy", 401)
    assert ("authorization", "[account dorothy]") in entry.headers


def test_a_refused_token_uses_up_no_step(http: httpx.Client, sandbox: Sandbox) -> None:
    pair = sandbox.oauth.issue("dorothy")
    sandbox.script.add("dorothy", {"status": 529})
    sandbox.oauth.expire_access_tokens("dorothy")
    http.post("/v1/messages", json=ask(), headers=bearer(pair.access_token))
    assert sandbox.script.pending() == {"dorothy": 1}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/claude-opus-5-5"])
def test_the_api_needs_the_scope_for_inference(
    http: httpx.Client, sandbox: Sandbox, path: str
) -> None:
    pair = sandbox.oauth.issue("dorothy", scope="user:profile")
    answer = http.get(path, headers=bearer(pair.access_token))
    assert error_of(answer)[:2] == (403, "permission_error")


@pytest.mark.parametrize("path", OAUTH_PATHS)
def test_profile_and_usage_need_the_scope_for_the_profile(
    http: httpx.Client, sandbox: Sandbox, path: str
) -> None:
    pair = sandbox.oauth.issue("dorothy", scope="user:inference")
    answer = http.get(path, headers=bearer(pair.access_token))
    assert error_of(answer)[:2] == (403, "permission_error")


@pytest.mark.parametrize("path", OAUTH_PATHS)
def test_profile_and_usage_are_not_for_api_keys(ada: httpx.Client, path: str) -> None:
    assert error_of(ada.get(path))[:2] == (401, "authentication_error")


@pytest.mark.parametrize("path", OAUTH_PATHS)
@pytest.mark.parametrize("beta", [None, "oauth-2025-04-20"])
def test_profile_and_usage_need_no_other_header(
    http: httpx.Client, sandbox: Sandbox, path: str, beta: str | None
) -> None:
    headers = bearer(sandbox.oauth.issue("dorothy").access_token, beta=beta)
    del headers["anthropic-version"]
    assert http.get(path, headers=headers).status_code == 200


def test_the_profile_says_who_it_is(http: httpx.Client, sandbox: Sandbox) -> None:
    pair = sandbox.oauth.issue("hedy-home")
    found = http.get(PROFILE_PATH, headers=bearer(pair.access_token)).json()
    person = sandbox.oauth.people["hedy-home"]
    assert found["account"] == {
        "uuid": person.holder_id,
        "email": "hedy.lamarr@sandbox.example",
        "full_name": "Hedy Lamarr",
        "display_name": "Hedy",
        "has_claude_max": True,
        "has_claude_pro": False,
    }
    assert (
        found["organization"].items()
        >= {
            "uuid": person.organization_id,
            "name": "Sandbox home of Hedy Lamarr",
            "organization_type": "claude_max",
        }.items()
    )


def test_answers_carry_the_headers_of_a_plan(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    headers = bearer(sandbox.oauth.issue("dorothy").access_token)
    answer = http.post("/v1/messages", json=ask(), headers=headers)
    limits = [name for name in answer.headers if "ratelimit" in name]
    assert limits
    assert all(name.startswith("anthropic-ratelimit-unified-") for name in limits)


def test_the_usage_agrees_with_the_headers(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    headers = bearer(sandbox.oauth.issue("dorothy").access_token)
    sandbox.script.add("dorothy", {"text": "word " * 20_000})
    answer = http.post("/v1/messages", json=ask(), headers=headers)
    usage = http.get(USAGE_PATH, headers=headers).json()
    prefix = "anthropic-ratelimit-unified"
    fraction = float(answer.headers[f"{prefix}-5h-utilization"])
    assert fraction > 0.05
    assert usage["five_hour"]["utilization"] == pytest.approx(fraction * 100)
    resets_at = datetime.fromisoformat(usage["five_hour"]["resets_at"])
    assert resets_at.timestamp() == int(answer.headers[f"{prefix}-5h-reset"])


def test_a_script_reaches_a_person_by_name(
    http: httpx.Client, sandbox: Sandbox
) -> None:
    statuses = {}
    sandbox.script.add("dorothy", {"status": 529})
    for name in ("katherine", "dorothy"):
        headers = bearer(sandbox.oauth.issue(name).access_token)
        answer = http.post("/v1/messages", json=ask(), headers=headers)
        statuses[name] = answer.status_code
    assert statuses == {"katherine": 200, "dorothy": 529}
