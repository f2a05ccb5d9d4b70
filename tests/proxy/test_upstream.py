import asyncio
import contextlib
import gc
import gzip
import hashlib
import secrets
import socket
import weakref
from datetime import timedelta

import httpx
import pytest

from proxy import upstream
from proxy.errors import (
    MalformedReplyError,
    Stage,
    UpstreamError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from proxy.upstream import Upstream, UpstreamRequest
from tests.proxy.fakes import OK, answering, receive, serving

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


def request(body=b"", *, method="POST", target=b"/v1/messages", headers=()):
    return UpstreamRequest(method, target, list(headers), body)


@contextlib.asynccontextmanager
async def client(url, *, read_timeout=5.0):
    it = Upstream(url, read_timeout=timedelta(seconds=read_timeout))
    try:
        yield it
    finally:
        await it.aclose()


async def read(reply):
    body = b"".join([chunk async for chunk in reply.chunks()])
    await reply.aclose()
    return body


async def failure(url, sent=None, *, read_timeout=5.0):
    """What a request to *url* fails with, before or after its answer has begun."""
    async with asyncio.timeout(5), client(url, read_timeout=read_timeout) as it:
        try:
            reply = await it.open(sent or request(b"{}"))
            async with contextlib.aclosing(reply):
                await read(reply)
        except UpstreamError as error:
            return error
    pytest.fail("nothing went wrong")


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


# --- what goes wrong, and how far the request had come


def descendants(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from descendants(sub)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("cls", sorted(descendants(httpx.TransportError), key=str))
def test_every_transport_error_of_httpx_has_a_translation(cls, begun):
    error = upstream.translate(cls("x"), begun=begun)

    is_timeout = issubclass(cls, httpx.TimeoutException)
    expected = UpstreamTimeoutError if is_timeout else UpstreamUnavailableError
    assert type(error) is expected
    assert (error.stage is Stage.ANSWER_BEGUN) is begun


@pytest.mark.parametrize(
    ("cls", "stage"),
    [
        (httpx.ConnectError, Stage.NOT_SENT),
        (httpx.ConnectTimeout, Stage.NOT_SENT),
        (httpx.PoolTimeout, Stage.NOT_SENT),
        (httpx.UnsupportedProtocol, Stage.NOT_SENT),
        (httpx.WriteError, Stage.PERHAPS_EXECUTED),
        (httpx.WriteTimeout, Stage.PERHAPS_EXECUTED),
        (httpx.ReadError, Stage.PERHAPS_EXECUTED),
        (httpx.ReadTimeout, Stage.PERHAPS_EXECUTED),
        (httpx.CloseError, Stage.PERHAPS_EXECUTED),
        (httpx.RemoteProtocolError, Stage.PERHAPS_EXECUTED),
    ],
)
def test_only_what_was_never_sent_is_safe_to_send_again(cls, stage):
    assert upstream.translate(cls("x"), begun=False).stage is stage


async def test_a_refused_connection_means_nothing_was_sent():
    error = await failure(f"http://127.0.0.1:{closed_port()}")

    assert isinstance(error, UpstreamUnavailableError)
    assert error.stage is Stage.NOT_SENT


async def test_a_host_without_an_address_means_nothing_was_sent():
    error = await failure("http://nowhere.invalid")

    assert isinstance(error, UpstreamUnavailableError)
    assert error.stage is Stage.NOT_SENT


async def test_a_connection_nobody_takes_means_nothing_was_sent(monkeypatch):
    monkeypatch.setattr(upstream, "_CONNECT_TIMEOUT_SECONDS", 0.2)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(3):  # until the queue of the listener is full
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        error = await failure(f"http://127.0.0.1:{address[1]}")

    assert isinstance(error, UpstreamTimeoutError)
    assert error.stage is Stage.NOT_SENT


async def test_plain_http_where_tls_was_expected_means_nothing_was_sent():
    async def speak_plainly(reader, writer):
        await reader.read(1)
        writer.write(OK)

    async with serving(speak_plainly) as server:
        error = await failure(server.url.replace("http://", "https://"))

    assert isinstance(error, UpstreamUnavailableError)
    assert error.stage is Stage.NOT_SENT


async def test_a_server_that_closes_without_an_answer_may_have_executed():
    async def close(reader, writer):
        await receive(reader)

    async with serving(close) as server:
        error = await failure(server.url)

    assert isinstance(error, UpstreamUnavailableError)
    assert error.stage is Stage.PERHAPS_EXECUTED


async def test_a_server_that_resets_without_an_answer_may_have_executed():
    async def reset(reader, writer):
        await receive(reader)
        writer.transport.abort()

    async with serving(reset) as server:
        error = await failure(server.url)

    assert error.stage is Stage.PERHAPS_EXECUTED


@pytest.mark.parametrize(
    "head", [OK.replace(b": 2", b": 9"), STREAM_HEAD + b"2\r\nok\r\n"]
)
@pytest.mark.parametrize("is_reset", [False, True])
async def test_an_answer_that_breaks_off_had_begun(head, is_reset):
    async def break_off(reader, writer):
        await receive(reader)
        writer.write(head)
        await writer.drain()
        if is_reset:
            writer.transport.abort()

    async with serving(break_off) as server:
        error = await failure(server.url)

    assert isinstance(error, UpstreamUnavailableError)
    assert error.stage is Stage.ANSWER_BEGUN


@pytest.mark.parametrize("is_reset", [False, True])
async def test_what_arrived_before_a_break_is_not_lost(is_reset):
    is_broken = asyncio.Event()

    async def break_off(reader, writer):
        await receive(reader)
        writer.write(STREAM_HEAD + b"5\r\nfirst\r\n6\r\nsecond\r\n")
        await writer.drain()
        if is_reset:
            writer.transport.abort()
        else:
            writer.close()
        is_broken.set()

    got = []
    async with serving(break_off) as server, client(server.url) as it:
        reply = await it.open(request(b"{}"))
        await is_broken.wait()
        with contextlib.suppress(UpstreamUnavailableError):
            async for piece in reply.chunks():
                got.append(piece)
            pytest.fail("nothing went wrong")
        await reply.aclose()

    assert b"".join(got) == b"firstsecond"


async def test_a_silent_server_is_a_timeout():
    async def stay_silent(reader, writer):
        await receive(reader)
        await reader.read()

    async with serving(stay_silent) as server:
        error = await failure(server.url, read_timeout=0.1)

    assert isinstance(error, UpstreamTimeoutError)
    assert error.stage is Stage.PERHAPS_EXECUTED


async def test_a_server_that_falls_silent_in_its_answer_is_a_timeout():
    async def fall_silent(reader, writer):
        await receive(reader)
        writer.write(STREAM_HEAD + b"2\r\nok\r\n")
        await reader.read()

    async with serving(fall_silent) as server:
        error = await failure(server.url, read_timeout=0.1)

    assert isinstance(error, UpstreamTimeoutError)
    assert error.stage is Stage.ANSWER_BEGUN


async def test_a_server_that_never_reads_is_a_timeout(monkeypatch):
    monkeypatch.setattr(upstream, "_WRITE_TIMEOUT_SECONDS", 0.2)
    is_over = asyncio.Event()

    async def never_read(reader, writer):
        writer.transport.pause_reading()
        await is_over.wait()

    async with serving(never_read) as server:
        error = await failure(server.url, request(bytes(20 * 1024**2)))
        is_over.set()

    assert isinstance(error, UpstreamTimeoutError)
    assert error.stage is Stage.PERHAPS_EXECUTED


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH sk-content\r\n\r\n",
        b"HTTP/1.1 OK sk-content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nsk-content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: sk-content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_an_error_that_does_not_quote_it(answer):
    async with answering(answer) as server:
        error = await failure(server.url, request(target=b"/v1/messages?key=sk-query"))

    assert error.stage is Stage.PERHAPS_EXECUTED
    assert "sk-" not in error.cause


async def test_a_body_that_is_not_http_is_not_quoted():
    head = STREAM_HEAD + b"2\r\nok\r\nsk-content is no size\r\n"
    async with answering(head) as server:
        error = await failure(server.url, request(target=b"/v1/messages?key=sk-query"))

    assert "sk-" not in error.cause


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", [b"/elsewhere", b"https://evil.test/", b"http://["]
)
async def test_a_redirect_is_refused_and_not_followed(status, location):
    answer = b"HTTP/1.1 %d Moved\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n"
    async with answering(answer % (status, location)) as server:
        error = await failure(server.url)

    assert isinstance(error, MalformedReplyError)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Odd: a\x7fb\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_what_no_caller_could_be_given_is_refused(answer):
    async with answering(answer) as server:
        error = await failure(server.url)

    assert isinstance(error, UpstreamError)


# --- what arrives there


async def test_nothing_is_added_but_what_http_needs():
    async with answering() as server, client(server.url) as it:
        await read(await it.open(request(b"{}", headers=[(b"x-app", b"cli")])))
    (received,) = server.requests

    assert received.line == b"POST /v1/messages HTTP/1.1"
    names = sorted(line.partition(b":")[0].lower() for line in received.headers)
    assert names == [b"content-length", b"host", b"x-app"]
    assert received.values(b"host") == [server.url.removeprefix("http://").encode()]


async def test_a_get_has_no_body_and_no_content_length():
    async with answering() as server, client(server.url) as it:
        await read(await it.open(request(method="GET", target=b"/v1/models")))

    (received,) = server.requests
    assert received.line == b"GET /v1/models HTTP/1.1"
    assert [line.partition(b":")[0].lower() for line in received.headers] == [b"host"]


async def test_headers_arrive_in_order_with_their_duplicates():
    headers = [
        (b"anthropic-beta", b"one,two"),
        (b"user-agent", b"curl/8"),
        (b"anthropic-beta", b"one"),
        (b"content-type", b"application/json"),
        (b"accept", b"*/*"),
        (b"accept-encoding", b"identity"),
    ]
    async with answering() as server, client(server.url) as it:
        await read(await it.open(request(b"{}", headers=headers)))

    kept = [line.partition(b": ") for line in server.requests[0].headers]
    expected = {name for name, _ in headers}
    assert [
        (name.lower(), value) for name, _, value in kept if name.lower() in expected
    ] == headers


@pytest.mark.parametrize("value", ["é".encode(), "日本".encode(), b"a  b\tc", b""])
async def test_the_bytes_of_a_header_are_not_touched(value):
    async with answering() as server, client(server.url) as it:
        await read(await it.open(request(headers=[(b"x-app", value)])))

    lines = [line for line in server.requests[0].headers if line.startswith(b"x-app")]
    assert lines == [b"x-app: " + value]


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5_000_003])
async def test_a_body_arrives_byte_for_byte(size):
    body = secrets.token_bytes(size)
    async with answering() as server, client(server.url) as it:
        await read(await it.open(request(body)))
    (received,) = server.requests

    assert hashlib.sha256(received.body).digest() == hashlib.sha256(body).digest()
    assert received.values(b"content-length") == [str(size).encode()]


@pytest.mark.parametrize(
    "target",
    [
        b"/v1/messages?beta=true",
        b"/v1/models?limit=1&after_id=a%2Fb",
        b"/v1/models?a=1?b=2?",
        b"/v1/models?%zz&%",
        b"/v1/models?a=%c3%A9&b=%2e%2e",
        b"/v1/models?a[]=1&b={}|^`",
        b"/v1/models?a=b+c%20d",
        b"/v1/models?//evil.test/@:80",
        b"/v1/models?&&==",
        b"/v1/models/a:b@c",
        b"/v1/models/%61?x='\"<>\\",
    ],
)
async def test_the_target_arrives_as_it_was_sent(target):
    async with answering() as server, client(server.url) as it:
        await read(await it.open(request(method="GET", target=target)))

    assert server.requests[0].line == b"GET %b HTTP/1.1" % target


@pytest.mark.parametrize(
    ("suffix", "expected"),
    [
        ("", b"/v1/messages"),
        ("/", b"/v1/messages"),
        ("/gateway", b"/gateway/v1/messages"),
        ("/a/b/", b"/a/b/v1/messages"),
        ("/a%20b", b"/a%20b/v1/messages"),
    ],
)
async def test_a_path_in_the_base_url_is_kept(suffix, expected):
    async with answering() as server, client(server.url + suffix) as it:
        await read(await it.open(request()))

    assert server.requests[0].line == b"POST %b HTTP/1.1" % expected


async def test_no_cookie_is_ever_sent_back():
    answer = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n\r\n")
    async with answering(answer) as server, client(server.url) as it:
        for _ in range(3):
            await read(await it.open(request(b"{}")))

    assert len(server.requests) == 3
    assert all(received.values(b"cookie") == [] for received in server.requests)


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    async with answering() as server, client(server.url) as it:
        assert await read(await it.open(request())) == b"ok"


# --- what comes back


@pytest.mark.parametrize(
    "answer",
    [
        b"Content-Length: 6\r\n\r\nanswer",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nans\r\n3;x=y\r\nwer\r\n0\r\n\r\n",
    ],
)
async def test_a_body_comes_back_whatever_its_framing(answer):
    answer = b"HTTP/1.1 200 OK\r\n" + answer
    async with answering(answer) as server, client(server.url) as it:
        assert await read(await it.open(request())) == b"answer"


async def test_a_body_that_ends_with_the_connection_comes_back():
    async def answer(reader, writer):
        await receive(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nanswer")

    async with serving(answer) as server, client(server.url) as it:
        assert await read(await it.open(request())) == b"answer"


@pytest.mark.parametrize("status", [200, 201, 400, 401, 404, 429, 500, 529, 599])
async def test_every_status_is_an_answer(status):
    answer = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status
    async with answering(answer) as server, client(server.url) as it:
        reply = await it.open(request())
        await reply.aclose()

    assert reply.status == status


async def test_an_interim_answer_is_not_the_answer():
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with answering(early + OK) as server, client(server.url) as it:
        reply = await it.open(request())

        assert reply.status == 200
        assert await read(reply) == b"ok"


async def test_the_headers_of_the_answer_are_kept_byte_for_byte():
    head = b"HTTP/1.1 200 OK\r\nX-B: \xc3\xa9\r\nx-a: 1\r\nX-B: 2\r\n"
    head += b"Content-Length: 0\r\n\r\n"
    async with answering(head) as server, client(server.url) as it:
        reply = await it.open(request())
        await reply.aclose()

    assert reply.headers == [
        (b"x-b", b"\xc3\xa9"),
        (b"x-a", b"1"),
        (b"x-b", b"2"),
        (b"content-length", b"0"),
    ]


async def test_a_compressed_body_passes_as_it_came():
    body = gzip.compress(b"answer")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    async with answering(head % len(body) + body) as server, client(server.url) as it:
        reply = await it.open(request())

        assert (b"content-encoding", b"gzip") in reply.headers
        assert await read(reply) == body


@pytest.mark.parametrize(
    ("headers", "answer"),
    [
        (b"Content-Type: text/event-stream", True),
        (b"Content-Type: Text/Event-Stream; charset=utf-8", True),
        (b"Content-Type: text/event-stream\r\nContent-Encoding: identity", True),
        (b"Content-Type: text/event-stream\r\nContent-Encoding: gzip", False),
        (b"Content-Type: application/json", False),
        (b"X: y", False),
    ],
)
async def test_only_plain_events_are_an_event_stream(headers, answer):
    head = b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: 0\r\n\r\n" % headers
    async with answering(head) as server, client(server.url) as it:
        reply = await it.open(request())
        await reply.aclose()

    assert reply.is_event_stream is answer


async def test_pieces_come_as_soon_as_they_arrive():
    is_seen = asyncio.Event()

    async def in_two_steps(reader, writer):
        await receive(reader)
        writer.write(STREAM_HEAD + b"5\r\nfirst\r\n")
        await is_seen.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    async with serving(in_two_steps) as server, client(server.url) as it:
        pieces = (await it.open(request())).chunks()
        async with asyncio.timeout(5):
            assert await anext(pieces) == b"first"
            is_seen.set()
            assert [piece async for piece in pieces] == [b"second"]


async def test_a_connection_whose_answer_was_read_is_used_again():
    async with answering() as server, client(server.url) as it:
        for _ in range(3):
            await read(await it.open(request(b"{}")))

    assert server.connections == 1


async def endless(reader, writer):
    await receive(reader)
    writer.write(STREAM_HEAD)
    while not writer.is_closing():
        writer.write(b"5\r\nagain\r\n")
        await writer.drain()
        await asyncio.sleep(0)
        if reader.at_eof():
            raise ConnectionResetError


async def test_letting_go_of_an_answer_ends_its_connection():
    async with serving(endless) as server, client(server.url) as it:
        reply = await it.open(request())
        await anext(reply.chunks())
        await reply.aclose()
        async with asyncio.timeout(0.5):
            await server.is_left.wait()


async def test_cancelling_a_request_ends_its_connection():
    is_waiting = asyncio.Event()

    async def stay_silent(reader, writer):
        await receive(reader)
        is_waiting.set()
        await reader.readexactly(1)

    async with serving(stay_silent) as server, client(server.url) as it:
        opening = asyncio.create_task(it.open(request(b"{}")))
        await is_waiting.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        async with asyncio.timeout(0.5):
            await server.is_left.wait()


async def test_three_hundred_requests_run_side_by_side():
    is_full = asyncio.Event()
    waiting = 0

    async def wait_for_all(reader, writer):
        nonlocal waiting
        await receive(reader)
        waiting += 1
        if waiting == 300:
            is_full.set()
        await is_full.wait()
        writer.write(OK)

    async with serving(wait_for_all) as server, client(server.url) as it:

        async def ask():
            return await read(await it.open(request(b"{}")))

        async with asyncio.timeout(10):
            bodies = await asyncio.gather(*(ask() for _ in range(300)))

    assert bodies == [b"ok"] * 300


async def test_an_answer_is_gone_without_the_garbage_collector():
    gc.disable()
    try:
        async with answering() as server, client(server.url) as it:
            reply = await it.open(request(b"{}"))
            answer = weakref.ref(reply._response)
            await read(reply)
            del reply
            assert answer() is None
    finally:
        gc.enable()
