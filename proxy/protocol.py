"""The server's side of HTTP: uvicorn's protocol with four faults of it mended.

- A head has no limit there: it is kept in memory for as long as it grows, before any
  of our code runs and whoever sends it. Here it ends with 431 (RFC 6585 §5).
- Trailers end up among the headers. Here they are dropped (RFC 9110 §6.5.1).
- A head may take for ever. Here it has 30 seconds from its first byte, or from the
  connection's start.
- A request that offers an upgrade loses its body. Some clients offer h2c with any
  request over plain HTTP. Here the offer is ignored (RFC 9110 §7.8).
"""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Claude Code's heads are below 4 KB. What one read of the socket brings comes on top.
_HEAD_LIMIT_BYTES = 128 * 1024

_HEAD_SECONDS = 30

_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\n"
    b"content-length: 32\r\n"
    b"connection: close\r\n\r\n"
    b"The request's head is too large."
)


class GatewayProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._is_in_head = True
        self._is_resuming = False
        self._head_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._start_head_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_deadline()
        super().connection_lost(exc)

    def _start_head_deadline(self) -> None:
        self._head_deadline = self.loop.call_later(_HEAD_SECONDS, self.transport.close)

    def _stop_head_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def data_received(self, data: bytes) -> None:
        """Parse what came in; the base class, but for the head's limit and upgrades."""
        self._unset_keepalive_if_required()
        if self._is_in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offered:
            self._ignore_upgrade(data[offered.args[0] :])
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self.send_400_response("Invalid HTTP request received.")
        if self._is_in_head and self._head_bytes > _HEAD_LIMIT_BYTES:
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the body, which the parser takes for another protocol's."""
        headers = dict(self.headers)
        framing = b"content-length: " + headers.get(b"content-length", b"0")
        if b"transfer-encoding" in headers:
            framing = b"transfer-encoding: " + headers[b"transfer-encoding"]
        self.parser = httptools.HttpRequestParser(self)
        self._is_resuming = True
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r\n")
        self._is_resuming = False
        if rest:
            self.data_received(rest)

    def on_message_begin(self) -> None:
        if not self._is_resuming:
            if self._head_deadline is None:
                self._start_head_deadline()
            super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self._is_resuming:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head_bytes = 0
        self._stop_head_deadline()
        if not self._is_resuming:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the parser's opinion; the body is still to come
        self._is_in_head = True
        super().on_message_complete()
