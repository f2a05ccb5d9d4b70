"""The API side over real sockets, as a plain HTTP client sees it."""

import uuid
from datetime import datetime

import httpx
import pytest

from claudeproxy.sandbox.app import BODY_LIMIT_BYTES
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.wire import ask, read_events

FAMILIES = ("requests", "tokens", "input-tokens", "output-tokens")


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    body = answer.json()
    assert body["type"] == "error"
    assert body["request_id"] == answer.headers["request-id"]
    return answer.status_code, body["error"]["type"], body["error"]["message"]


def test_an_answer_names_the_sandbox_and_the_account(ada: httpx.Client) -> None:
    text = ada.post("/v1/messages", json=ask()).json()["content"][0]["text"]
    assert "sandbox" in text
    assert "ada" in text


def test_every_answer_is_labelled(ada: httpx.Client) -> None:
    for method, path in [
        ("POST", "/v1/messages"),
        ("GET", "/v1/models"),
        ("GET", "/nowhere"),
        ("HEAD", "/"),
        ("GET", "/_sandbox/"),
        ("GET", "/_sandbox/nowhere"),
    ]:
        assert ada.request(method, path).headers["x-claude-sandbox"] == "1"


def test_each_account_answers_for_its_own_organization(ada: httpx.Client) -> None:
    organizations = set()
    for name in ("ada", "grace", "edsger"):
        headers = {"x-api-key": f"sk-sandbox-{name}"}
        answer = ada.post("/v1/messages", json=ask(), headers=headers)
        organizations.add(answer.headers["anthropic-organization-id"])
        assert name in answer.json()["content"][0]["text"]
    assert len({uuid.UUID(found) for found in organizations}) == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "sk-unknown"},
        {"x-api-key": ""},
        {"x-api-key": "sk-unknown", "authorization": "Bearer sk-sandbox-ada"},
    ],
)
def test_an_unknown_key_is_refused(ada: httpx.Client, headers: dict[str, str]) -> None:
    answer = ada.post("/v1/messages", json=ask(), headers=headers)
    assert error_of(answer)[:2] == (401, "authentication_error")
    assert "anthropic-organization-id" not in answer.headers


def test_a_missing_key_is_refused(ada: httpx.Client) -> None:
    del ada.headers["x-api-key"]
    answer = ada.post("/v1/messages", json=ask())
    assert error_of(answer)[:2] == (401, "authentication_error")


def test_a_bearer_key_is_accepted(ada: httpx.Client) -> None:
    del ada.headers["x-api-key"]
    headers = {"authorization": "Bearer sk-sandbox-grace"}
    answer = ada.post("/v1/messages", json=ask(), headers=headers)
    assert "grace" in answer.json()["content"][0]["text"]


@pytest.mark.parametrize("name", ["model", "max_tokens", "messages"])
def test_a_missing_field_is_named(ada: httpx.Client, name: str) -> None:
    body = ask()
    del body[name]
    status, kind, text = error_of(ada.post("/v1/messages", json=body))
    assert (status, kind) == (400, "invalid_request_error")
    assert text.startswith(f"{name}: ")


def test_broken_json_is_a_bad_request(ada: httpx.Client) -> None:
    status, kind, text = error_of(ada.post("/v1/messages", content=b'{"model": '))
    assert (status, kind) == (400, "invalid_request_error")
    assert "not valid JSON" in text


def test_a_missing_version_header_is_a_bad_request(ada: httpx.Client) -> None:
    del ada.headers["anthropic-version"]
    answer = ada.post("/v1/messages", json=ask())
    assert error_of(answer)[2].startswith("anthropic-version")


def test_a_model_of_another_account_is_not_found(ada: httpx.Client) -> None:
    answer = ada.post("/v1/messages", json=ask(model="claude-fable-5-2"))
    assert error_of(answer)[:2] == (404, "not_found_error")


def test_an_unknown_path_is_not_found(ada: httpx.Client) -> None:
    assert error_of(ada.get("/v1/nothing"))[:2] == (404, "not_found_error")
    assert error_of(ada.get("/nothing"))[:2] == (404, "not_found_error")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/messages", "POST"),
        ("GET", "/v1/messages/count_tokens", "POST"),
        ("POST", "/v1/models", "GET"),
        ("DELETE", "/v1/models/claude-opus-5-5", "GET"),
        ("GET", "/", "HEAD"),
    ],
)
def test_a_wrong_method_is_refused_with_the_right_one(
    ada: httpx.Client, method: str, path: str, allowed: str
) -> None:
    answer = ada.request(method, path)
    assert error_of(answer)[0] == 405
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/api/hello"])
def test_the_probes_of_clients_need_no_key(ada: httpx.Client, path: str) -> None:
    del ada.headers["x-api-key"]
    assert ada.head(path).status_code == 200


def test_a_body_over_the_limit_is_too_large(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    answer = ada.post("/v1/messages", content=bytes(BODY_LIMIT_BYTES + 1))
    assert error_of(answer)[:2] == (413, "request_too_large")
    assert sandbox.log.after()[0].body_bytes == BODY_LIMIT_BYTES + 1


def test_a_body_at_the_limit_is_read(ada: httpx.Client) -> None:
    body = b'{"model": 1}'.ljust(BODY_LIMIT_BYTES)
    answer = ada.post("/v1/messages", content=body)
    assert error_of(answer)[2].startswith("model: ")


def test_rate_limits_are_told_for_all_four_families(ada: httpx.Client) -> None:
    headers = ada.get("/v1/models").headers
    for family in FAMILIES:
        prefix = f"anthropic-ratelimit-{family}"
        limit, remaining = (
            int(headers[f"{prefix}-{part}"]) for part in ("limit", "remaining")
        )
        assert 0 < remaining <= limit
        assert datetime.fromisoformat(headers[f"{prefix}-reset"]).tzinfo is not None


def test_remaining_requests_count_down(ada: httpx.Client) -> None:
    name = "anthropic-ratelimit-requests-remaining"
    seen = [int(ada.post("/v1/messages", json=ask()).headers[name]) for _ in range(10)]
    assert seen[-1] < seen[0]
    assert seen == sorted(seen, reverse=True)


def test_rate_limits_recover_by_the_clock_of_the_sandbox(
    ada: httpx.Client, sandbox: Sandbox
) -> None:
    name = "anthropic-ratelimit-requests-remaining"
    for _ in range(30):
        ada.post("/v1/messages", json=ask())
    assert int(ada.get("/v1/models").headers[name]) < 1000
    sandbox.clock.advance(60)
    assert ada.get("/v1/models").headers[name] == "1000"


def test_a_stream_and_a_plain_answer_say_the_same(ada: httpx.Client) -> None:
    plain = ada.post("/v1/messages", json=ask()).json()
    answer = ada.post("/v1/messages", json=ask(stream=True))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = read_events(answer.content)
    texts = [
        data["delta"]["text"] for name, data in events if name == "content_block_delta"
    ]
    assert "".join(texts) == plain["content"][0]["text"]
    assert events[0][1]["message"]["id"] == plain["id"]


def test_a_stream_has_pings_among_its_events(ada: httpx.Client) -> None:
    answer = ada.post("/v1/messages", json=ask(stream=True))
    names = [name for name, _ in read_events(answer.content)]
    assert names[0] == "message_start"
    assert names[-2:] == ["message_delta", "message_stop"]
    assert "ping" in names[1:-2]


def test_tokens_are_counted_as_the_usage_says(ada: httpx.Client) -> None:
    body = ask()
    usage = ada.post("/v1/messages", json=body).json()["usage"]
    del body["max_tokens"]
    counted = ada.post("/v1/messages/count_tokens", json=body).json()
    assert counted == {"input_tokens": usage["input_tokens"]}


def test_an_unknown_model_is_not_found_in_the_list(ada: httpx.Client) -> None:
    answer = ada.get("/v1/models/claude-unknown")
    assert error_of(answer)[:2] == (404, "not_found_error")


def test_models_come_in_pages(ada: httpx.Client) -> None:
    first = ada.get("/v1/models", params={"limit": 3}).json()
    rest = ada.get("/v1/models", params={"after_id": first["last_id"]}).json()
    assert (len(first["data"]), first["has_more"]) == (3, True)
    assert (len(rest["data"]), rest["has_more"]) == (1, False)
