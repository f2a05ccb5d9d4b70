"""Requests as a test writes them, and a client that sees every byte of the answer."""

import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from claudeproxy.sandbox.log import Entry
from claudeproxy.sandbox.state import Sandbox

Body = dict[str, Any]


def ask(**fields: Any) -> Body:
    """A small valid Messages request; *fields* replace or add."""
    return {
        "model": "claude-opus-5-5",
        "max_tokens": 1000,
        "messages": [{"role": "user", "content": "Hello"}],
    } | fields


@dataclass(frozen=True)
class Raw:
    """All bytes of an answer until the connection ended, and how it ended."""

    data: bytes
    was_reset: bool

    @property
    def body(self) -> bytes:
        """The body as it was sent, chunk marks included."""
        return self.data.partition(b"\r\n\r\n")[2]

    @property
    def chunks(self) -> list[bytes]:
        """The chunks that arrived whole, the closing empty one included."""
        found = []
        rest = self.body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            count = int(size, 16)
            found.append(rest[:count])
            rest = rest[count + 2 :]
        return found


def connect(url: str, body: Body, key: str = "sk-sandbox-ada") -> socket.socket:
    """Send a Messages request on a new connection that ends after the answer."""
    content = json.dumps(body).encode()
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    head = (
        f"POST /v1/messages HTTP/1.1\r\nhost: sandbox\r\nx-api-key: {key}\r\n"
        f"anthropic-version: 2023-06-01\r\nconnection: close\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    sock = socket.create_connection((parts.hostname, parts.port), timeout=5)
    sock.sendall(head.encode() + content)
    return sock


def exchange(url: str, body: Body) -> Raw:
    """Send a Messages request and read until the connection ends."""
    data = b""
    with connect(url, body) as sock:
        try:
            while chunk := sock.recv(65536):
                data += chunk
        except ConnectionResetError:
            return Raw(data, was_reset=True)
    return Raw(data, was_reset=False)


def read_events(stream: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Read a whole event stream: the name and the data of each event."""
    events = []
    for frame in stream.decode().split("\n\n")[:-1]:
        first, second = frame.split("\n")
        assert first.startswith("event: ")
        events.append((first[7:], json.loads(second.removeprefix("data: "))))
    return events


def streamed_frames(url: str) -> list[bytes]:
    """The frames of an undisturbed streamed answer."""
    body = b"".join(exchange(url, ask(stream=True)).chunks)
    return [frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]]


def ended(sandbox: Sandbox) -> Entry:
    """The latest entry of the log, once nothing is under way any more."""
    return sandbox.log.wait_for(_has_ended)[-1]


def _has_ended(entries: list[Entry]) -> bool:
    return bool(entries) and all(entry.outcome for entry in entries)
