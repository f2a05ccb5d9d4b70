"""A stand-in for the Messages API, so cheap that it never is what is measured.

It answers from ready-made bytes and looks at two fields of a request: the model says
which answer, `max_tokens` how many text frames. It checks nothing and keeps nothing.
"""

import argparse
import asyncio
import re
import time
from collections.abc import Iterator
from typing import cast

import httptools
import uvloop

from bench import wire

HEAD_BYTES = 2048
PACE_SECONDS = 1 / wire.PACED_EVENTS_PER_SECOND

_MAX_TOKENS = re.compile(rb'"max_tokens":\s*(\d+)')


def _answer(status: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
        f"request-id: req_bench\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


JSON_ANSWER = _answer("200 OK", wire.ANSWER)
MODELS_ANSWER = _answer("200 OK", wire.MODELS)
NOT_FOUND_ANSWER = _answer("404 Not Found", wire.NOT_FOUND)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\nrequest-id: req_bench\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
OPENING = [_chunk(frame) for frame in wire.OPENING_FRAMES]
CLOSING = [_chunk(frame) for frame in wire.CLOSING_FRAMES]
CLOSING[-1] += b"0\r\n\r\n"
DELTA = _chunk(wire.DELTA_FRAME)


class Upstream(asyncio.Protocol):
    """One connection from whoever is measured."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        self.path = b""
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.head = b""

    def on_url(self, url: bytes) -> None:
        self.path = url

    def on_body(self, body: bytes) -> None:
        if len(self.head) < HEAD_BYTES:
            self.head += body

    def on_message_complete(self) -> None:
        if self.path.startswith(b"/v1/models"):
            self.transport.write(MODELS_ANSWER)
        elif not self.path.startswith(b"/v1/messages"):
            self.transport.write(NOT_FOUND_ANSWER)
        elif wire.MODEL_STREAM.encode() in self.head:
            self.send_at_once()
        elif wire.MODEL_PACED.encode() in self.head:
            self.send_paced()
        else:
            self.transport.write(JSON_ANSWER)

    def _deltas(self) -> int:
        found = _MAX_TOKENS.search(self.head)
        return int(found[1]) if found else wire.STREAM_DELTAS

    def send_at_once(self) -> None:
        """Send a stream as fast as the loop turns, one event for each turn.

        Written in one piece, it would reach the gateway as one read, and the price
        of an event could not be seen.
        """
        chunks = iter([*OPENING, *[DELTA] * self._deltas(), *CLOSING])
        self.transport.write(STREAM_HEAD)
        self._send_next(chunks)

    def _send_next(self, chunks: Iterator[bytes]) -> None:
        chunk = next(chunks, None)
        if chunk is not None and not self.transport.is_closing():
            self.transport.write(chunk)
            self.loop.call_soon(self._send_next, chunks)

    def send_paced(self) -> None:
        """Send a stream at a steady pace, each text frame stamped when it leaves."""
        self.transport.write(STREAM_HEAD + b"".join(OPENING))
        self._send_due(self.loop.time(), self._deltas())

    def _send_due(self, due_at: float, left: int) -> None:
        if self.transport.is_closing():
            return
        if left == 0:
            self.transport.write(b"".join(CLOSING))
            return
        self.transport.write(_chunk(wire.stamped_frame(time.monotonic_ns())))
        # From the time it was due, not from now: a late frame must not slow the rest.
        due_at += PACE_SECONDS
        self.loop.call_at(due_at, self._send_due, due_at, left - 1)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", port, backlog=2048)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.upstream")
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
