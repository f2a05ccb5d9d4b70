"""Bodies in files on their way to the upstream."""

import asyncio
import contextlib
import hashlib
import secrets
import tracemalloc
from datetime import timedelta

import httpx
import pytest
from structlog.testing import capture_logs

from proxy import upstream
from proxy.errors import Stage, UpstreamError, UpstreamTimeoutError
from proxy.request_body import RequestBody
from proxy.spool import FileBody, SpoolError
from proxy.upstream import Upstream, UpstreamRequest
from tests.proxy.fakes import OK, Received, answering, receive, serving
from tests.proxy.test_spool import until_none_in

REFUSAL = b"HTTP/1.1 413 X\r\nContent-Length: 3\r\n\r\nbig"
PIECE = 1024**2


@pytest.fixture
def folder(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    return tmp_path / "bodies"


@contextlib.asynccontextmanager
async def filled(pieces):
    """A body of so many pieces, and the digest of it."""
    body, digest = FileBody(), hashlib.sha256()
    for _ in range(pieces):
        piece = secrets.token_bytes(PIECE)
        digest.update(piece)
        await body.append(piece)
    try:
        yield body, digest.digest()
    finally:
        body.close()


@pytest.fixture
async def large(folder):
    async with filled(20) as (body, digest):
        yield body, digest


@contextlib.asynccontextmanager
async def client(url, **options):
    it = Upstream(url, read_timeout=timedelta(seconds=5), **options)
    try:
        yield it
    finally:
        await it.aclose()


def request(body):
    return UpstreamRequest("POST", b"/v1/files", [(b"x-app", b"cli")], body)


async def read(reply):
    async with contextlib.aclosing(reply):
        return b"".join([chunk async for chunk in reply.chunks()])


def digest_of(received: Received) -> bytes:
    return hashlib.sha256(received.body).digest()


async def head_of(reader):
    return await reader.readuntil(b"\r\n\r\n")


async def test_a_body_in_a_file_arrives_byte_for_byte(large):
    body, digest = large
    async with answering() as server, client(server.url) as it:
        for _ in range(2):
            assert await read(await it.open(request(body))) == b"ok"

    assert [digest_of(received) for received in server.requests] == [digest, digest]
    assert server.connections == 1
    for received in server.requests:
        names = sorted(line.partition(b":")[0].lower() for line in received.headers)
        assert names == [b"content-length", b"host", b"x-app"]
        assert received.values(b"content-length") == [str(body.size).encode()]


@pytest.mark.parametrize("is_reset", [False, True])
async def test_an_attempt_that_breaks_off_halfway_does_not_spoil_the_next(
    large, is_reset
):
    body, digest = large
    received: list[Received] = []

    async def break_off_once(reader, writer):
        if server.connections == 1:
            await head_of(reader)
            await reader.readexactly(body.size // 2)
            if is_reset:
                writer.transport.abort()
            return
        received.append(await receive(reader))
        writer.write(OK)

    async with serving(break_off_once) as server, client(server.url) as it:
        with pytest.raises(UpstreamError) as caught:
            await it.open(request(body))
        await read(await it.open(request(body)))

    assert caught.value.stage is Stage.PERHAPS_EXECUTED
    assert [digest_of(one) for one in received] == [digest]


async def test_a_server_that_reads_no_more_is_a_timeout(large, monkeypatch):
    monkeypatch.setattr(upstream, "_WRITE_TIMEOUT_SECONDS", 0.2)
    is_over = asyncio.Event()

    async def never_read(reader, writer):
        writer.transport.pause_reading()
        await is_over.wait()

    async with serving(never_read) as server, client(server.url) as it:
        with pytest.raises(UpstreamTimeoutError) as caught:
            await it.open(request(large[0]))
        is_over.set()

    assert caught.value.stage is Stage.PERHAPS_EXECUTED


async def test_nobody_there_is_no_fault_of_the_file(large):
    async with answering() as server:
        url = server.url
    async with client(url) as it:
        with pytest.raises(UpstreamError) as caught:
            await it.open(request(large[0]))

    assert caught.value.stage is Stage.NOT_SENT


@pytest.mark.parametrize("seen_bytes", [0, 3 * PIECE])
@pytest.mark.parametrize("way", ["leaves it", "half closes", "closes"])
async def test_an_answer_that_comes_early_is_seen(large, seen_bytes, way):
    body, _ = large

    async def refuse(reader, writer):
        await head_of(reader)
        await reader.readexactly(seen_bytes)
        writer.write(REFUSAL)
        if way == "half closes":
            writer.write_eof()
        if way == "closes":
            await asyncio.sleep(0.3)
            writer.transport.abort()
            return
        await left(reader)

    async def left(reader):
        with contextlib.suppress(ConnectionError):
            while len(await reader.read(2**16)):
                pass
        server.is_left.set()

    async with serving(refuse) as server, client(server.url) as it:
        for _ in range(3):
            server.is_left.clear()
            async with asyncio.timeout(10):
                reply = await it.open(request(body))
                assert (reply.status, await read(reply)) == (413, b"big")
                if way != "closes":
                    await server.is_left.wait()

    assert server.connections == 3


async def test_a_refusal_ends_the_sending(folder):
    seen = 0

    async def refuse(reader, writer):
        nonlocal seen
        await head_of(reader)
        writer.write(REFUSAL)
        await writer.drain()
        await asyncio.sleep(0.2)
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(2**16):
                seen += len(piece)
        server.is_left.set()

    async with (
        filled(64) as (body, _),
        serving(refuse) as server,
        client(server.url) as it,
        asyncio.timeout(20),
    ):
        assert await read(await it.open(request(body))) == b"big"
        await server.is_left.wait()

    # What the system holds between the two is on its way by then.
    assert seen < 40 * PIECE


async def test_an_early_answer_that_is_none_lets_the_body_go_on(large):
    body, digest = large
    found = hashlib.sha256()

    async def answer_before_reading(reader, writer):
        await head_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        left = body.size
        while left:
            piece = await reader.read(2**16)
            left -= len(piece)
            found.update(piece)
        writer.write(b"2\r\nok\r\n0\r\n\r\n")

    async with serving(answer_before_reading) as server, client(server.url) as it:
        assert await read(await it.open(request(body))) == b"ok"

    assert found.digest() == digest


async def test_a_file_that_cannot_be_read_is_blamed_on_nobody_else(large):
    body, _ = large
    body._file.truncate(5 * PIECE)

    async def read_all(reader, writer):
        await receive(reader)

    with capture_logs() as lines:
        async with serving(read_all) as server, client(server.url) as it:
            with pytest.raises(SpoolError):
                await it.open(request(body))
            async with asyncio.timeout(10):
                await server.is_left.wait()

    assert [line["event"] for line in lines] == ["body_not_kept"]


async def test_a_request_that_is_cancelled_ends_its_connection(large, folder):
    body, _ = large
    is_waiting = asyncio.Event()

    async def read_half(reader, writer):
        await head_of(reader)
        await reader.readexactly(body.size // 2)
        is_waiting.set()
        await reader.readexactly(body.size)

    async with serving(read_half) as server, client(server.url) as it:
        opening = asyncio.create_task(it.open(request(body)))
        await is_waiting.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        body.close()
        async with asyncio.timeout(10):
            await server.is_left.wait()
            await until_none_in(folder)


async def test_any_transport_of_httpx_gets_the_body(large):
    body, digest = large
    found = []

    async def answer(sent: httpx.Request) -> httpx.Response:
        found.append(hashlib.sha256(await sent.aread()).digest())
        return httpx.Response(200)

    transport = httpx.MockTransport(answer)
    async with client("http://claude.test", transport=transport) as it:
        await (await it.open(request(body))).aclose()

    assert found == [digest]


async def test_a_body_of_200_mb_passes_in_little_memory(folder):
    size = 200 * PIECE
    sent, arrived = hashlib.sha256(), hashlib.sha256()
    left = size

    async def receive_from_caller():
        nonlocal left
        piece = secrets.token_bytes(min(left, 2**16))
        left -= len(piece)
        sent.update(piece)
        return {"type": "http.request", "body": piece, "more_body": left > 0}

    async def read_in_pieces(reader, writer):
        await head_of(reader)
        for _ in range(0, size, 2**16):
            arrived.update(await reader.readexactly(2**16))
        writer.write(OK)

    incoming = RequestBody([(b"transfer-encoding", b"chunked")], receive_from_caller)
    async with (
        asyncio.timeout(120),
        serving(read_in_pieces) as server,
        client(server.url) as it,
    ):
        tracemalloc.start()
        try:
            body = await incoming.take_spooled(size, 30)
            assert isinstance(body, FileBody)
            with contextlib.closing(body):
                assert await read(await it.open(request(body))) == b"ok"
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert arrived.digest() == sent.digest()
    assert peak_bytes < 20 * PIECE
