import json
from itertools import pairwise

import pytest
from anthropic._streaming import SSEDecoder
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy import sse
from proxy.errors import DrainingError, Stage
from proxy.sse import FrameReader

FRAME_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")


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
            *(b"event: content_block_delta\ndata: ", b"{}\n\n", b'{"a":', b"id: 1\n"),
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

    if reader.fault is None:
        assert passed + reader.held == data
    else:
        assert data.startswith(passed)
        assert reader.held == b""


@given(data=wild, cuts=cuts)
def test_only_whole_frames_come_out(data, cuts):
    reader, out = FrameReader(), b""
    for piece in split(data, cuts):
        passed = reader.feed(piece)
        out += passed
        assert not passed or reader.fault or passed.endswith(FRAME_ENDS)
        # What is added to it is read as it stands.
        *_, last = decode(out, b"event: added\ndata: {}\n\n")
        assert (last.event, last.data) == ("added", "{}")


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


def test_a_frame_that_does_not_end_is_given_up(monkeypatch):
    monkeypatch.setattr(sse, "_FRAME_BYTES", 100)
    reader = FrameReader()

    assert (reader.feed(b"x" * 100), reader.fault) == (b"", None)
    assert (reader.feed(b"y"), reader.fault) == (b"", "frame too long")
    assert reader.held == b""
    assert reader.feed(DELTA) == b""


def test_one_that_begins_with_its_predecessor_is_given_up_too(monkeypatch):
    monkeypatch.setattr(sse, "_FRAME_BYTES", 100)
    for before in (DELTA, b": hello\n\n"):
        reader = FrameReader()
        assert reader.feed(before + b"x" * 101) == before
        assert reader.fault == "frame too long"


DELTA = frame("content_block_delta", {"delta": {"text": "Words, слова"}})
STOP = frame("message_stop", {"type": "message_stop"})
HEAD = b"event: content_block_delta\ndata: "
HARMLESS = {
    "comment": b": hello\n\n",
    "comment in a frame": b": hello\n" + DELTA,
    "unknown event": frame("content_block_merge", {"index": 0}),
    "unknown event without data": b"event: keep.alive\n\n",
    "unknown line in a frame": b"priority: 1\n" + DELTA,
    "unknown line without a colon": b"priority\n" + DELTA,
    "id": b"id: 7\n\n",
    "retry": b"retry: 1000\n\n",
    "empty lines": b"\n\n\n" + DELTA,
    "ping without data": b"event: ping\n\n",
    "data on two lines": b'event: content_block_delta\ndata: {"a":\ndata: 1}\n\n',
    "no space": b"event:content_block_delta\ndata:{}\n\n",
    "data first": b"data: {}\nevent: content_block_delta\n\n",
    "half a surrogate pair": HEAD + b'{"text": "\\ud83d"}\n\n',
    "CRLF": DELTA.replace(b"\n", b"\r\n"),
    "CR": DELTA.replace(b"\n", b"\r"),
    "CRLF, then LF": b"event: content_block_delta\r\ndata: {}\n\r\n",
    "LF, then CRLF": b"event: content_block_delta\ndata: {}\r\n\n",
    "CR, then CRLF": b"event: content_block_delta\rdata: {}\r\r\n",
    "NUL in a text": HEAD + b'{"text": "\\u0000"}\n\n',
    "NUL in a comment": b": \0\n\n",
    "many": DELTA * 3,
}
BAD = {
    "no JSON": HEAD + b"oops\n\n",
    "half JSON": HEAD + b'{"index": 0\n\n',
    "more than JSON": HEAD + b"{} {}\n\n",
    "JSON of Python only": HEAD + b'{"n": NaN}\n\n',
    "JSON on two lines of one field": HEAD + b'{"a":\n1}\n\n',
    "JSON cut by CR": HEAD + b'{"a":\r1}\n\n',
    "no object": HEAD + b"[]\n\n",
    "null": HEAD + b"null\n\n",
    "nested without end": HEAD + b'{"a":' + b"[" * 100_000 + b"\n\n",
    "no data": b"event: content_block_delta\n\n",
    "empty data": HEAD + b"\n\n",
    "data misspelt": b"event: content_block_delta\ndta: {}\n\n",
    "data twice": HEAD + b"{}\ndata: {}\n\n",
    "only data": b"data: {}\n\n",
    "event misspelt": b"evnt: content_block_delta\ndata: {}\n\n",
    "unknown lines only": b"oops\n\n",
    "byte order mark": b"\xef\xbb\xbf" + DELTA,
    "event without a name": b"event:\ndata: {}\n\n",
    "garbage in the name": b"event: content\0block\ndata: {}\n\n",
    "words as a name": b"event: a delta\ndata: {}\n\n",
    "unknown event, no JSON": b"event: novelty\ndata: oops\n\n",
    "NUL": b"\0\0\0\0\n\n",
    "NUL in a string": HEAD + b'{"text": "\0"}\n\n',
    "no UTF-8": HEAD + b'{"text": "\xff"}\n\n',
    "no UTF-8 in a comment": b": \xff\n\n",
    "no UTF-8 in a name": b"event: \xff\ndata: {}\n\n",
    "error without JSON": b"event: error\ndata: oops\n\n",
    "error without data": b"event: error\n\n",
    "stop without JSON": b"event: message_stop\ndata: oops\n\n",
    "an error page": b"<html>\n<body>Bad gateway</body>\n\n",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_sdks_can_read_passes(name):
    given, reader = HARMLESS[name], FrameReader()

    passed = reader.feed(given) + reader.feed(DELTA + STOP)
    assert passed == given + DELTA + STOP
    assert reader.fault is None
    assert reader.last_event == b"message_stop"
    decode(passed)


@pytest.mark.parametrize("name", BAD)
def test_what_sdks_would_trip_over_ends_the_stream_before_it(name):
    reader = FrameReader()

    assert reader.feed(DELTA + BAD[name] + DELTA) == DELTA
    assert reader.fault
    assert reader.feed(STOP) + reader.finish() == b""
    assert reader.last_event is None


@pytest.mark.parametrize("name", BAD)
def test_a_fault_is_found_wherever_the_frame_is_cut(name):
    for cut in range(1, min(len(BAD[name]), 60)):
        reader = FrameReader()
        pieces = (BAD[name][:cut], BAD[name][cut:] + STOP)
        assert b"".join(map(reader.feed, pieces)) == b""
        assert reader.fault


@pytest.mark.parametrize(
    "more", [DELTA, STOP, frame("message_start", {}), frame("message_delta", {})]
)
def test_content_after_the_end_is_a_fault(more):
    for pieces in ([STOP + more], [STOP, more]):
        reader = FrameReader()
        assert b"".join(map(reader.feed, pieces)) == STOP
        assert reader.fault == "content after the end"


@pytest.mark.parametrize(
    "more", [frame("ping", {}), b": bye\n\n", frame("novelty", {}), frame("error", {})]
)
def test_what_is_no_content_may_follow_the_end(more):
    reader = FrameReader()

    assert reader.feed(STOP + more) == STOP + more
    assert reader.fault is None


def test_a_last_frame_that_is_cut_in_its_data_is_dropped():
    reader = FrameReader()
    reader.feed(b'event: message_stop\ndata: {"type": "mess')

    assert reader.finish() == b""
    assert reader.last_event is None


@settings(max_examples=300)
@given(data=wild, cuts=cuts)
def test_sdks_can_read_whatever_comes_out_and_leave_out_nothing(data, cuts):
    reader = FrameReader()
    passed = [reader.feed(piece) for piece in split(data, cuts)]
    for event in decode(b"".join(passed)):
        assert event.event or not event.data
        if event.data:
            assert isinstance(event.json(), dict)
        elif event.event:
            assert event.event == "ping" or event.event not in KNOWN


KNOWN = {
    *("message_start", "message_delta", "message_stop", "error"),
    *("content_block_start", "content_block_delta", "content_block_stop"),
}


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
    stream = b'event: x\ndata: {"a": "' + b"a" * 900_000 + b'"}\n\n'
    reader = FrameReader()
    out = b"".join(reader.feed(stream[i : i + 50]) for i in range(0, len(stream), 50))

    assert out == stream
