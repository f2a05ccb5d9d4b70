import asyncio

import httpx
import pytest

from proxy import relay
from proxy.errors import UpstreamError
from proxy.gateway import OpenRequest
from proxy.record import End, RequestRecord
from proxy.sse import FrameReader
from proxy.upstream import UpstreamReply

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
ERROR = b'event: error\ndata: {"type": "error", "error": {}}\n\n'


class Body(httpx.AsyncByteStream):
    """Pieces of a body; an exception among them is raised."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces

    async def __aiter__(self):
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


def reply_of(*pieces: bytes | Exception) -> UpstreamReply:
    return UpstreamReply(httpx.Response(200, stream=Body(*pieces)))


@pytest.fixture
def record() -> RequestRecord:
    return RequestRecord(method="POST", path="/v1/messages")


async def relayed(record: RequestRecord, *pieces: bytes | Exception) -> list[bytes]:
    task = asyncio.current_task()
    assert task is not None
    events = relay.events(
        *(b"", reply_of(*pieces).chunks(), FrameReader(), record, OpenRequest(task)),
        note_error=lambda _: None,
    )
    return [piece async for piece in events]


async def test_a_whole_stream_is_complete(record):
    assert await relayed(record, PING, STOP) == [PING, STOP]
    assert record.end is End.COMPLETE


async def test_an_error_event_of_the_upstream_passes_and_is_recorded(record):
    assert await relayed(record, PING, ERROR) == [PING, ERROR]
    assert record.end is End.UPSTREAM_ERROR


async def test_a_stream_that_breaks_after_its_last_event_is_complete(record):
    assert await relayed(record, STOP, httpx.ReadError("reset")) == [STOP]
    assert record.end is End.COMPLETE


@pytest.mark.parametrize(
    ("last", "end"),
    [
        (b"", End.TRUNCATED),
        (httpx.ReadError("reset"), End.UPSTREAM_ERROR),
        (httpx.ReadTimeout("silent"), End.TIMEOUT),
    ],
)
async def test_a_broken_stream_ends_with_one_error_event(record, last, end):
    *before, error = await relayed(record, PING, b"event: content_block", last)

    assert before == [PING]
    assert error.startswith(b"event: error\ndata: {")
    assert error.endswith(b"}\n\n")
    assert record.request_id.encode() in error
    assert record.end is end


async def test_a_broken_body_that_is_no_stream_raises(record):
    rest = reply_of(b"{", httpx.ReadError("reset")).chunks()
    with pytest.raises(UpstreamError):
        async for _ in relay.body(b"", rest, record):
            pass
    assert record.end is End.UPSTREAM_ERROR


async def test_a_body_that_was_read_is_followed_by_its_rest(record):
    rest = reply_of(b"b", b"c").chunks()
    assert [piece async for piece in relay.body(b"a", rest, record)] == [
        *(b"a", b"b", b"c")
    ]
    assert record.end is End.COMPLETE


async def test_what_was_held_back_of_a_stream_comes_first(record):
    frames = FrameReader()
    held = frames.feed(PING + STOP[:10])
    task = asyncio.current_task()
    assert task is not None
    rest = reply_of(STOP[10:]).chunks()
    parts = (held, rest, frames, record, OpenRequest(task))
    events = relay.events(*parts, note_error=lambda _: None)
    assert [piece async for piece in events] == [PING, STOP]
    assert record.end is End.COMPLETE


async def test_an_error_that_was_held_back_gets_no_second_one(record):
    frames = FrameReader()
    held = frames.feed(PING + ERROR)
    task = asyncio.current_task()
    assert task is not None
    noted: list[bytes] = []
    parts = (held, reply_of(PING).chunks(), frames, record, OpenRequest(task))
    events = relay.events(*parts, note_error=noted.append)
    assert b"".join([piece async for piece in events]).startswith(PING + ERROR)
    assert record.end is End.UPSTREAM_ERROR
    assert noted == []  # whoever held it has judged it


async def test_an_error_among_the_content_is_told_once(record):
    task = asyncio.current_task()
    assert task is not None
    noted: list[bytes] = []
    rest = reply_of(PING, ERROR, PING).chunks()
    parts = (b"", rest, FrameReader(), record, OpenRequest(task))
    events = relay.events(*parts, note_error=noted.append)
    assert b"".join([piece async for piece in events]).startswith(PING + ERROR)
    assert noted == [ERROR]


BLOCK = b'event: content_block_start\ndata: {"index": 0}\n\n'


@pytest.mark.parametrize(
    ("bad", "cause"),
    [
        (b"event: content_block_delta\ndata: {oops\n\n", "no JSON object"),
        (b'data: {"index": 0}\n\n', "frame without an event"),
        (b"event: \0\ndata: {}\n\n", "event name that is none"),
        (b": \xff\n\n", "no UTF-8"),
        (STOP + BLOCK, "content after the end"),
    ],
)
async def test_a_frame_that_makes_no_sense_ends_the_stream_with_an_error(
    record, bad, cause
):
    *before, error = await relayed(record, PING, BLOCK + bad, BLOCK, STOP)

    kept = STOP if bad.startswith(STOP) else b""
    assert b"".join(before) == PING + BLOCK + kept
    assert error.startswith(b"event: error\ndata: {")
    assert error.endswith(b"}\n\n")
    assert record.end is End.UPSTREAM_ERROR
    assert cause in record.cause


async def test_a_frame_that_never_ends_does_not_fill_the_memory(record, monkeypatch):
    monkeypatch.setattr("proxy.sse._FRAME_BYTES", 1_000)
    *before, error = await relayed(record, PING, *[b"event: x" * 10] * 100)

    assert before == [PING]
    assert error.startswith(b"event: error\n")
    assert "frame too long" in record.cause


async def test_unknown_events_and_comments_pass(record):
    odd = b': hello\n\nevent: novelty\ndata: {"a": 1}\n\n'

    assert await relayed(record, PING, odd, STOP) == [PING, odd, STOP]
    assert record.end is End.COMPLETE
