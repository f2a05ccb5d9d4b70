"""The answer's way to the caller: bytes out as they came in, and a legal end.

An event stream passes frame by frame. If it breaks, or a frame makes no sense, an
`error` event ends it, because a stream that just stops looks whole to the SDKs. Any
other body that breaks off is left incomplete, which HTTP shows the caller.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

from proxy.endings import end_of
from proxy.errors import Stage, UpstreamError, UpstreamUnavailableError
from proxy.gateway import OpenRequest
from proxy.record import End, RequestRecord
from proxy.sse import FrameReader, error_event

# Frames that end a stream as it should, and how.
_LAST = {b"message_stop": End.COMPLETE, b"error": End.UPSTREAM_ERROR}


async def body(
    start: bytes, rest: AsyncIterator[bytes] | None, record: RequestRecord
) -> AsyncIterator[bytes]:
    """Yield a body that is no event stream: what was read of it, and the rest."""
    try:
        if rest is None:
            record.end = End.COMPLETE
        if start:
            yield start
        if rest is not None:
            async for chunk in rest:
                yield chunk
    except UpstreamError as error:
        _note(record, error)
        raise
    record.end = End.COMPLETE


async def events(
    start: bytes,
    rest: AsyncIterator[bytes],
    frames: FrameReader,
    record: RequestRecord,
    open_request: OpenRequest,
    note_error: Callable[[bytes], None],
) -> AsyncIterator[bytes]:
    """Yield an event stream, whole frames only: those held back, and the rest.

    How the stream ended is in the record before its last frame leaves. *note_error* is
    told of the frames among which an `error` event comes.
    """
    broken: UpstreamError | None = None
    try:
        if start:
            yield _noted(start, frames, record)
        async for chunk in rest:
            before = frames.last_event
            if whole := frames.feed(chunk):
                if frames.last_event == b"error" != before:
                    note_error(whole)
                yield _noted(whole, frames, record)
            if frames.fault is not None:
                raise UpstreamUnavailableError(Stage.ANSWER_BEGUN, frames.fault)
        if last := frames.finish():
            yield _noted(last, frames, record)
    except UpstreamError as error:
        broken = error
    except asyncio.CancelledError:
        if open_request.cut_by is None:
            raise
        open_request.task.uncancel()
        broken = open_request.cut_by(Stage.ANSWER_BEGUN, "cut")
    if frames.fault is None and frames.last_event in _LAST:
        return
    if broken is None:
        broken = UpstreamUnavailableError(Stage.ANSWER_BEGUN, "no last event")
        record.end = End.TRUNCATED
    _note(record, broken)
    yield error_event(broken, record.request_id)


def _noted(whole: bytes, frames: FrameReader, record: RequestRecord) -> bytes:
    """Look at frames before they leave."""
    if record.tally is not None:
        record.tally.note_frames(whole)
    if frames.fault is None and frames.last_event in _LAST:
        record.end = _LAST[frames.last_event]
        if record.end is End.UPSTREAM_ERROR:
            record.cause = "error event"
    return whole


def _note(record: RequestRecord, error: UpstreamError) -> None:
    record.cause = f"{error.stage.value}: {error.cause}"
    # More than a whole message is none: its caller gets an error after all.
    if record.end in {None, End.COMPLETE}:
        record.end = end_of(error)
