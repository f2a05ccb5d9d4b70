"""A TCP line to a server, which a test can make dead or cut without the server."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

_CHUNK_BYTES = 64 * 1024
_PATIENCE_SECONDS = 10


class Line:
    """Passes bytes on in both directions, for as long as it is well."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self.port = 0

    def freeze(self) -> None:
        """Let no byte pass; connections stay, and new ones seem to come about."""
        self._do(self._freeze())

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        self._do(self._cut())

    def mend(self) -> None:
        """Be well again."""
        self._do(self._mend())

    async def _freeze(self) -> None:
        self._flows.clear()

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for end in self._ends:
            end.transport.abort()

    async def _mend(self) -> None:
        self._flows.set()
        if self._server is None:
            self._server = await asyncio.start_server(
                self._pass_on, "127.0.0.1", self.port
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        ends = {writer, server_writer}
        self._ends |= ends
        ways = [
            asyncio.create_task(self._pump(reader, server_writer)),
            asyncio.create_task(self._pump(server_reader, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        self._ends -= ends
        for end in ends:
            end.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(_PATIENCE_SECONDS)

    def start(self) -> None:
        self._thread.start()
        self.mend()

    def stop(self) -> None:
        self.cut()
        self._do(self._finished())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _finished(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


@contextlib.contextmanager
def line_to(host: str, port: int) -> Iterator[Line]:
    """A line to a server, for as long as the context lasts."""
    line = Line(host, port)
    line.start()
    try:
        yield line
    finally:
        line.stop()
