"""Callers by the dozen, on connections that are kept, and each answer checked."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import httptools

from tests.end_to_end.wire import Answer, ask, frames, head

PATIENCE_SECONDS = 30


def question(text: str, *, key: str, stream: bool, keep: bool = True) -> bytes:
    """A whole request of a conversation of its own."""
    body = json.dumps(ask(text, stream=stream)).encode()
    pairs = [
        ("host", "localhost"),
        ("anthropic-version", "2023-06-01"),
        ("x-api-key", key),
        ("content-length", str(len(body))),
        *([] if keep else [("connection", "close")]),
    ]
    return head("POST /v1/messages HTTP/1.1", pairs) + body


def what_is_wrong(answer: Answer, *, stream: bool) -> str:
    """Say why this is no complete message; nothing if it is one."""
    if answer.status != 200:
        return f"status {answer.status}: {answer.body[:200]!r}"
    if not answer.is_whole:
        return "broken off"
    if not stream:
        return "" if answer.json()["type"] == "message" else "no message"
    names = [frame.split(b"\n")[0] for frame in frames(answer.body)]
    if names.count(b"event: message_start") != 1 or b"event: error" in names:
        return f"no single message: {names}"
    return "" if names[-1] == b"event: message_stop" else "ends without message_stop"


class LostError(Exception):
    """The connection ended before the answer began."""


class _Connection(asyncio.Protocol):
    """One connection; `answers` counts what came on it."""

    def __init__(self) -> None:
        self.answers = 0
        self.transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._began = False

    @property
    def is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def ask(self, data: bytes) -> asyncio.Future[Answer]:
        self._waiting = asyncio.get_running_loop().create_future()
        self._began = False
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[str, str]] = []
        self._pieces: list[bytes] = []
        cast(asyncio.Transport, self.transport).write(data)
        return self._waiting

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._began = True
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode().lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self.answers += 1
        if not self._parser.should_keep_alive():
            cast(asyncio.Transport, self.transport).close()
        self._settle(is_whole=True)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._began:
            self._settle(is_whole=False)
        elif self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(LostError(repr(exc)))

    def _settle(self, *, is_whole: bool) -> None:
        if self._waiting is not None and not self._waiting.done():
            status = self._parser.get_status_code()
            body = b"".join(self._pieces)
            self._waiting.set_result(Answer(status, self._headers, body, is_whole))


@dataclass
class Caller:
    """Asks one thing after the other, as an SDK with its pool of connections does.

    A kept connection may be closed by the server in the instant in which it is used
    again. Every HTTP client sends the request once more then, on a new one; so does
    this, and counts it in `stale`.
    """

    port: int
    stale: int = 0
    connections: int = 0
    _connection: _Connection = field(default_factory=_Connection)

    async def ask(self, data: bytes) -> Answer:
        if self._connection.is_open:
            try:
                return await self._ask(data)
            except LostError:
                self.stale += 1
        await self._connect()
        return await self._ask(data)

    async def _connect(self) -> None:
        self.connections += 1
        _, self._connection = await asyncio.get_running_loop().create_connection(
            _Connection, "127.0.0.1", self.port
        )

    async def _ask(self, data: bytes) -> Answer:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._connection.ask(data)

    def close(self) -> None:
        if self._connection.transport is not None:
            self._connection.transport.abort()


async def crowd(
    port: int,
    callers: int,
    numbers: Iterable[int],
    put: Callable[[Caller, int], Awaitable[None]],
) -> list[Caller]:
    """Let so many callers share the numbers; *put* asks and judges one of them."""
    shared = iter(numbers)
    all_of_them = [Caller(port) for _ in range(callers)]

    async def call_on(caller: Caller) -> None:
        for number in shared:
            await put(caller, number)

    try:
        await asyncio.gather(*[call_on(caller) for caller in all_of_them])
    finally:
        for caller in all_of_them:
            caller.close()
    return all_of_them


def quantile(values: Iterable[float], share: float) -> float:
    """The value that *share* of all do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def until_told(is_over: Callable[[], bool]) -> Iterable[int]:
    """Numbers for as long as it is not over."""
    return itertools.takewhile(lambda _: not is_over(), itertools.count())


def line(**figures: Any) -> str:
    """Figures for the reader of a test's output."""
    return "  ".join(
        f"{name}={value:.1f}" if isinstance(value, float) else f"{name}={value}"
        for name, value in figures.items()
    )
