"""Which request bodies are refused, and why."""

import json
from typing import Any

import pytest

from claudeproxy.sandbox import requests
from claudeproxy.sandbox.errors import ApiError
from tests.sandbox.wire import ask

TOOLS = [{"name": "first", "input_schema": {}}]


def refused(body: bytes) -> str:
    with pytest.raises(ApiError) as caught:
        requests.read_conversation(requests.read_head(body))
    assert caught.value.status == 400
    return caught.value.message


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": 1}, "model: "),
        ({"model": None}, "model: Field required"),
        ({"max_tokens": "1"}, "max_tokens: "),
        ({"max_tokens": -1}, "max_tokens: "),
        ({"max_tokens": 0, "stream": True}, "max_tokens: "),
        ({"stream": 1}, "stream: "),
        ({"messages": "hi"}, "messages: "),
        ({"messages": []}, "messages: "),
        ({"messages": [{"role": "user"}]}, "messages.0: "),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages.0.role: "),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages.0.content.0: ",
        ),
        ({"tools": {}}, "tools: "),
        ({"tool_choice": {"type": "any"}}, "tool_choice: "),
        ({"tool_choice": {"type": "some"}, "tools": TOOLS}, "tool_choice.type: "),
        (
            {"tool_choice": {"type": "tool", "name": "x"}, "tools": TOOLS},
            "tool_choice.name: ",
        ),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], reason: str) -> None:
    assert refused(json.dumps(ask(**fields)).encode()).startswith(reason)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"model": "\xff"}', b"[" * 100_000, b'{"system": "\xff"}'],
)
def test_what_is_not_json_is_refused_as_such(body: bytes) -> None:
    assert refused(body)


def test_unknown_fields_are_ignored() -> None:
    head = requests.read_head(json.dumps(ask(new_field=[1])).encode())
    assert requests.read_conversation(head).model == "claude-opus-5-5"


def test_system_messages_may_stand_in_the_conversation() -> None:
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "system", "content": "Be brief.", "output_config": {}},
    ]
    head = requests.read_head(json.dumps(ask(messages=messages)).encode())
    assert requests.read_conversation(head).last_user_text == "Hello"


def test_counting_needs_no_limit() -> None:
    body = ask()
    del body["max_tokens"]
    head = requests.read_head(json.dumps(body).encode())
    assert requests.read_conversation(head, counting=True).input_tokens > 0
