import json
from itertools import pairwise

import pytest
from anthropic._streaming import SSEDecoder
from hypothesis import example, given
from hypothesis import strategies as st

from proxy import sse
from proxy.errors import DrainingError, Stage
from proxy.sse import FrameReader

FRAME_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


def frame(event: str, data: object, line_end: str = "\n") -> bytes:
    lines = (f"event: {event}", f"data: {json.dumps(data)}", "", "")
    return line_end.join(lines).encode()


def decode(*pieces: bytes):
    """What the official SDK makes of a stream."""
    return list(SSEDecoder().iter_bytes(iter(pieces)))


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


wild = st.lists(
    st.sampled_from(
        [
            *(b"\n", b"\r", b"\r\n", b"\n\n", b":", b" ", b"event: ", b"event:"),
            *(b"data: ", b"message_stop", b"error", b"ping", b"{}", b'"event: error"'),
        ]
    )
    | st.binary(max_size=6),
    max_size=40,
).map(b"".join)
cuts = st.lists(st.integers(0, 10_000), max_size=12)


@given(data=wild, cuts=cuts)
@example(data=b"event: x\r\n\r\n", cuts=[9, 10, 11])
def test_what_comes_out_is_what_went_in(data, cuts):
    reader = FrameReader()
    passed = b"".join(reader.feed(piece) for piece in split(data, cuts))

    assert passed + reader.held == data


@given(data=wild, cuts=cuts)
def test_only_whole_frames_come_out(data, cuts):
    reader = FrameReader()
    for piece in split(data, cuts):
        passed = reader.feed(piece)
        assert passed == b"" or passed.endswith(FRAME_ENDS)


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@given(cuts=cuts)
def test_the_end_is_seen_wherever_the_stream_is_cut(line_end, cuts):
    stream = frame("ping", {}, line_end) + frame("message_stop", {}, line_end)
    reader = FrameReader()
    for piece in split(stream, cuts):
        assert reader.last_event is None
        reader.feed(piece)

    assert reader.last_event == b"message_stop"
    assert reader.held == b""


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_frame_passes_as_soon_as_it_is_whole(line_end):
    whole, rest = frame("ping", {}, line_end), b"event: content"
    reader = FrameReader()

    assert reader.feed(whole + rest) == whole
    assert reader.held == rest


@pytest.mark.parametrize(
    ("stream", "last_event"),
    [
        (b"event: message_stop\ndata: {}\n\n", b"message_stop"),
        (b"event:message_stop\ndata: {}\n\n", b"message_stop"),
        (b"event: error\ndata: {}\n\n", b"error"),
        (b": hello\n\nevent: error\ndata: {}\n\n", b"error"),
        (b"data: {}\nevent: message_stop\n\n", b"message_stop"),
        (b"id: 1\r\nevent: message_stop\r\ndata: {}\r\n\r\n", b"message_stop"),
        (b"event: message_stop_too\ndata: {}\n\n", None),
        (b"event: errors\ndata: {}\n\n", None),
        (b"event: my error\ndata: {}\n\n", None),
        (b"xevent: error\ndata: {}\n\n", None),
        (b": event: error\n\n", None),
        (b'data: {"type": "message_stop"}\n\n', None),
        (b'event: content_block_delta\ndata: {"t": "error"}\n\n', None),
        (b"event: ping\ndata: event: error\n\n", None),
        (b"event: message_stop\ndata: {}\n", None),
        (b"", None),
    ],
)
def test_only_the_name_of_a_last_event_ends_a_message(stream, last_event):
    reader = FrameReader()
    reader.feed(stream)

    assert reader.last_event == last_event


@given(
    text=st.lists(
        st.text(max_size=5)
        | st.sampled_from(
            ["\n", "\r\n", "\r", "\n\n", "event: error\n", "\nevent: message_stop\n"]
        )
    ).map("".join),
    cuts=cuts,
)
def test_no_content_ends_a_message(text, cuts):
    stream = frame("content_block_delta", {"delta": {"text": text}})
    reader = FrameReader()
    for piece in split(stream, cuts):
        reader.feed(piece)

    assert reader.last_event is None
    assert reader.held == b""


def test_an_end_once_seen_stays():
    reader = FrameReader()
    reader.feed(frame("message_stop", {}) + frame("ping", {}))
    reader.feed(frame("ping", {}))

    assert reader.last_event == b"message_stop"


def test_a_last_frame_without_its_empty_line_counts_at_the_end_of_the_stream():
    reader = FrameReader()
    stop = b'event: message_stop\ndata: {"type": "message_stop"}\n'

    assert reader.feed(stop) == b""
    assert reader.finish() == stop
    assert reader.last_event == b"message_stop"


def test_an_error_wins_over_a_stop():
    reader = FrameReader()
    reader.feed(frame("error", {}))
    reader.feed(frame("message_stop", {}))

    assert reader.last_event == b"error"


def test_an_error_that_is_not_whole_is_dropped_for_sdks_would_overlook_it():
    reader = FrameReader()
    reader.feed(b'event: error\ndata: {"type": "error"}\n')

    assert reader.finish() == b""
    assert reader.last_event is None


def test_half_a_frame_is_dropped_at_the_end_of_the_stream():
    reader = FrameReader()
    reader.feed(b"event: content_block_delta\ndata: {")

    assert reader.finish() == b""
    assert reader.last_event is None


def test_a_frame_beyond_the_limit_passes_in_pieces(monkeypatch):
    monkeypatch.setattr(sse, "_HELD_LIMIT_BYTES", 100)
    reader = FrameReader()

    assert reader.feed(b"x" * 100) == b""
    assert reader.feed(b"y") == b"x" * 100 + b"y"
    assert reader.held == b""


def test_the_error_event_is_read_by_the_official_sdk():
    error = DrainingError(Stage.ANSWER_BEGUN, "drain")
    begun = frame("message_start", {"type": "message_start"})
    _, last = decode(begun, sse.error_event(error, "req_1"))

    assert last.event == "error"
    assert last.json() == {
        "type": "error",
        "error": {"type": "overloaded_error", "message": str(error)},
        "request_id": "req_1",
    }


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@given(cuts=cuts)
def test_a_stream_that_broke_anywhere_can_be_ended_by_the_error_event(line_end, cuts):
    stream = frame("message_start", {"n": 1}, line_end) + frame(
        "content_block_delta", {"n": 2}, line_end
    )
    reader = FrameReader()
    passed = [reader.feed(piece) for piece in split(stream, cuts)[:-1]]
    error = DrainingError(Stage.ANSWER_BEGUN, "drain")
    *before, last = decode(*passed, sse.error_event(error, "req_1"))

    assert last.event == "error"
    assert [event.json()["n"] for event in before] == [1, 2][: len(before)]


def test_a_long_frame_in_small_pieces_costs_what_its_bytes_cost():
    # Were everything held looked at again for each piece, this would take a minute.
    stream = b"event: x\ndata: " + b"a" * 900_000 + b"\n\n"
    reader = FrameReader()
    out = b"".join(reader.feed(stream[i : i + 50]) for i in range(0, len(stream), 50))

    assert out == stream
