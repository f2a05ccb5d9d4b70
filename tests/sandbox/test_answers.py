"""What the answers say, without any server."""

import json
from dataclasses import replace
from typing import Any

import pytest

from claudeproxy.sandbox import answers, requests
from claudeproxy.sandbox.answers import Wording
from tests.sandbox.wire import ask, read_events

TOOLS = [
    {"name": "first", "input_schema": {"type": "object"}},
    {"name": "second", "input_schema": {"type": "object"}},
    {"name": "web_search", "type": "web_search_20250305"},
]
CACHED_SYSTEM = [
    {"type": "text", "text": "Long." * 50, "cache_control": {"type": "ephemeral"}}
]


def answer_to(
    wording: Wording | None = None, account: str = "ada", **fields: Any
) -> answers.Answer:
    head = requests.read_head(json.dumps(ask(**fields)).encode())
    return answers.compose(
        requests.read_conversation(head),
        account=account,
        model="claude-opus-5-5",
        wording=wording or Wording(),
    )


def plain(answer: answers.Answer) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(answers.message(answer))
    return result


def tool_names(answer: answers.Answer) -> list[str]:
    content = plain(answer)["content"]
    return [block["name"] for block in content if block["type"] == "tool_use"]


def test_the_same_request_gets_the_same_answer() -> None:
    assert answer_to() == answer_to(stream=True)


def test_other_accounts_and_other_requests_get_other_messages() -> None:
    ids = {answer_to().id, answer_to(account="adb").id, answer_to(max_tokens=999).id}
    assert len(ids) == 3


def test_the_text_has_characters_of_every_width() -> None:
    text = plain(answer_to())["content"][0]["text"]
    widths = {len(character.encode()) for character in text}
    assert widths == {1, 2, 3, 4}


@pytest.mark.parametrize("kind", ["enabled", "adaptive"])
def test_thinking_comes_first_and_is_signed(kind: str) -> None:
    block = plain(answer_to(thinking={"type": kind}))["content"][0]
    assert block["type"] == "thinking"
    assert block["thinking"]
    assert block["signature"]


def test_disabled_thinking_is_left_out() -> None:
    content = plain(answer_to(thinking={"type": "disabled"}))["content"]
    assert [block["type"] for block in content] == ["text"]


@pytest.mark.parametrize(
    ("choice", "text", "expected"),
    [
        (None, "Hello", []),
        (None, "Call second now", ["second"]),
        ({"type": "auto"}, "Call first", ["first"]),
        ({"type": "any"}, "Hello", ["first"]),
        ({"type": "tool", "name": "second"}, "Hello", ["second"]),
        ({"type": "none"}, "Call first", []),
        (None, "Call web_search", []),
    ],
)
def test_a_tool_is_used_when_chosen_or_mentioned(
    choice: dict[str, str] | None, text: str, expected: list[str]
) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": text}]}]
    answer = answer_to(tools=TOOLS, tool_choice=choice, messages=messages)
    assert tool_names(answer) == expected
    assert answer.stop_reason == ("tool_use" if expected else "end_turn")


def test_a_tool_result_is_answered_in_words() -> None:
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "first"}
    messages = [
        {"role": "user", "content": "Call first"},
        {"role": "assistant", "content": "..."},
        {"role": "user", "content": [result]},
    ]
    assert tool_names(answer_to(tools=TOOLS, messages=messages)) == []


def test_arguments_are_made_up_from_the_schema() -> None:
    schema = {
        "properties": {
            "const": {"const": 7},
            "enum": {"enum": ["b", "a"]},
            "list": {"type": "array"},
            "nested": {"type": "object", "properties": {"on": {"type": "boolean"}}},
            "either": {"type": ["string", "null"]},
            "anything": True,
        }
    }
    assert answers.sample(schema) == {
        "const": 7,
        "enum": "b",
        "list": [],
        "nested": {"on": True},
        "either": "sandbox",
        "anything": "sandbox",
    }


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_a_small_limit_cuts_the_text(limit: int) -> None:
    whole = plain(answer_to())["content"][0]["text"]
    answer = answer_to(max_tokens=limit)
    message = plain(answer)
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == limit
    assert whole.startswith(message["content"][0]["text"])


def test_a_limit_of_zero_only_warms_the_cache() -> None:
    message = plain(answer_to(max_tokens=0, system=CACHED_SYSTEM))
    assert message["content"] == []
    assert message["usage"]["output_tokens"] == 0
    assert message["usage"]["cache_creation_input_tokens"] > 0


def test_a_tool_call_that_does_not_fit_is_left_out() -> None:
    room = answer_to().usage.output_tokens
    answer = answer_to(tools=TOOLS, tool_choice={"type": "any"}, max_tokens=room)
    assert tool_names(answer) == []
    assert answer.stop_reason == "max_tokens"


def test_scripted_words_are_not_cut_by_the_limit() -> None:
    answer = answer_to(Wording("One two three four"), max_tokens=1)
    assert answer.stop_reason == "end_turn"
    assert plain(answer)["content"][0]["text"] == "One two three four"


@pytest.mark.parametrize("count", [1, 2, 60])
def test_scripted_text_comes_in_the_scripted_number_of_deltas(count: int) -> None:
    events = read_events(b"".join(answers.frames(answer_to(Wording("Hé 👋", count)))))
    texts = [
        data["delta"]["text"] for name, data in events if name == "content_block_delta"
    ]
    assert len(texts) == count
    assert "".join(texts) == "Hé 👋"


def test_nothing_is_cached_without_a_mark() -> None:
    usage = answer_to().usage
    assert usage.cache_creation_input_tokens == usage.cache_read_input_tokens == 0


@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_the_first_turn_writes_the_cache_with_its_life(ttl: str) -> None:
    mark = {"type": "ephemeral", "ttl": ttl}
    system = [{"type": "text", "text": "Long.", "cache_control": mark}]
    usage = plain(answer_to(system=system))["usage"]
    written = usage["cache_creation_input_tokens"]
    other = {"5m": "1h", "1h": "5m"}[ttl]
    assert written > 0
    assert usage["cache_creation"] == {
        f"ephemeral_{ttl}_input_tokens": written,
        f"ephemeral_{other}_input_tokens": 0,
    }


def test_a_later_turn_reads_the_cache() -> None:
    messages = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three"},
    ]
    usage = answer_to(system=CACHED_SYSTEM, messages=messages).usage
    assert usage.cache_read_input_tokens > 0
    assert usage.limited_input_tokens == (
        usage.input_tokens + usage.cache_creation_input_tokens
    )


def test_usage_at_the_end_of_a_stream_is_cumulative() -> None:
    answer = answer_to(thinking={"type": "enabled"})
    events = dict(read_events(b"".join(answers.frames(answer))))
    begun = events["message_start"]["message"]["usage"]
    ended = events["message_delta"]["usage"]
    final = plain(answer)["usage"]
    assert begun["output_tokens"] == 1
    assert begun | ended == final


def test_long_streams_have_more_pings() -> None:
    frames = answers.frames(answer_to(Wording(deltas=100)))
    assert frames.count(answers.PING) == 6


OWN_USAGE: dict[str, object] = {
    "input_tokens": 7,
    "output_tokens": 90,
    "speed": "fast",
    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 0},
    "iterations": [{"type": "message", "input_tokens": 7, "output_tokens": 90}],
}


def test_scripted_usage_stands_above_what_is_guessed() -> None:
    guessed = plain(answer_to(system=CACHED_SYSTEM))["usage"]
    stated = plain(replace(answer_to(system=CACHED_SYSTEM), own_usage=OWN_USAGE))
    assert stated["usage"] == guessed | OWN_USAGE


def test_scripted_usage_of_a_stream_comes_when_it_can_be_known() -> None:
    answer = replace(answer_to(), own_usage=OWN_USAGE)
    events = dict(read_events(b"".join(answers.frames(answer))))
    begun = events["message_start"]["message"]["usage"]
    ended = events["message_delta"]["usage"]
    assert (begun["input_tokens"], begun["output_tokens"]) == (7, 1)
    assert begun["speed"] == "fast"
    assert begun["server_tool_use"] is None
    assert "iterations" not in begun
    assert (ended["input_tokens"], ended["output_tokens"]) == (7, 90)
    assert ended["server_tool_use"] == OWN_USAGE["server_tool_use"]
    assert ended["iterations"] == OWN_USAGE["iterations"]
    assert "speed" not in ended


def test_scripted_output_that_is_no_number_is_said_from_the_start() -> None:
    answer = replace(answer_to(), own_usage={"output_tokens": "many"})
    events = dict(read_events(b"".join(answers.frames(answer))))
    assert events["message_start"]["message"]["usage"]["output_tokens"] == "many"
    assert events["message_delta"]["usage"]["output_tokens"] == "many"
