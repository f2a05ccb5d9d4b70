"""One request and its answer on an ASGI server, with a watch for clients that leave."""

import asyncio
import hashlib
import io
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from time import perf_counter
from typing import Any, BinaryIO, Final

from claudeproxy.sandbox.errors import ClientGoneError, ConnectionDroppedError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# Our own server puts a function under this name that ends the TCP connection.
ABORT_EXTENSION: Final = "claude_sandbox.abort"
BODYLESS_STATUSES: Final = (204, 304)
YIELD_BYTES: Final = 65_536


class Exchange:
    """Reads one request and sends its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.body_bytes = 0
        self.body_sha256 = ""
        self.bytes_sent = 0
        self.gone_after_ms: float | None = None
        self._receive = receive
        self._send = send
        self._arrived = perf_counter()
        self._watcher: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_over = False
        self._unyielded_bytes = 0

    async def read_body(self, limit: int) -> bytes | None:
        """Read the whole body; None if it is longer than *limit*.

        Errors: ClientGoneError if it never ends.
        """
        body = io.BytesIO()
        return body.getvalue() if await self.save_body(limit, body) else None

    async def save_body(self, limit: int, sink: BinaryIO) -> bool:
        """Write the whole body into *sink*; False if it is longer than *limit*.

        Errors: ClientGoneError if it never ends.
        """
        digest = hashlib.sha256()
        more = True
        while more:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                self._note_gone()
                raise ClientGoneError
            chunk: bytes = event.get("body", b"")
            digest.update(chunk)
            self.body_bytes += len(chunk)
            # What is too long is read to its end all the same: an answer sent
            # while the client still writes would reach it as a reset.
            if self.body_bytes <= limit:
                sink.write(chunk)
            more = event.get("more_body", False)
        sink.flush()
        self.body_sha256 = digest.hexdigest()
        return self.body_bytes <= limit

    def watch(self) -> None:
        """Begin to notice at once when the client leaves."""
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        # A server also says "disconnect" when the answer is complete.
        if not self._is_over:
            self._note_gone()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _note_gone(self) -> None:
        self.gone_after_ms = round((perf_counter() - self._arrived) * 1000, 3)

    def _check(self) -> None:
        if self.gone_after_ms is not None:
            raise ClientGoneError

    async def pause(self, milliseconds: float | None) -> None:
        """Wait, for ever if None; needs the watch.

        Errors: ClientGoneError as soon as the client leaves.
        """
        self._check()
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = None
        if milliseconds is not None:
            timer = loop.call_later(milliseconds / 1000, _wake, waiter)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        self._check()

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer."""
        self._check()
        await self._send(
            {"type": "http.response.start", "status": status, "headers": headers}
        )

    async def send(self, piece: bytes) -> None:
        """Send a piece of the body, more of which follows."""
        await self._send(
            {"type": "http.response.body", "body": piece, "more_body": True}
        )
        self._unyielded_bytes += len(piece)
        if self._unyielded_bytes >= YIELD_BYTES:
            # A server drops what is sent to a client that has left without ever
            # suspending us, and then the watch would not get its turn.
            self._unyielded_bytes = 0
            await asyncio.sleep(0)
        self._check()
        self.bytes_sent += len(piece)

    async def end(self, piece: bytes = b"") -> None:
        """Send the last piece of the body."""
        self._check()
        self._is_over = True
        self.bytes_sent += len(piece)
        await self._send({"type": "http.response.body", "body": piece})

    async def abort(self, *, reset: bool) -> None:
        """Close the connection after what was sent, without a proper end.

        Errors: ConnectionDroppedError on a server that offers no way to do it.
        """
        self._is_over = True
        abort = (self.scope.get("extensions") or {}).get(ABORT_EXTENSION)
        if abort is None:
            raise ConnectionDroppedError
        abort(reset)
        # Returning earlier would make the server complain about the half answer.
        if self._watcher is not None:
            await self._watcher

    async def close(self) -> None:
        """Stop the watch."""
        if self._watcher is not None and not self._watcher.done():
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
