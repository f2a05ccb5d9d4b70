"""The commit gate: what a stream says before its first content is held back.

As long as the caller has seen nothing, a failure can be answered by another account.
The gate opens at the first content, or a moment after the stream has begun; it adds no
delay to a healthy stream.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from time import monotonic

from proxy.errors import Stage, UpstreamUnavailableError
from proxy.sse import FrameReader

# What may come before content: everything else opens the gate.
_EVENT = re.compile(rb"(?:^|[\r\n])event: ?([^\r\n]*)")
_ERROR_DATA = re.compile(rb"event: ?error\r?\n?data: ?([^\r\n]*)")
_PRELUDE = frozenset({b"message_start", b"ping"})


@dataclass(frozen=True, slots=True)
class Opened:
    """What was held back, and whether it ends in an error before any content.

    `pending` is the read that was under way when the gate opened for silence; what it
    brings comes next.
    """

    held: bytes
    is_failed: bool = False
    pending: "asyncio.Task[bytes] | None" = None


async def hold(
    chunks: AsyncIterator[bytes], frames: FrameReader, silence_seconds: float
) -> Opened:
    """Read *chunks* until the gate opens.

    Errors: UpstreamError if they break off before that, or make no sense.
    The pieces of a chunk that are no whole frame stay in *frames*.
    """
    held = b""
    deadline: float | None = None
    while True:
        if deadline is None:
            chunk = await _next(chunks)  # until anything has come, there is no hurry
        else:
            # In a task, because a read that is given up would end the stream.
            read = asyncio.create_task(_next(chunks))
            try:
                await asyncio.wait({read}, timeout=max(0.0, deadline - monotonic()))
            except asyncio.CancelledError:
                await end(read)
                raise
            if not read.done():
                return Opened(held, pending=read)
            chunk = read.result()
        if not chunk:
            # An end without content: the caller must not take it for a message.
            return Opened(held, is_failed=frames.last_event is None)
        held += frames.feed(chunk)
        if frames.fault is not None:
            raise UpstreamUnavailableError(Stage.ANSWER_BEGUN, frames.fault)
        names = {name.strip() for name in _EVENT.findall(held)}
        if b"error" in names:
            return Opened(held, is_failed=True)
        if not names <= _PRELUDE:
            return Opened(held)
        if held and deadline is None:
            deadline = monotonic() + silence_seconds


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """Return the next chunk; nothing at the end."""
    return await anext(chunks, b"")


async def end(read: "asyncio.Task[bytes]") -> None:
    """Give up a read, whatever it would bring."""
    read.cancel()
    await asyncio.gather(read, return_exceptions=True)


async def resumed(
    pending: "asyncio.Task[bytes] | None", chunks: AsyncIterator[bytes]
) -> AsyncGenerator[bytes]:
    """Yield what follows after the gate opened."""
    if pending is not None:
        chunk = await pending
        if not chunk:
            return
        yield chunk
    async for chunk in chunks:
        yield chunk


def error_body(held: bytes) -> bytes:
    """Return the data of the `error` frame among *held*, as an envelope."""
    match = _ERROR_DATA.search(held)
    return match[1] if match else b""
