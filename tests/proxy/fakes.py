"""Servers on the loopback interface that answer as a test says, byte by byte."""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

Answer = Callable[[StreamReader, StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Received:
    """A request as it stood on the wire."""

    line: bytes
    headers: list[bytes]
    body: bytes

    def values(self, name: bytes) -> list[bytes]:
        pairs = [line.partition(b": ") for line in self.headers]
        return [value for found, _, value in pairs if found.lower() == name]


@dataclass
class FakeServer:
    """Where it listens, what came in, and how many connections were made."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    # Set when a caller ended its connection.
    is_left: asyncio.Event = field(default_factory=asyncio.Event)


async def receive(reader: StreamReader) -> Received:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *headers = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    received = Received(line, headers, b"")
    size = int((received.values(b"content-length") or [b"0"])[0])
    received.body = await reader.readexactly(size)
    return received


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[FakeServer]:
    """Run *answer* for every connection."""
    fake = FakeServer()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: StreamReader, writer: StreamWriter) -> None:
        fake.connections += 1
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]  # we are in one
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            fake.is_left.set()
        except asyncio.CancelledError:
            return  # the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=2**20)
    host, port = server.sockets[0].getsockname()
    fake.url = f"http://{host}:{port}"
    try:
        yield fake
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def answering(answer: bytes = OK) -> AsyncIterator[FakeServer]:
    """Answer every request with the same bytes, and keep the connection."""

    async def reply(reader: StreamReader, writer: StreamWriter) -> None:
        while True:
            fake.requests.append(await receive(reader))
            writer.write(answer)
            await writer.drain()

    async with serving(reply) as fake:
        yield fake
