"""A stream that makes no sense: its caller gets all of it, or an error, never less."""

from typing import Any

import anthropic
import pytest

from claudeproxy.sandbox.state import Sandbox
from tests.end_to_end.breaks import error_in
from tests.end_to_end.checks import assert_envelope
from tests.end_to_end.gateway import Gateway
from tests.end_to_end.wire import Answer, ask, exchange, frames, request

pytestmark = pytest.mark.processes

START = (
    'event: message_start\ndata: {"type": "message_start", "message": {"id": "msg_1", '
    '"type": "message", "role": "assistant", "model": "claude-opus-5-5", "content": [],'
    ' "stop_reason": null, "stop_sequence": null, '
    '"usage": {"input_tokens": 1, "output_tokens": 1}}}\n\n'
    'event: content_block_start\ndata: {"type": "content_block_start", "index": 0, '
    '"content_block": {"type": "text", "text": ""}}\n\n'
)
DELTA = (
    'event: content_block_delta\ndata: {"type": "content_block_delta", "index": 0, '
    '"delta": {"type": "text_delta", "text": "Words. "}}\n\n'
)
STOP = (
    'event: content_block_stop\ndata: {"type": "content_block_stop", "index": 0}\n\n'
    'event: message_delta\ndata: {"type": "message_delta", "delta": {"stop_reason": '
    '"end_turn", "stop_sequence": null}, "usage": {"output_tokens": 2}}\n\n'
    'event: message_stop\ndata: {"type": "message_stop"}\n\n'
)
HEAD = "event: content_block_delta\ndata: "
# What stands between two deltas.
HARMLESS = {
    "nothing": "",
    "comment": ": hello\n\n",
    "unknown event": 'event: novelty\ndata: {"type": "novelty"}\n\n',
    "unknown line": "priority: 1\n",
    "ping without data": "event: ping\n\n",
    "id": "id: 7\n\n",
    "NUL in a comment": ": \0\n\n",
    "empty lines": "\n\n\n",
}
BAD = {
    "no JSON": HEAD + "oops\n\n",
    "half JSON": HEAD + '{"type": "content_block_del\n\n',
    "no object": HEAD + "[]\n\n",
    "no data": "event: content_block_delta\n\n",
    "only data": DELTA.partition("\n")[2],
    "unknown line instead": "oops\n\n",
    "garbage in the name": DELTA.replace("block_delta\n", "block\0delta\n"),
    "NUL": "\0\0\n\n",
    "NUL in a text": DELTA.replace("Words", "\0"),
    "a page": "<html>\n<body>Bad gateway</body>\n\n",
    "message in a message": STOP + START,
}


@pytest.fixture
def gateway(relaying_gateway: Gateway) -> Gateway:
    """Nobody else steps in, so that what the stream does can be seen."""
    return relaying_gateway


def say(sandbox: Sandbox, body: str, **rest: Any) -> None:
    stream = {"headers": {"content-type": "text/event-stream"}, "body": body}
    sandbox.script.add("*", stream | rest)


def stream(gateway: Gateway) -> Answer:
    return exchange(gateway.port, request(ask(stream=True), key=gateway.key))


def text_of(gateway: Gateway) -> str:
    with (
        anthropic.Anthropic(
            base_url=gateway.url, api_key=gateway.key, max_retries=0
        ) as client,
        client.messages.stream(**ask()) as events,
    ):
        return events.get_final_text()


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", HARMLESS)
def test_sdk_reads_past_what_is_harmless(
    gateway: Gateway, sandbox: Sandbox, name: str, line_end: str
) -> None:
    whole = START + DELTA + HARMLESS[name] + DELTA + STOP
    for _ in range(2):
        say(sandbox, whole.replace("\n", line_end))
    assert stream(gateway).body == whole.replace("\n", line_end).encode()
    assert text_of(gateway) == "Words. Words. "


def test_sdk_reads_a_mix_of_line_ends(gateway: Gateway, sandbox: Sandbox) -> None:
    mixed = (
        START.replace("\n", "\r\n")
        + DELTA.replace("\n\n", "\n\r\n")
        + DELTA.replace("\n", "\r")
        + STOP
    )
    for _ in range(2):
        say(sandbox, mixed, split_every=7)
    assert stream(gateway).body == mixed.encode()
    assert text_of(gateway) == "Words. Words. "


@pytest.mark.parametrize("name", BAD)
def test_stream_that_makes_no_sense_ends_with_an_error_event(
    gateway: Gateway, sandbox: Sandbox, name: str
) -> None:
    # What makes sense arrives before the rest.
    begun = START + DELTA
    apart = {"split_every": len(begun), "frame_delay_ms": 100}
    say(sandbox, begun + BAD[name] + DELTA + STOP, **apart)
    answer = stream(gateway)
    *kept, last = frames(answer.body)
    assert answer.is_whole
    whole = begun + (STOP if BAD[name].startswith(STOP) else "")
    assert b"".join(kept) == whole.encode()
    assert error_in(last)["request_id"] == answer.header("request-id")
    line = gateway.logged(answer.header("request-id") or "")
    assert line["end"] == "upstream_error"


def test_frame_that_never_ends_is_given_up(gateway: Gateway, sandbox: Sandbox) -> None:
    say(sandbox, START + DELTA + "event: " + "x" * (33 * 1024**2))
    answer = stream(gateway)
    if answer.status == 503:  # all of it may have come before anybody saw anything
        assert_envelope(answer, 503, "api_error")
        return
    *kept, last = frames(answer.body)
    assert b"".join(kept) == (START + DELTA).encode()
    error_in(last)


@pytest.mark.parametrize("split", [None, 50])
@pytest.mark.parametrize("name", BAD)
def test_sdk_raises_its_own_error_for_what_makes_no_sense(
    gateway: Gateway, sandbox: Sandbox, name: str, split: int | None
) -> None:
    body = START + DELTA + BAD[name] + DELTA + STOP
    say(sandbox, body, **({"split_every": split} if split else {}))
    with pytest.raises(anthropic.APIStatusError):
        text_of(gateway)
