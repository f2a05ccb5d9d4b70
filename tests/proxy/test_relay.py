import asyncio

import httpx
import pytest

from proxy import relay
from proxy.errors import UpstreamError
from proxy.gateway import OpenRequest
from proxy.record import End, RequestRecord
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
    events = relay.events(reply_of(*pieces), record, OpenRequest(task))
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
    with pytest.raises(UpstreamError):
        async for _ in relay.body(reply_of(b"{", httpx.ReadError("reset")), record):
            pass
    assert record.end is End.UPSTREAM_ERROR
