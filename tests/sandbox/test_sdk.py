"""The official SDK understands every kind of answer."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from claudeproxy.sandbox.server import SandboxServer
from claudeproxy.sandbox.state import Sandbox
from tests.sandbox.wire import ask

TOOL = {
    "name": "get_weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    },
}
KINDS: dict[str, dict[str, Any]] = {
    "text": {},
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "tool": {"tools": [TOOL], "tool_choice": {"type": "any"}},
    "all": {
        "thinking": {"type": "adaptive"},
        "tools": [TOOL],
        "messages": [{"role": "user", "content": "Please call get_weather."}],
    },
    "short": {"max_tokens": 3},
    "cached": {
        "system": [
            {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}
        ]
    },
}


@pytest.fixture
def client(server: SandboxServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        api_key="sk-sandbox-ada", base_url=server.url, max_retries=0
    ) as client:
        yield client


@pytest.mark.parametrize("kind", KINDS)
def test_sdk_reads_the_same_from_stream_and_plain_answer(
    client: anthropic.Anthropic, kind: str
) -> None:
    request = ask(**KINDS[kind])
    plain = client.messages.create(**request)
    with client.messages.stream(**request) as stream:
        streamed = stream.get_final_message()
    assert streamed.to_dict() == plain.to_dict()


@pytest.mark.parametrize("kind", KINDS)
async def test_async_sdk_reads_the_same_from_stream_and_plain_answer(
    server: SandboxServer, kind: str
) -> None:
    request = ask(**KINDS[kind])
    async with anthropic.AsyncAnthropic(
        api_key="sk-sandbox-ada", base_url=server.url, max_retries=0
    ) as client:
        plain = await client.messages.create(**request)
        async with client.messages.stream(**request) as stream:
            streamed = await stream.get_final_message()
    assert streamed.to_dict() == plain.to_dict()


def test_sdk_gets_a_tool_call_that_fits_the_schema(
    client: anthropic.Anthropic,
) -> None:
    answer = client.messages.create(**ask(**KINDS["tool"]))
    assert answer.stop_reason == "tool_use"
    block = answer.content[-1]
    assert block.type == "tool_use"
    assert block.input == {"city": "sandbox", "days": 1}


def test_sdk_lists_models_over_several_pages(client: anthropic.Anthropic) -> None:
    ids = [model.id for model in client.models.list(limit=1)]
    assert ids == [
        "claude-opus-5-5",
        "claude-sonnet-5-5",
        "claude-haiku-5-5",
        "claude-haiku-4-5-20251001",
    ]


def test_sdk_finds_a_model_by_its_alias(client: anthropic.Anthropic) -> None:
    model = client.models.retrieve("claude-haiku-4-5")
    assert model.id == "claude-haiku-4-5-20251001"
    assert model.capabilities is not None
    assert model.capabilities.thinking.types.enabled.supported


def test_sdk_counts_tokens(client: anthropic.Anthropic) -> None:
    body = ask()
    del body["max_tokens"]
    assert client.messages.count_tokens(**body).input_tokens > 0


@pytest.mark.parametrize(
    ("status", "raised"),
    [
        (400, anthropic.BadRequestError),
        (401, anthropic.AuthenticationError),
        (403, anthropic.PermissionDeniedError),
        (404, anthropic.NotFoundError),
        (413, anthropic.APIStatusError),
        (429, anthropic.RateLimitError),
        (500, anthropic.InternalServerError),
        (529, anthropic.InternalServerError),
    ],
)
def test_sdk_raises_its_class_for_a_scripted_status(
    client: anthropic.Anthropic,
    sandbox: Sandbox,
    status: int,
    raised: type[anthropic.APIStatusError],
) -> None:
    sandbox.script.add("ada", {"status": status})
    with pytest.raises(raised) as caught:
        client.messages.create(**ask())
    assert caught.value.status_code == status
    assert caught.value.request_id


def test_sdk_raises_an_error_event(
    client: anthropic.Anthropic, sandbox: Sandbox
) -> None:
    step = {"error_at_frame": 4, "error_type": "api_error", "error_message": "Oh no"}
    sandbox.script.add("ada", step)
    with (
        pytest.raises(anthropic.APIStatusError, match="Oh no"),
        client.messages.stream(**ask()) as stream,
    ):
        stream.until_done()


@pytest.mark.parametrize("line_ending", ["\n", "\r\n", "\r"])
def test_sdk_reads_every_line_ending_split_at_every_byte(
    client: anthropic.Anthropic, sandbox: Sandbox, line_ending: str
) -> None:
    expected = client.messages.create(**ask())
    sandbox.script.add("ada", {"line_ending": line_ending, "split_every": 1})
    with client.messages.stream(**ask()) as stream:
        assert stream.get_final_message().to_dict() == expected.to_dict()
