import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import uvicorn

from proxy import protocol
from proxy.protocol import GatewayProtocol


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[int]:
    config = uvicorn.Config(
        app, port=0, http=GatewayProtocol, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await server.shutdown()


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nhost: x\r\n"])
async def test_a_head_that_does_not_end_is_not_waited_for(monkeypatch, begun):
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", 0.05)
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)

        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_a_connection_that_has_been_served_may_go_on(monkeypatch):
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", 0.2)
    async with served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert answer.startswith(b"HTTP/1.1 204")
        writer.close()
