"""The load generator against an upstream that answers rightly, and ones that do not."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from bench import upstream, wire
from bench.load import Crowd, LoadError

RIGHT = upstream.JSON_ANSWER
LENGTH = len(wire.ANSWER)
ONE_SHORT = RIGHT.replace(b": %d\r" % LENGTH, b": %d\r" % (LENGTH - 1))[:-1]
ERROR = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy"
BROKEN_STREAM = upstream.STREAM_HEAD + upstream.OPENING[0] + b"0\r\n\r\n"


@asynccontextmanager
async def listening(protocol):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def answering(answer):
    """Return a protocol that answers whatever it gets, then closes."""

    class Answering(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(answer)
            self.transport.close()

    return Answering


@pytest.mark.parametrize(
    "question",
    [wire.JSON, wire.STREAM, wire.Question(wire.MODEL_PACED, deltas=2)],
    ids=["json", "stream", "paced"],
)
async def test_right_answers_are_measured_one_by_one(question):
    async with (
        listening(upstream.Upstream) as port,
        Crowd(port, question, callers=3) as crowd,
    ):
        measured = await crowd.ask(requests=7)

    assert measured.requests == 7
    assert len(measured.first_byte_seconds) == 7
    pairs = zip(measured.first_byte_seconds, measured.whole_seconds, strict=True)
    assert all(0 < first <= whole for first, whole in pairs)


@pytest.mark.parametrize(
    ("question", "answer", "complaint"),
    [
        (wire.JSON, ERROR, "status 503.*busy"),
        (wire.JSON, ONE_SHORT, f"{LENGTH - 1} bytes, not {LENGTH}"),
        (wire.JSON, RIGHT[:-10], "lost before the answer ended"),
        (wire.JSON, b"", "lost before the answer ended"),
        (wire.JSON, b"garbage\r\n\r\n", "not HTTP"),
        (wire.STREAM, BROKEN_STREAM, "1 frames, not 100"),
    ],
)
async def test_a_wrong_answer_ends_the_run(question, answer, complaint):
    async with (
        listening(answering(answer)) as port,
        Crowd(port, question, callers=1) as crowd,
    ):
        with pytest.raises(LoadError, match=complaint):
            await crowd.ask(requests=1)


async def test_a_connection_closed_between_requests_ends_the_run():
    async with (
        listening(answering(RIGHT)) as port,
        Crowd(port, wire.JSON, callers=1) as crowd,
    ):
        with pytest.raises(LoadError, match=r"closed|lost"):
            await crowd.ask(requests=2, per_second=100)


async def test_a_gateway_that_writes_anew_is_held_to_frames_only():
    async with (
        listening(answering(ONE_SHORT)) as port,
        Crowd(port, wire.JSON, callers=1, is_exact=False) as crowd,
    ):
        measured = await crowd.ask(requests=1)

    assert measured.requests == 1


async def test_delays_are_noted_only_while_listening():
    question = wire.Question(wire.MODEL_PACED, deltas=3)
    async with (
        listening(upstream.Upstream) as port,
        Crowd(port, question, callers=1) as crowd,
    ):
        unheard = await crowd.ask(requests=1)
        crowd.is_listening = True
        heard = await crowd.ask(requests=1)

    assert unheard.event_delay_ns == []
    assert len(heard.event_delay_ns) == 3
    assert all(0 < delay < 5_000_000_000 for delay in heard.event_delay_ns)
