"""Whatever is sent, the answer is clear and nothing wrong reaches the upstream."""

import asyncio
import json

import anthropic
import httpx
import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.checks import Peak, assert_envelope
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import (
    Wire,
    ask,
    chunked,
    exchange,
    fetch,
    head,
    parse,
    request,
)

pytestmark = pytest.mark.processes

MEBIBYTE = 1024**2
TOO_LARGE = 33 * MEBIBYTE


@pytest.mark.parametrize(
    "target",
    [
        "/v1",
        "/v1/",
        "/v1/messages/",
        "/v1/messagesx",
        "/v1/Messages",
        "/v1//messages",
        "//v1/messages",
        "/v1/./messages",
        "/v1/../v1/messages",
        "/v1/models/..",
        "/v1/models/.",
        "/v1/models/../messages",
        "/v1/models/..%2Fmessages",
        "/v1/models/%2e%2e/messages",
        "/v1/messages%2Fcount_tokens",
        "/v1%2Fmessages",
        "/%761/messages",
        "/v1/messages%00",
        "/v1/messages;x=1",
        "/v1/models/a/b",
        "/v1/models/" + "a" * 201,
        "/v1/organizations/api_keys",
        "/v1/oauth/token",
        "/v1/complete",
        "/v1/\\messages",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unlisted_path_is_not_found(
    gateway: Gateway, sandbox: Sandbox, target: str, method: str
) -> None:
    data = request(ask(), key=gateway.key, target=target, method=method)
    answer = exchange(gateway.port, data)
    if answer.header("content-type") == "application/json":
        assert_envelope(answer, 404, "not_found_error")
    else:  # not below /v1 at all: a page of the site, as for any browser
        assert answer.status == 404
    assert sandbox.log.after() == []


@pytest.mark.parametrize(
    ("method", "target", "allowed"),
    [
        ("GET", "/v1/messages", "POST"),
        ("PUT", "/v1/messages", "POST"),
        ("OPTIONS", "/v1/messages", "POST"),
        ("DELETE", "/v1/messages/count_tokens", "POST"),
        ("POST", "/v1/models", "GET"),
        ("PATCH", "/v1/models/claude-opus-5-5", "GET"),
    ],
)
def test_wrong_method_is_refused_with_the_right_one(
    gateway: Gateway, sandbox: Sandbox, method: str, target: str, allowed: str
) -> None:
    data = request(b"", key=gateway.key, target=target, method=method)
    answer = exchange(gateway.port, data)
    assert_envelope(answer, 405, "invalid_request_error")
    assert answer.header("allow") == allowed
    assert sandbox.log.after() == []


@pytest.mark.parametrize("target", ["/", "/api/hello"])
def test_probe_of_a_client_is_answered(gateway: Gateway, target: str) -> None:
    answer = httpx.head(gateway.url + target, trust_env=False)
    assert answer.status_code == 200
    assert answer.content == b""


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff"])
def test_body_that_is_no_request_gets_the_upstreams_own_refusal(
    ana: httpx.Client, sandbox: Sandbox, body: bytes
) -> None:
    answer = ana.post("/v1/messages", content=body)
    (entry,) = sandbox.log.after()
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["request_id"] == entry.request_id


def declared(gateway: Gateway) -> bytes:
    return request(b"x" * TOO_LARGE, key=gateway.key)


def in_chunks(gateway: Gateway) -> bytes:
    pairs = [
        ("host", "gateway.test"),
        ("connection", "close"),
        ("x-api-key", gateway.key),
        ("transfer-encoding", "chunked"),
    ]
    pieces = [b"x" * MEBIBYTE] * (TOO_LARGE // MEBIBYTE)
    return head("POST /v1/messages HTTP/1.1", pairs) + chunked(pieces)


@pytest.mark.parametrize("form", [declared, in_chunks])
def test_too_large_body_is_refused_and_nothing_of_it_goes_upstream(
    gateway: Gateway, sandbox: Sandbox, form: object
) -> None:
    assert callable(form)
    answer = exchange(gateway.port, form(gateway))
    assert_envelope(answer, 413, "request_too_large")
    assert sandbox.log.after() == []


def test_sdk_raises_its_class_for_a_too_large_body(gateway: Gateway) -> None:
    with (
        anthropic.Anthropic(
            base_url=gateway.url, api_key=gateway.key, max_retries=0
        ) as client,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        client.messages.create(**ask("x" * TOO_LARGE))
    assert caught.value.status_code == 413


async def test_large_bodies_announced_take_no_memory(gateway: Gateway) -> None:
    data = declared(gateway)
    with Peak(gateway.worker()) as peak:
        answers = await asyncio.gather(*(fetch(gateway.port, data) for _ in range(4)))
    assert {answer.status for answer in answers} == {413}
    assert peak.grown_bytes < 12 * MEBIBYTE


async def test_large_body_unannounced_takes_no_more_than_its_limit(
    gateway: Gateway,
) -> None:
    data = in_chunks(gateway)
    with Peak(gateway.worker()) as peak:
        assert (await fetch(gateway.port, data)).status == 413
    assert peak.grown_bytes < 2 * 32 * MEBIBYTE


async def test_bodies_of_strangers_take_no_memory(
    gateway: Gateway, sandbox: Sandbox
) -> None:
    body = json.dumps(ask("x" * 30 * MEBIBYTE)).encode()
    data = request(body, key="wrong")
    with Peak(gateway.worker()) as peak:
        answers = await asyncio.gather(*(fetch(gateway.port, data) for _ in range(4)))
    assert {answer.status for answer in answers} == {401}
    assert peak.grown_bytes < 12 * MEBIBYTE
    assert sandbox.log.after() == []


def test_large_body_of_a_list_is_refused(gateway: Gateway, sandbox: Sandbox) -> None:
    body = b"x" * 2 * MEBIBYTE
    data = request(body, key=gateway.key, method="GET", target="/v1/models")
    assert_envelope(exchange(gateway.port, data), 413, "request_too_large")
    assert sandbox.log.after() == []


def test_body_that_comes_too_slowly_is_ended(
    hasty_gateway: Gateway, sandbox: Sandbox
) -> None:
    data = request(ask("x" * 1_000), key=hasty_gateway.key)
    with Wire(hasty_gateway.port) as wire:
        wire.send(data[:-10])
        wire.receive_until(b"timeout_error")
        wire.send(data[-10:])
        answer = parse(wire.rest())
    assert_envelope(answer, 408, "timeout_error")
    assert sandbox.log.after() == []
