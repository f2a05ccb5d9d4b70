import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
import uvicorn

from proxy import protocol
from proxy.protocol import GatewayProtocol

CLOSING = b"host: x\r\nconnection: close\r\n\r\n"
BROKEN_CHUNK = (
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nno size\r\n"
)
LONG_HEAD = b"GET / HTTP/1.1\r\nx-long: " + b"x" * 200 * 1024


async def answer_nothing(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def wait_for_the_body(scope, receive, send):
    while (await receive())["type"] != "http.disconnect":
        pass


def answering(*pieces: bytes | None, headers: Sequence[tuple[bytes, bytes]] = ()):
    """An application that answers in pieces; None among them breaks the answer off."""

    async def app(scope, receive, send):
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await send(start)
        for piece in pieces:
            if piece is None:
                return
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    return app


@dataclass
class HeldAnswer:
    """An application whose first answer begins at once and ends when it may."""

    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    paths: list[str] = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        self.paths.append(scope["path"])
        headers = [(b"content-length", b"4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await self.may_end.wait()
        await send({"type": "http.response.body", "body": b"cd"})


@dataclass
class Served:
    port: int
    is_let_go: asyncio.Event

    @contextlib.asynccontextmanager
    async def connection(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(5):
                yield reader, writer
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def served(app=answer_nothing) -> AsyncIterator[Served]:
    is_let_go = asyncio.Event()

    class Watched(GatewayProtocol):
        def connection_lost(self, exc):
            super().connection_lost(exc)
            is_let_go.set()

    config = uvicorn.Config(app, port=0, http=Watched, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(port, is_let_go)
    finally:
        await server.shutdown()


async def exchange(app, data: bytes) -> tuple[bytes, bytes]:
    """Send bytes to an application; return head and body of what comes back."""
    async with served(app) as server, server.connection() as (reader, writer):
        writer.write(data)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return head, body


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nhost: x\r\n"])
async def test_a_head_that_does_not_end_is_not_waited_for(monkeypatch, begun):
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", 0.05)
    async with served() as server, server.connection() as (reader, writer):
        writer.write(begun)

        assert await reader.read() == b""


async def test_a_connection_that_has_been_served_may_go_on(monkeypatch):
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", 0.2)
    async with served() as server, server.connection() as (reader, writer):
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 204")


async def test_a_body_that_is_not_read_is_not_waited_for_either(monkeypatch):
    monkeypatch.setattr(protocol, "_UNREAD_BODY_SECONDS", 0.05)
    async with served() as server, server.connection() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1234")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"5")

        assert await reader.read() == b""


async def test_a_body_that_ends_after_its_answer_leaves_the_connection_open(
    monkeypatch,
):
    monkeypatch.setattr(protocol, "_UNREAD_BODY_SECONDS", 0.2)
    async with served() as server, server.connection() as (reader, writer):
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n1")
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"2")


# --- HTTP/1.0 -------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"GET / HTTP/1.0\r\n", b"POST / HTTP/1.0\r\n"])
async def test_http_1_0_gets_a_body_that_ends_with_the_connection(line):
    head, body = await exchange(answering(b"one ", b"two"), line + b"host: x\r\n\r\n")

    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"one two"


async def test_http_1_0_connection_ends_though_the_caller_would_keep_it():
    data = b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"

    assert (await exchange(answering(b"one"), data))[1] == b"one"


async def test_http_1_0_is_told_a_length_that_is_known():
    app = answering(b"one", headers=[(b"content-length", b"3")])
    head, body = await exchange(app, b"GET / HTTP/1.0\r\n\r\n")

    assert b"content-length: 3" in head
    assert body == b"one"


async def test_http_1_0_sees_that_an_answer_broke_off():
    app = answering(b"one", None)
    async with served(app) as server, server.connection() as (reader, writer):
        writer.write(b"GET / HTTP/1.0\r\n\r\n")

        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_http_1_0_is_not_asked_to_go_on():
    async def read_first(scope, receive, send):
        await receive()
        await answer_nothing(scope, receive, send)

    data = b"POST / HTTP/1.0\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n1"
    head, _ = await exchange(read_first, data)

    assert head.startswith(b"HTTP/1.1 204")


async def test_http_1_1_gets_chunks():
    head, body = await exchange(answering(b"one"), b"GET / HTTP/1.1\r\n" + CLOSING)

    assert b"transfer-encoding: chunked" in head
    assert body == b"3\r\none\r\n0\r\n\r\n"


# --- what cannot be read --------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET http://[ HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (BROKEN_CHUNK, 400),
        (LONG_HEAD, 431),
    ],
    ids=["line", "header", "target", "chunk", "long"],
)
async def test_what_cannot_be_read_is_answered_in_the_apis_envelope(data, status):
    head, body = await exchange(wait_for_the_body, data)
    answer = json.loads(body)

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/json" in head
    assert answer["error"]["type"] == "invalid_request_error"
    assert b"request-id: %b" % answer["request_id"].encode() in head


@pytest.mark.parametrize("begun", [b"GARBAGE\r\n\r\n", BROKEN_CHUNK, LONG_HEAD])
async def test_the_answer_arrives_while_the_caller_still_sends(begun):
    app = wait_for_the_body
    async with served(app) as server, server.connection() as (reader, writer):
        writer.write(begun)
        for _ in range(64):
            writer.write(b"x" * 256 * 1024)
            await writer.drain()

        assert b"request_id" in await reader.read()


async def test_a_refused_caller_is_not_listened_to_for_ever(monkeypatch):
    monkeypatch.setattr(protocol, "_LINGER_SECONDS", 0.05)
    async with served() as server, server.connection() as (_, writer):
        writer.write(b"GARBAGE\r\n\r\n")

        await server.is_let_go.wait()


async def test_a_refused_caller_is_not_listened_to_without_limit(monkeypatch):
    monkeypatch.setattr(protocol, "_LINGER_BYTES", 1_000)
    async with served() as server, server.connection() as (reader, writer):
        writer.write(b"GARBAGE\r\n\r\n")
        await reader.read()
        writer.write(b"x" * 2_000)

        await server.is_let_go.wait()


@pytest.mark.parametrize("second", [b"GARBAGE\r\n\r\n", LONG_HEAD, b"GET / HT"])
async def test_an_answer_on_its_way_is_ended_before_the_connection(monkeypatch, second):
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", 0.05)
    app = HeldAnswer()
    async with served(app) as server, server.connection() as (reader, writer):
        writer.write(b"GET /first HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nab")
        writer.write(second)
        with contextlib.suppress(TimeoutError):  # longer than a head may take
            await asyncio.wait_for(reader.read(1), 0.2)
        app.may_end.set()

        assert await reader.read() == b"cd"
    assert app.paths == ["/first"]


# --- what cannot be sent --------------------------------------------------------------


@pytest.mark.parametrize(
    "pair",
    [
        *[(b"x", bytes([byte])) for byte in (0, 8, 10, 13, 31, 127)],
        *[(bytes([byte]), b"x") for byte in b'\0\r\n\x7f ():;<=>@[\\]{},"'],
    ],
)
async def test_a_header_that_the_server_would_not_send_is_found(pair):
    with pytest.raises(ValueError, match="a header of the answer has the byte"):
        protocol.require_sendable([(b"x-fine", b"\tfine \xe9"), pair])


def test_headers_that_can_be_sent_are_let_through():
    protocol.require_sendable([])
    protocol.require_sendable([(b"x-fine", b"\tfine \xe9"), (b"x_2!", b"")])
