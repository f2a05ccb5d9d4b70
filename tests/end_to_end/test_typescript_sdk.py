"""The official TypeScript SDK works through the gateway as it does without."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.node import Client, running
from tests.end_to_end.wire import ask

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def node() -> Iterator[Client]:
    with running() as process:
        yield process


Call = Callable[..., dict[str, Any]]


@pytest.fixture(params=["apiKey", "authToken"])
def call(node: Client, gateway: Gateway, request: pytest.FixtureRequest) -> Call:
    """Make a call that must succeed; return its result."""
    options = {"baseURL": gateway.url, request.param: gateway.key}

    def make(name: str, **body: Any) -> dict[str, Any]:
        outcome = node.call(name, options, body)
        assert "result" in outcome, outcome
        return dict(outcome["result"])

    return make


@pytest.fixture
def fail(node: Client, relaying_gateway: Gateway) -> Call:
    """Make a call that must fail; return its error."""

    def make(name: str, *, key: str = "", **body: Any) -> dict[str, Any]:
        gateway = relaying_gateway
        options = {"baseURL": gateway.url, "apiKey": key or gateway.key}
        outcome = node.call(name, options, body)
        assert "error" in outcome, outcome
        return dict(outcome["error"])

    return make


def test_sdk_gets_the_same_answer_streamed_and_whole(call: Call) -> None:
    whole = call("create", **ask())["message"]
    streamed = call("stream", **ask())
    assert streamed["text"] == whole["content"][0]["text"]
    assert streamed["message"]["content"] == whole["content"]
    assert streamed["message"]["usage"] == whole["usage"]


def test_sdk_sees_every_event_in_order(call: Call) -> None:
    types = call("rawStream", **ask())["types"]
    assert types[:2] == ["message_start", "content_block_start"]
    assert types[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_sdk_counts_tokens(call: Call) -> None:
    body = ask()
    del body["max_tokens"]
    assert call("countTokens", **body)["input_tokens"] > 0


def test_sdk_pages_through_the_models_of_one_account(call: Call) -> None:
    ids = call("models", limit=1)["ids"]
    assert len(ids) == len(set(ids)) == 4


def test_sdk_retrieves_a_model(call: Call) -> None:
    assert call("model", id="claude-opus-5-5")["display_name"] == "Claude Opus 5.5"


def test_request_id_is_the_gateways_own(call: Call, sandbox: Sandbox) -> None:
    request_id = call("create", **ask())["requestId"]
    (entry,) = sandbox.log.after()
    assert request_id.startswith("req_")
    assert request_id != entry.request_id


def test_sdk_raises_authentication_error_for_a_wrong_key(fail: Call) -> None:
    error = fail("create", key="wrong", **ask())
    assert error["classes"][0] == "AuthenticationError"
    assert "not a key of this gateway" in error["message"]
    assert error["requestId"]


def test_sdk_raises_not_found_for_an_unknown_model(fail: Call) -> None:
    error = fail("create", **ask(model="claude-none"))
    assert error["classes"][0] == "NotFoundError"
    assert "model: claude-none" in error["message"]


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, "BadRequestError"),
        (500, "InternalServerError"),
        (529, "OverloadedError"),
    ],
)
def test_sdk_raises_its_class_for_an_error_of_the_upstream(
    fail: Call, sandbox: Sandbox, status: int, raised: str
) -> None:
    sandbox.script.add("*", {"status": status, "error_message": "Said upstream."})
    error = fail("create", **ask())
    (entry,) = sandbox.log.after()
    assert (error["classes"][0], error["status"]) == (raised, status)
    assert "Said upstream." in error["message"]
    assert error["requestId"] != entry.request_id


@pytest.mark.parametrize(
    "step",
    [
        {"cut_before_frame": 6},
        {"cut_at_byte": 1_000},
        {"reset": {"at_byte": 1_000}},
        {"end_after_frame": 6},
        {"error_at_frame": 6},
    ],
    ids=lambda step: next(iter(step)),
)
@pytest.mark.parametrize("name", ["stream", "rawStream"])
def test_sdk_raises_when_a_stream_breaks(
    fail: Call, sandbox: Sandbox, name: str, step: dict[str, object]
) -> None:
    sandbox.script.add("*", step)
    assert "APIError" in fail(name, **ask())["classes"]


def test_sdk_raises_when_a_whole_answer_breaks(fail: Call, sandbox: Sandbox) -> None:
    sandbox.script.add("*", {"cut_at_byte": 100})
    assert fail("create", **ask())


def test_sdk_reads_a_stream_that_arrives_byte_by_byte(
    call: Call, sandbox: Sandbox
) -> None:
    sandbox.script.add("*", {"split_every": 1})
    streamed = call("stream", **ask())
    whole = call("create", **ask())["message"]
    assert streamed["text"] == whole["content"][0]["text"]
