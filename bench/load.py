"""The load generator: callers on keep-alive connections that check every answer.

It knows nothing of who answers. A wrong answer of any kind ends the run with
`LoadError`: a figure for requests that failed would be worth nothing.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, cast

import httptools

from bench import wire

ANSWER_TIMEOUT_SECONDS = 30.0
SHOWN_BYTES = 300


class LoadError(Exception):
    """An answer was wrong, late or missing."""


@dataclass(slots=True)
class Measured:
    """What one run saw; one entry per answer in the two lists of seconds."""

    first_byte_seconds: list[float] = field(default_factory=list)
    whole_seconds: list[float] = field(default_factory=list)
    event_delay_ns: list[int] = field(default_factory=list)
    elapsed_seconds: float = 0.0

    @property
    def requests(self) -> int:
        return len(self.whole_seconds)


class Caller(asyncio.Protocol):
    """One connection: asks, reads the answer, checks it, reports to the crowd."""

    def __init__(self, crowd: "Crowd", request: bytes) -> None:
        self.crowd = crowd
        self.request = request
        self.question = crowd.question
        self.parser = httptools.HttpResponseParser(self)
        self.transport: asyncio.Transport | None = None
        self.is_waiting = False
        self.first_byte_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        """Put the question."""
        if self.transport is None or self.transport.is_closing():
            self.crowd.fail("the connection was closed between two requests")
            return
        self.is_waiting = True
        self.first_byte_at = 0.0
        self.body_bytes = 0
        self.seen = b""
        self.frames = wire.FrameReader()
        self.asked_at = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if not self.first_byte_at:
            self.first_byte_at = time.perf_counter()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserCallbackError:
            raise  # a mistake of ours, not of the answer
        except httptools.HttpParserError as error:
            self.crowd.fail(f"the answer is not HTTP: {error}")

    def on_body(self, body: bytes) -> None:
        self.body_bytes += len(body)
        if len(self.seen) < SHOWN_BYTES:
            self.seen += body
        if self.question.is_stream:
            frames = self.frames.feed(body)
            if self.crowd.is_listening:
                self.crowd.note_delays(frames)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self.is_waiting = False
        if wrong := self.what_is_wrong():
            self.crowd.fail(f"{wrong}: {self.seen[:SHOWN_BYTES]!r}")
            return
        self.crowd.note_answer(
            self, self.first_byte_at - self.asked_at, now - self.asked_at
        )

    def what_is_wrong(self) -> str | None:
        status = self.parser.get_status_code()
        if status != 200:
            return f"status {status}"
        if self.frames.count != self.question.frames:
            return f"{self.frames.count} frames, not {self.question.frames}"
        if self.crowd.is_exact and self.body_bytes != self.question.body_bytes:
            return f"{self.body_bytes} bytes, not {self.question.body_bytes}"
        return None if self.body_bytes else "an empty body"

    def connection_lost(self, exc: Exception | None) -> None:
        if self.is_waiting:
            self.crowd.fail(f"the connection was lost before the answer ended ({exc})")


class Crowd:
    """So many callers with one question, each on its own connection.

    `is_exact` asks that bodies arrive byte for byte; a gateway that writes answers
    anew can only be held to the number of frames.
    """

    def __init__(
        self,
        port: int,
        question: wire.Question,
        *,
        callers: int,
        headers: dict[str, str] | None = None,
        is_exact: bool = True,
    ) -> None:
        self.port = port
        self.question = question
        self.is_exact = is_exact
        self.is_listening = False
        self.loop = asyncio.get_running_loop()
        self.callers = [
            Caller(self, question.request(headers or {}, str(uuid.uuid4())))
            for _ in range(callers)
        ]
        self.measured = Measured()
        self.finished: asyncio.Future[None] = self.loop.create_future()
        self.may_ask: Callable[[], bool] = lambda: False
        self.interval_seconds: float | None = None

    async def __aenter__(self) -> Self:
        try:
            for caller in self.callers:
                await self._connect(caller)
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _connect(self, caller: Caller) -> None:
        await self.loop.create_connection(lambda: caller, "127.0.0.1", self.port)

    def close(self) -> None:
        for caller in self.callers:
            caller.is_waiting = False
            if caller.transport is not None:
                caller.transport.abort()

    async def ask(
        self,
        *,
        requests: int | None = None,
        seconds: float = ANSWER_TIMEOUT_SECONDS,
        spread_seconds: float = 0.0,
        per_second: float | None = None,
    ) -> Measured:
        """Let all callers ask until *requests* are answered or *seconds* are over.

        Each asks again as soon as it is answered, or at a steady *per_second* for the
        whole crowd. *spread_seconds* is the time in which they join in one by one.
        """
        self.measured, self.finished = Measured(), self.loop.create_future()
        self.interval_seconds = len(self.callers) / per_second if per_second else None
        spread_seconds = self.interval_seconds or spread_seconds
        self.busy = len(self.callers)
        started_at = time.perf_counter()
        self.may_ask = _limit(requests, started_at + seconds)
        for number, caller in enumerate(self.callers):
            self.loop.call_later(
                spread_seconds * number / len(self.callers), self._next, caller
            )
        try:
            async with asyncio.timeout(seconds + ANSWER_TIMEOUT_SECONDS):
                await self.finished
        except TimeoutError:
            raise LoadError(f"{self.busy} callers were never answered") from None
        finally:
            self.may_ask = lambda: False
        self.measured.elapsed_seconds = time.perf_counter() - started_at
        return self.measured

    @property
    def answering(self) -> int:
        """Count the callers whose answer has begun and not ended."""
        return sum(
            1 for caller in self.callers if caller.is_waiting and caller.first_byte_at
        )

    def note_answer(self, caller: Caller, first_byte: float, whole: float) -> None:
        self.measured.first_byte_seconds.append(first_byte)
        self.measured.whole_seconds.append(whole)
        if self.interval_seconds is None:
            self._next(caller)
        else:
            wait = max(0.0, self.interval_seconds - whole)
            self.loop.call_later(wait, self._next, caller)

    def note_delays(self, frames: list[bytes]) -> None:
        now_ns = time.monotonic_ns()
        for frame in frames:
            sent_ns = wire.read_stamp(frame)
            if sent_ns is not None:
                self.measured.event_delay_ns.append(now_ns - sent_ns)

    def fail(self, message: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(LoadError(message))

    def _next(self, caller: Caller) -> None:
        if self.finished.done():
            return
        if self.may_ask():
            caller.ask()
            return
        self.busy -= 1
        if self.busy == 0:
            self.finished.set_result(None)


def _limit(requests: int | None, until: float) -> Callable[[], bool]:
    """Return a function that says, each time it is called, if one more may be asked."""
    left = requests

    def may_ask() -> bool:
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0:
                return False
        return time.perf_counter() < until

    return may_ask
