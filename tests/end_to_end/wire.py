"""Requests as bytes, and a client that sees every byte of the answer."""

import asyncio
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

Pairs = Iterable[tuple[str, str]]

_PATIENCE_SECONDS = 20


def ask(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """A small valid Messages request; *fields* replace or add."""
    return {
        "model": "claude-opus-5-5",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": text}],
    } | fields


def request(
    content: dict[str, Any] | bytes = b"",
    *,
    key: str = "",
    method: str = "POST",
    target: str = "/v1/messages",
    headers: Pairs = (),
) -> bytes:
    """A whole request, after which the connection ends."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    pairs = [
        ("host", "localhost"),
        ("connection", "close"),
        ("anthropic-version", "2023-06-01"),
        *([("x-api-key", key)] if key else []),
        *([("content-length", str(len(body)))] if body or method == "POST" else []),
        *headers,
    ]
    return head(f"{method} {target} HTTP/1.1", pairs) + body


def head(first_line: str, pairs: Pairs) -> bytes:
    """The head of a request, exactly as given."""
    lines = [first_line, *(f"{name}: {value}" for name, value in pairs)]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def chunked(pieces: Iterable[bytes]) -> bytes:
    """A body in chunks, its end included."""
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """An answer; `is_whole` says whether its body ended as HTTP wants it."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    is_whole: bool

    def header(self, name: str) -> str | None:
        values = [value for found, value in self.headers if found == name]
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


def parse(data: bytes) -> Answer:
    """Read the bytes of an answer, of which the connection's end was the last."""
    top, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    pairs = [tuple(line.split(": ", 1)) for line in lines]
    headers = [(name.lower(), value) for name, value in pairs]
    named = dict(headers)
    if named.get("transfer-encoding") == "chunked":
        body, is_whole = _joined(rest)
    else:
        body, is_whole = rest, len(rest) == int(named["content-length"])
    return Answer(int(first.split()[1]), headers, body, is_whole)


def _joined(data: bytes) -> tuple[bytes, bool]:
    pieces: list[bytes] = []
    at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end], 16)
        at = end + 2
        if size == 0:
            return b"".join(pieces), data[at:] == b"\r\n"
        pieces.append(data[at : at + size])
        at += size + 2
    return b"".join(pieces), False


def exchange(port: int, data: bytes) -> Answer:
    """Send bytes on a connection of their own and read the whole answer."""
    with Wire(port) as wire:
        wire.send(data)
        return parse(wire.rest())


async def fetch(port: int, data: bytes) -> Answer:
    """The same, for many at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return parse(await reader.read())
    finally:
        writer.close()
        await writer.wait_closed()


class Wire:
    """One connection to a server."""

    def __init__(
        self,
        port: int,
        *,
        receive_buffer_bytes: int | None = None,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._socket = socket.socket()
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes
            )
        self._socket.settimeout(patience_seconds)
        self._socket.connect(("127.0.0.1", port))
        self.received = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive_until(self, mark: bytes) -> bytes:
        """Receive until *mark* has come; return all that has."""
        while mark not in self.received:
            data = self._socket.recv(65_536)
            assert data, f"ended after {self.received!r}"
            self.received += data
        return self.received

    def rest(self) -> bytes:
        """Receive until the connection ends, however; return all that has come."""
        pieces = [self.received]
        try:
            while data := self._socket.recv(1024**2):
                pieces.append(data)
        except ConnectionError:
            pass
        self.received = b"".join(pieces)
        return self.received

    def shut(self) -> None:
        """End the sending side and go on receiving."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def frames(stream: bytes) -> list[bytes]:
    """Cut a stream into its frames; what follows the last whole one comes last."""
    *whole, rest = stream.split(b"\n\n")
    return [frame + b"\n\n" for frame in whole] + ([rest] if rest else [])
