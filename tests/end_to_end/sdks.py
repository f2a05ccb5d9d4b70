"""The official SDKs behind one door: what a call gets, or what it raises.

Their own retries are off, so each call is one request to the gateway.
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anthropic

from tests.end_to_end.gateway import Gateway
from tests.end_to_end.node import Client


@dataclass(frozen=True)
class Got:
    """What came of a call: the text of a whole message, or an error."""

    text: str | None = None
    classes: tuple[str, ...] = ()  # the error's and its ancestors', nearest first
    status: int | None = None
    kind: str | None = None
    request_id: str | None = None
    retry_after: str | None = None
    should_retry: str | None = None


# Read once: a client of its own for each call would read all certificates each time.
_TLS = ssl.create_default_context()

Call = Callable[[Gateway, dict[str, Any], dict[str, str], bool], Got]


def _text(message: anthropic.types.Message) -> str:
    (block,) = message.content
    assert block.type == "text"
    assert message.stop_reason == "end_turn"
    return block.text


def _raised(error: anthropic.APIStatusError) -> Got:
    headers = error.response.headers
    return Got(
        classes=tuple(each.__name__ for each in type(error).__mro__),
        status=error.status_code,
        kind=error.type,
        request_id=error.request_id,
        retry_after=headers.get("retry-after"),
        should_retry=headers.get("x-should-retry"),
    )


def _options(gateway: Gateway, headers: dict[str, str]) -> dict[str, Any]:
    return {
        "base_url": gateway.url,
        "api_key": gateway.key,
        "max_retries": 0,
        "timeout": 20,
        "default_headers": headers,
    }


def python(
    gateway: Gateway, body: dict[str, Any], headers: dict[str, str], is_stream: bool
) -> Got:
    http_client = anthropic.DefaultHttpxClient(verify=_TLS)
    options = _options(gateway, headers)
    with anthropic.Anthropic(**options, http_client=http_client) as client:
        try:
            if not is_stream:
                return Got(_text(client.messages.create(**body)))
            with client.messages.stream(**body) as events:
                return Got(_text(events.get_final_message()))
        except anthropic.APIStatusError as error:
            return _raised(error)


async def _call_async(
    gateway: Gateway, body: dict[str, Any], headers: dict[str, str], is_stream: bool
) -> Got:
    http_client = anthropic.DefaultAsyncHttpxClient(verify=_TLS)
    options = _options(gateway, headers)
    async with anthropic.AsyncAnthropic(**options, http_client=http_client) as client:
        try:
            if not is_stream:
                return Got(_text(await client.messages.create(**body)))
            async with client.messages.stream(**body) as events:
                return Got(_text(await events.get_final_message()))
        except anthropic.APIStatusError as error:
            return _raised(error)


def async_python(
    gateway: Gateway, body: dict[str, Any], headers: dict[str, str], is_stream: bool
) -> Got:
    return asyncio.run(_call_async(gateway, body, headers, is_stream))


def typescript(node: Client) -> Call:
    """Return the calls of a Node process."""

    def call(
        gateway: Gateway, body: dict[str, Any], headers: dict[str, str], is_stream: bool
    ) -> Got:
        options = {
            "baseURL": gateway.url,
            "apiKey": gateway.key,
            "defaultHeaders": headers,
        }
        outcome = node.call("stream" if is_stream else "create", options, body)
        if "result" in outcome:
            (block,) = outcome["result"]["message"]["content"]
            return Got(block["text"])
        error = outcome["error"]
        return Got(
            classes=tuple(error["classes"]),
            status=error.get("status"),
            kind=error.get("type"),
            request_id=error.get("requestId"),
            retry_after=error["retryAfter"],
            should_retry=error["shouldRetry"],
        )

    return call
