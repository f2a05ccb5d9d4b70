"""The commit gate: what a stream says before its first content is held back.

As long as the caller has seen nothing, a failure can be answered by another account.
The gate opens at the first content, or after a moment of silence once the message has
begun; it adds no delay to a healthy stream.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

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
    """Read *chunks* until the gate opens; UpstreamError if they break off before.

    The pieces of a chunk that are no whole frame stay in *frames*.
    """
    held = b""
    has_begun = False
    while True:
        read = asyncio.ensure_future(_next(chunks))
        try:
            await asyncio.wait({read}, timeout=silence_seconds if has_begun else None)
        except asyncio.CancelledError:
            read.cancel()
            raise
        if not read.done():
            return Opened(held, pending=read)
        chunk = read.result()
        if not chunk:
            # An end without content: the caller must not take it for a message.
            return Opened(held, is_failed=frames.last_event is None)
        held += frames.feed(chunk)
        names = {name.strip() for name in _EVENT.findall(held)}
        if b"error" in names:
            return Opened(held, is_failed=True)
        if not names <= _PRELUDE:
            return Opened(held)
        has_begun = b"message_start" in names


async def _next(chunks: AsyncIterator[bytes]) -> bytes:
    """Return the next chunk; nothing at the end."""
    return await anext(chunks, b"")


async def resumed(
    pending: "asyncio.Task[bytes] | None", chunks: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Yield what follows after the gate opened."""
    if pending is not None:
        try:
            chunk = await pending
        except asyncio.CancelledError:
            pending.cancel()
            raise
        if not chunk:
            return
        yield chunk
    async for chunk in chunks:
        yield chunk


def error_body(held: bytes) -> bytes:
    """Return the data of the `error` frame among *held*, as an envelope."""
    match = _ERROR_DATA.search(held)
    return match[1] if match else b""
