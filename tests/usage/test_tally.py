"""What an answer says it used, read from its bytes."""

import json
from time import perf_counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudeproxy.sandbox import answers, requests
from claudeproxy.sandbox.answers import Answer, Wording
from proxy.sse import FrameReader
from tests.sandbox.wire import ask
from usage.tally import Tally
from usage.tokens import Part, Tokens

CACHED = [{"type": "text", "text": "L" * 900, "cache_control": {"type": "ephemeral"}}]
KEPT = [
    {
        "type": "text",
        "text": "L" * 900,
        "cache_control": {"type": "ephemeral", "ttl": "1h"},
    }
]
TURNS = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "event: message_delta\ndata: {}\n\n"},
]


def compose(wording: Wording, **fields: Any) -> Answer:
    head = requests.read_head(json.dumps(ask(**fields)).encode())
    return answers.compose(
        requests.read_conversation(head),
        account="ada",
        model="claude-opus-5-5",
        wording=wording,
    )


def streamed(data: bytes, *sizes: int) -> Tally:
    """Tally a stream that arrives in pieces, as the relay would."""
    tally, reader, at = Tally(), FrameReader(), 0
    for size in (*sizes, len(data)):
        tally.note_frames(reader.feed(data[at : at + size]))
        at += size
    tally.note_frames(reader.finish())
    return tally


def plain(body: Any) -> Tally:
    tally = Tally()
    tally.note_body(body if isinstance(body, bytes) else json.dumps(body).encode())
    return tally


def message(**usage: Any) -> dict[str, Any]:
    return {"type": "message", "model": "m", "stop_reason": "end_turn", "usage": usage}


def event(name: str, **data: Any) -> bytes:
    return answers.frame(name, {"type": name, **data})


def start(**usage: Any) -> bytes:
    return event("message_start", message=message(**usage) | {"stop_reason": None})


def delta(**usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": "max_tokens"}, usage=usage)


def usage_of(tally: Tally) -> Any:
    assert tally.usage is not None
    return tally.usage


# --- whole answers

compositions = st.fixed_dictionaries(
    {
        "max_tokens": st.integers(1, 60),
        "messages": st.sampled_from([TURNS[:1], TURNS]),
        "thinking": st.sampled_from([{"type": "disabled"}, {"type": "adaptive"}]),
    },
    optional={"system": st.sampled_from([CACHED, KEPT])},
)


@given(
    fields=compositions,
    text=st.none() | st.text(max_size=50) | st.just("\n\nevent: message_delta\ndata: "),
    sizes=st.lists(st.integers(1, 400), max_size=30),
    line_end=st.sampled_from([b"\n", b"\r\n"]),
)
def test_streamed_and_plain_answers_tell_the_same(fields, text, sizes, line_end):
    answer = compose(Wording(text=text), **fields)
    whole = plain(answers.message(answer))
    data = b"".join(answers.frames(answer)).replace(b"\n", line_end)
    pieces = streamed(data, *sizes)

    assert pieces.usage == whole.usage
    assert pieces.model == whole.model == "claude-opus-5-5"
    assert pieces.stop_reason == whole.stop_reason == answer.stop_reason
    assert pieces.is_complete
    assert whole.is_complete
    assert usage_of(whole).tokens.output == answer.usage.output_tokens
    assert usage_of(whole).tokens.prompt == (
        answer.usage.limited_input_tokens + answer.usage.cache_read_input_tokens
    )
    assert not usage_of(whole).is_unreadable


def test_a_stream_cut_anywhere_tells_what_it_said_so_far():
    data = b"".join(answers.frames(compose(Wording(deltas=3), system=KEPT)))
    whole = usage_of(streamed(data))
    head_ends = data.index(b"\n\n") + 2
    tail_ends = data.index(b"\n\n", data.index(b"event: message_delta")) + 2

    stop_ends = len(data.rstrip(b"\n"))

    for end in range(len(data)):
        tally = streamed(data[:end])
        if end < head_ends:
            assert tally.usage is None
        else:
            assert usage_of(tally).tokens.prompt == whole.tokens.prompt
            assert usage_of(tally).tokens.write_1h == whole.tokens.write_1h
        if end >= tail_ends:
            assert tally.usage == whole
        # The last frame needs no empty line behind it.
        assert tally.is_complete == (end >= stop_ends)


# --- the overlay


def test_totals_replace_one_another_and_are_never_added():
    data = start(input_tokens=5, output_tokens=1) + delta(output_tokens=7)

    tally = streamed(data + delta(output_tokens=9))

    assert usage_of(tally).tokens == Tokens(input=5, output=9)
    assert tally.stop_reason == "max_tokens"


def test_what_a_delta_leaves_out_or_leaves_null_stays():
    said = {"input_tokens": 5, "cache_read_input_tokens": 3, "service_tier": "priority"}
    tally = streamed(
        start(**said) + delta(input_tokens=None, cache_read_input_tokens=0)
    )

    assert usage_of(tally).tokens == Tokens(input=5)
    assert usage_of(tally).service_tier == "priority"


def test_data_on_several_lines_and_comments_are_read():
    head = b': hi\r\ndata: {"message":\r\nevent:message_start\r\nid: 1\r\n'
    tally = streamed(head + b'data:{"usage": {"input_tokens": 4}}}\r\n\r\n')

    assert usage_of(tally).tokens == Tokens(input=4)


def test_an_error_event_does_not_complete_a_stream():
    tally = streamed(start(input_tokens=5) + event("error", error={"type": "x"}))

    assert not tally.is_complete
    assert usage_of(tally).tokens == Tokens(input=5)


# --- fields


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"cache_creation_input_tokens": 9}, Tokens(write_5m=9)),
        (
            {
                "cache_creation_input_tokens": 9,
                "cache_creation": {"ephemeral_1h_input_tokens": 4},
            },
            Tokens(write_5m=5, write_1h=4),
        ),
        (
            {
                "cache_creation_input_tokens": None,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 2,
                    "ephemeral_1h_input_tokens": 4,
                },
            },
            Tokens(write_5m=2, write_1h=4),
        ),
        (
            {
                "cache_creation_input_tokens": 9,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 9,
                    "ephemeral_1h_input_tokens": 0,
                },
            },
            Tokens(write_5m=9),
        ),
    ],
    ids=["unsplit", "split in part", "only split", "split"],
)
def test_cache_writes_are_told_apart_by_their_life(usage, tokens):
    assert usage_of(plain(message(**usage))).tokens == tokens


def test_factors_and_tools_are_read():
    usage = usage_of(
        plain(
            message(
                server_tool_use={"web_search_requests": 2, "web_fetch_requests": 1},
                service_tier="batch",
                speed="fast",
                inference_geo="us",
                something_new={"of": "tomorrow"},
            )
        )
    )

    assert (usage.web_searches, usage.web_fetches) == (2, 1)
    assert (usage.service_tier, usage.speed, usage.inference_geo) == (
        "batch",
        "fast",
        "us",
    )
    assert not usage.is_unreadable


def test_the_list_of_runs_is_what_counts():
    usage = usage_of(
        plain(
            message(
                input_tokens=10,
                output_tokens=2,
                iterations=[
                    {"type": "compaction", "input_tokens": 500, "output_tokens": 50},
                    {"type": "message", "input_tokens": 10, "output_tokens": 2},
                    {"type": "advisor_message", "model": "x", "output_tokens": 3},
                ],
            )
        )
    )

    assert usage.stated == Tokens(input=10, output=2)
    assert usage.tokens == Tokens(input=510, output=55)
    assert usage.parts[2] == Part(Tokens(output=3), kind="advisor_message", model="x")


def test_an_empty_list_of_runs_says_nothing():
    assert usage_of(plain(message(input_tokens=3, iterations=[]))).tokens.input == 3


@pytest.mark.parametrize(
    "body",
    [
        {"input_tokens": 12},
        {"id": "msgbatch_1", "type": "message_batch"},
        {"type": "error", "error": {"type": "api_error"}},
        {"data": []},
    ],
    ids=["count_tokens", "batch", "error", "list"],
)
def test_other_answers_have_no_usage(body):
    tally = plain(body)

    assert tally.usage is None
    assert not tally.is_complete


# --- hostile

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["input_tokens", "output_tokens", "ephemeral_1h_input_tokens", "type"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
NAMES = [
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "cache_creation",
    "server_tool_use",
    "service_tier",
    "speed",
    "inference_geo",
    "iterations",
]


@given(usage=values | st.dictionaries(st.sampled_from(NAMES), values))
def test_no_usage_whatever_breaks_the_tally(usage):
    body = message() | {"usage": usage, "model": usage, "stop_reason": usage}
    tallies = plain(body), streamed(event("message_start", message=body))

    for tally in tallies:
        assert tally.model is None or isinstance(tally.model, str)
        if tally.usage is not None:
            assert all(
                0 <= count <= 2 * 10**9
                for run in tally.usage.runs
                for count in (run.tokens.input, run.tokens.output, run.tokens.write_5m)
            )


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -1},
        {"input_tokens": 10**12},
        {"input_tokens": 1.5},
        {"input_tokens": True},
        {"input_tokens": "9"},
        {"cache_creation": 4},
        {"speed": 7},
        {"speed": "f" * 300},
        {"iterations": {}},
        {"iterations": [4]},
        {"iterations": [{"output_tokens": -4}]},
        {"iterations": [{}] * 101},
    ],
    ids=repr,
)
def test_what_is_no_count_is_marked_and_not_counted(usage):
    read = usage_of(plain(message(**usage)))

    assert read.is_unreadable
    assert read.tokens == Tokens()


@pytest.mark.parametrize(
    "data",
    [
        b"event: message_start\ndata: {\n\n",
        b"event: message_start\ndata: " + b"[" * 100_000 + b"\n\n",
        b'event: message_start\ndata: {"message": {"usage": 4}}\n\n',
        b'event: message_delta\ndata: {"delta": 4}\n\n',
        b'event: message_delta\ndata: {"usage": "\xff"}\n\n',
        b"event: message_start\n\n",
    ],
    ids=["cut", "deep", "number", "delta", "bytes", "no data"],
)
def test_an_event_that_cannot_be_read_is_marked(data):
    tally = Tally()
    tally.note_frames(data)  # the relay would end such a stream before

    assert usage_of(tally).is_unreadable


def test_a_body_that_cannot_be_read_is_marked():
    assert usage_of(plain(b"<html>")).is_unreadable


@given(st.lists(st.sampled_from([b"event: message_delta", b"\n", b"data: {}", b"\r"])))
def test_no_order_of_lines_breaks_the_tally(lines):
    Tally().note_frames(b"\n".join(lines))


# --- what it costs


def test_a_frame_of_content_costs_no_more_than_a_search():
    content = {"index": 0, "delta": {"type": "text_delta", "text": "word " * 10}}
    frame = event("content_block_delta", **content)
    tally = Tally()
    begun = perf_counter()
    for _ in range(10_000):
        tally.note_frames(frame)

    # Half a microsecond where this was written; decoding would take several.
    assert (perf_counter() - begun) / 10_000 < 5e-6
