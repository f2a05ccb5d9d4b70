"""The server's side of HTTP: uvicorn's protocol with nine faults of it mended.

What comes in:

- A head has no limit there: it is kept in memory for as long as it grows, before any
  of our code runs and whoever sends it. Here it ends with 431 (RFC 6585 §5).
- A head may take for ever, and so may a body that is unread when its answer is out.
  Here each has 30 seconds: a head from its first byte or the connection's start, a body
  from its answer's end.
- Trailers end up among the headers. Here they are dropped (RFC 9110 §6.5.1).
- A request that offers an upgrade loses its body. Some clients offer h2c with any
  request over plain HTTP. Here the offer is ignored (RFC 9110 §7.8).

What goes out:

- HTTP/1.0 is answered in chunks, and asked to go on with 100. Here the connection's end
  is the answer's (RFC 9112 §6.1, §6.3; RFC 9110 §10.1.1).
- What cannot be read is answered in plain text. Here the API's envelope is sent.
- That answer is followed by a close with unread bytes, so by a reset that may overtake
  it. Here our side ends first, and the caller's is listened to for a while (§9.6).
- It is sent at once, even into an answer that is on its way. Here that answer ends
  first, and the connection with it.

And when the worker ends, a connection is closed though a request is on its way: one
that has not been read yet, or that a caller sends because the last answer told it that
it might. Here the next answer is the last one and says so; who asks for none is given
a moment before the end.

One is left: a caller that shuts its sending side and still waits for the answer is
taken for one that has left. The two look the same until something is written, and an
answer may have nothing to write for minutes. Claude Code closes its connection when it
is interrupted, and then the call upstream has to end at once, because it costs money.
"""

import asyncio
import select
import socket
import struct
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
import structlog
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from proxy.errors import envelope
from proxy.record import new_request_id

_log = structlog.get_logger(__name__)

# Claude Code's heads are below 4 KB. What one read of the socket brings comes on top.
_HEAD_LIMIT_BYTES = 128 * 1024
_HEAD_SECONDS = 30
_UNREAD_BODY_SECONDS = 30

# How long and how much a caller is listened to after it was told that it is not read.
_LINGER_SECONDS = 5
_LINGER_BYTES = 64 * 1024**2

# How long a request is still taken on an idle connection of a worker that ends.
_LAST_CALL_SECONDS = 0.5

_UNREADABLE = "This is not a request in HTTP/1.1 that this gateway can read."
_HEAD_TOO_LARGE = (
    f"The request's head is larger than {_HEAD_LIMIT_BYTES // 1024} KB, which is the "
    "most this gateway takes. Send fewer or shorter headers."
)


def require_sendable(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raise ValueError if the server would refuse to send these headers.

    It would find out when it counts the answer as begun, and nothing else could be
    sent.
    """
    names = b"".join([name for name, _ in headers])
    values = b"".join([value for _, value in headers])
    if found := HEADER_RE.search(names) or HEADER_VALUE_RE.search(values):
        raise ValueError(f"a header of the answer has the byte {found[0]!r}")


class GatewayProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._is_in_head = True
        self._is_resuming = False
        self._is_deaf = False
        self._is_ending = False
        self._dropped_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._set_deadline(_HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def _set_deadline(self, seconds: float) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(seconds, self._end)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def data_received(self, data: bytes) -> None:
        """Parse what came in; the base class, but for limits, upgrades and refusals."""
        if self._is_deaf:
            self._drop(data)
            return
        self._unset_keepalive_if_required()
        if self._is_in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offered:
            self._ignore_upgrade(data[offered.args[0] :])
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, _UNREADABLE)
        if self._is_in_head and self._head_bytes > _HEAD_LIMIT_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _HEAD_TOO_LARGE)

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

    # --- refusals ---------------------------------------------------------------------

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        """Answer what cannot be read, and read no more on this connection."""
        if self._is_deaf or self._end_after_answer():
            return
        self._is_deaf = True
        if self.cycle is not None and not self.cycle.response_complete:
            # It is this request's body that cannot be read: its handler is let go.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        request_id = new_request_id()
        _log.info("request_unreadable", request_id=request_id, status=int(status))
        body = envelope("invalid_request_error", message, request_id)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"request-id", request_id.encode()),
        ]
        lines = b"".join(b"%b: %b\r\n" % pair for pair in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self.transport.write_eof()
        self.flow.resume_reading()
        self._set_deadline(_LINGER_SECONDS)

    def _end_after_answer(self) -> bool:
        """Make the answer that is on its way the last one; False if none is."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return False
        if cycle.more_body and not cycle.response_started and not self.pipeline:
            return False
        cycle.keep_alive = False
        self._is_deaf = True
        self._clear_deadline()
        return True

    def _end(self) -> None:
        if not self._end_after_answer():
            self.transport.close()

    def _drop(self, data: bytes) -> None:
        self._dropped_bytes += len(data)
        if self._dropped_bytes > _LINGER_BYTES:
            self.transport.close()

    # --- what the parser says ---------------------------------------------------------

    def on_message_begin(self) -> None:
        if not self._is_resuming:
            if self._deadline is None or self._is_ending:
                self._set_deadline(_HEAD_SECONDS)
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
        self._clear_deadline()
        if not self._is_resuming:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # the parser's opinion; the body is still to come
        self._is_in_head = True
        self._clear_deadline()
        super().on_message_complete()

    # --- answers ----------------------------------------------------------------------

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self._is_in_head:
            self._set_deadline(_UNREAD_BODY_SECONDS)
        elif self.cycle.response_complete and self._is_ending:
            self._call_last()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._is_ending:
            cycle.keep_alive = False
        if cycle.scope["http_version"] in {"0.9", "1.0"}:
            app = partial(_serve_without_chunks, cycle, app)
        super()._start_asgi_task(cycle, app)

    # --- the worker's end -------------------------------------------------------------

    def shutdown(self) -> None:
        """Make the next answer that can say so the last one."""
        self._is_ending = True
        if self._is_deaf:
            return  # it ends by itself, and soon
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.response_started:
                cycle.keep_alive = False
        elif not self._is_in_head:
            super().shutdown()  # answered, and still sending its body
        elif self._head_bytes == 0:
            self._call_last()

    def _call_last(self) -> None:
        """Take one more request, if it comes at once."""
        if not self.transport.is_closing():
            self._clear_deadline()
            self._deadline = self.loop.call_later(_LAST_CALL_SECONDS, self._close_idle)

    def _close_idle(self) -> None:
        # A busy loop comes to its timers before it reads what has arrived.
        descriptor = self.transport.get_extra_info("socket").fileno()
        arrived = select.poll()
        arrived.register(descriptor, select.POLLIN)
        if arrived.poll(0):
            self._call_last()
        else:
            self.transport.close()


async def _serve_without_chunks(
    cycle: RequestResponseCycle, app: Any, scope: Any, receive: Any, send: Any
) -> None:
    """Run the application for a caller that knows no chunks.

    An answer without a length ends with the connection; if it breaks off, with a reset,
    or it would look whole.
    """
    cycle.waiting_for_100_continue = False
    cycle.keep_alive = False
    has_length = True

    async def send_without_chunks(message: Any) -> None:
        nonlocal has_length
        if message["type"] == "http.response.start":
            names = {name.lower() for name, _ in message["headers"]}
            has_length = b"content-length" in names
            if not has_length:
                cycle.chunked_encoding = False
        elif not has_length:
            # The length that the server compares with: nobody was told another.
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    try:
        await app(scope, receive, send_without_chunks)
    finally:
        is_broken = not (cycle.response_complete or cycle.transport.is_closing())
        if is_broken and not has_length:
            _reset(cycle.transport)


def _reset(transport: asyncio.Transport) -> None:
    linger_no_time = struct.pack("ii", 1, 0)
    transport.get_extra_info("socket").setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, linger_no_time
    )
    transport.abort()
